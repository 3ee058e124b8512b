from dataclasses import replace

import numpy as np
import pytest

from recommender.model.boosting import Binned
from recommender.model.parameters import parameters_of, trees_room
from recommender.model.search import STEPS, choose, paired
from recommender.model.training_settings import TrainingSettings


def searched(columns, rows, *, heard=None, changed=None, **settings):
    settings = TrainingSettings(**{"trees_max": 15, "leaves": 7, **settings})
    parameters = {**parameters_of(settings, columns), **(changed or {})}
    cut = round(len(rows) * 0.8)
    binned = Binned(rows.slice(0, cut), rows.slice(cut, len(rows)), columns, parameters)
    return choose(binned, parameters, settings, heard=heard), parameters


def test_so_many_settings_are_tried_as_were_asked_for_and_no_more(columns, toy_rows):
    fits = set()
    chosen, _ = searched(columns, toy_rows(), search=2, heard=lambda number, turn: fits.add(number))
    assert len(chosen.tried) == 3
    assert fits == {0, 1, 2}
    chosen, _ = searched(columns, toy_rows(), search=64)
    assert len(chosen.tried) <= 1 + len(STEPS)


def test_no_setting_is_tried_twice(columns, toy_rows):
    chosen, parameters = searched(columns, toy_rows(), search=64)
    now, seen = parameters, [parameters]
    for attempt in chosen.tried[1:]:
        there = {**now, **attempt.changed}
        assert there not in seen
        seen.append(there)
        now = there if attempt.kept else now
    assert len(seen) > 5


def test_without_a_search_the_settings_stay(columns, toy_rows):
    chosen, parameters = searched(columns, toy_rows(), search=0)
    assert chosen.parameters == parameters
    assert [attempt.changed for attempt in chosen.tried] == [{}]


def test_a_setting_that_learns_nothing_is_left_for_one_that_does(columns, toy_rows):
    chosen, _ = searched(columns, toy_rows(240), search=8, changed={"min_data_in_leaf": 1_500})
    assert chosen.tried[0].ndcg < 0.6  # leaves so heavy that no tree has a split: the order is random
    assert chosen.parameters["min_data_in_leaf"] < 1_500
    assert chosen.grown.ndcg.mean() > 0.8


def test_a_step_is_kept_exactly_when_its_lead_is_more_than_its_error(columns, toy_rows):
    chosen, parameters = searched(columns, toy_rows(240), search=8)
    for attempt in chosen.tried[1:]:
        assert attempt.kept == (attempt.lead > attempt.error)
    kept = {name: value for attempt in chosen.tried if attempt.kept for name, value in attempt.changed.items()}
    assert chosen.parameters == {**parameters, **kept}
    assert chosen.grown.ndcg.mean() == chosen.tried[max(n for n, each in enumerate(chosen.tried) if each.kept)].ndcg


def test_labels_without_sense_change_no_setting_by_much(columns, toy_rows):
    rows = toy_rows(200)
    noise = np.random.default_rng(3).permuted(rows.grades.reshape(-1, 10), axis=1).ravel()
    chosen, _ = searched(columns, replace(rows, grades=noise), search=8)
    assert sum(attempt.kept for attempt in chosen.tried) <= 4


@pytest.mark.parametrize("budget_ms", [0.2, 5.0])
def test_no_setting_grows_more_trees_than_the_budget_has_room_for(columns, toy_rows, budget_ms):
    grown = []
    chosen, parameters = searched(
        columns, toy_rows(), search=8, budget_ms=budget_ms, heard=lambda number, turn: grown.append((number, turn.tree))
    )
    settings = TrainingSettings(trees_max=15, budget_ms=budget_ms)
    now = parameters
    for number, attempt in enumerate(chosen.tried):
        there = {**now, **attempt.changed}
        assert max(tree for fit, tree in grown if fit == number) <= trees_room(settings, there)
        now = there if attempt.kept else now


def test_the_paired_error_is_that_of_the_mean_difference():
    random = np.random.default_rng(4)
    mine, theirs = random.random(500), random.random(500)
    lead, error = paired(mine, theirs)
    assert lead == pytest.approx(mine.mean() - theirs.mean())
    assert error == pytest.approx((mine - theirs).std(ddof=1) / 500**0.5)
    assert paired(mine[:1], theirs[:1])[1] == 0
