import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.model.parameters import NotTrainable, monotone, parameters_of, trees_room, trees_within
from recommender.model.training_settings import TrainingSettings


def test_a_pattern_constrains_the_columns_it_names_and_leaves_codes_free(columns):
    assert monotone({"*e": -1}, columns) == [0, -1, 0, -1]  # genre holds codes
    assert monotone({"click*": 1, "price": -1}, columns) == [1, -1, 0, 0]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"item_*_rate_*": 1}, r"no feature is named like 'item_\*_rate_\*'"),
        ({"genre": 1}, "'genre' names only codes"),
        ({"price": 1, "p*": -1}, "price is asked to rise and to fall"),
    ],
)
def test_a_constraint_that_cannot_hold_is_refused_by_name(columns, patterns, said):
    with pytest.raises(NotTrainable, match=said):
        monotone(patterns, columns)


def test_settings_reach_lightgbm(columns):
    chosen = parameters_of(TrainingSettings(leaves=15, learning_rate=0.1, seed=7, threads=2), columns)
    named = {name: chosen[name] for name in ("num_leaves", "learning_rate", "seed", "num_threads")}
    assert named == {"num_leaves": 15, "learning_rate": 0.1, "seed": 7, "num_threads": 2}
    assert "monotone_constraints" not in chosen
    assert "lambdarank_position_bias_regularization" not in chosen


@given(st.floats(0.1, 1000), st.integers(2, 254))
def test_more_budget_never_means_fewer_trees_and_more_leaves_never_more(budget_ms, leaves):
    assert trees_within(budget_ms, leaves) <= trees_within(budget_ms * 2, leaves)
    assert 1 <= trees_within(budget_ms, leaves + 1) <= trees_within(budget_ms, leaves)


def test_the_room_is_the_lesser_of_the_cap_and_the_budget():
    settings = TrainingSettings(trees_max=200, budget_ms=10)
    assert trees_room(settings, {"num_leaves": 15}) == 200
    assert trees_room(settings, {"num_leaves": 31}) == 200
    assert trees_room(settings, {"num_leaves": 127}) == trees_within(10, 127) < 200
