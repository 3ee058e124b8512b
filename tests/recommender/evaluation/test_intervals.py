import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.evaluation.intervals import mean_interval, mean_intervals, paired

QUERIES = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1, width=16)), min_size=1, max_size=30)
DRAWS = 200


def columns(queries):
    users, values = zip(*queries, strict=True)
    return np.array(values, np.float64), np.array(users, np.uint64)


def width(estimate):
    return estimate.high - estimate.low


@given(queries=QUERIES, seed=st.integers(0, 9))
def test_a_system_compared_with_itself_leads_by_exactly_nothing(queries, seed):
    values, users = columns([*queries, (9, 0.5), (10, 0.25)])
    found = paired(values, values.copy(), users=users, seed=seed, resamples=DRAWS)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.clear_of_zero


@given(queries=QUERIES, shift=st.floats(0.01, 1))
def test_a_system_better_by_the_same_everywhere_leads_by_that_much_for_sure(queries, shift):
    values, users = columns([*queries, (9, 0.5), (10, 0.25)])
    found = paired(values + shift, values, users=users, resamples=DRAWS)
    assert (found.mean, found.low, found.high) == pytest.approx((shift, shift, shift))
    assert found.clear_of_zero


@given(queries=QUERIES, seed=st.integers(0, 99))
def test_the_order_of_the_queries_does_not_matter(queries, seed):
    values, users = columns([*queries, (9, 0.5), (10, 0.25)])
    order = np.random.default_rng(seed).permutation(len(values))
    one, other = (
        mean_interval(values[places], users=users[places], resamples=DRAWS) for places in (slice(None), order)
    )
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high), abs=1e-12)


@given(queries=QUERIES)
def test_the_mean_is_over_queries_and_the_interval_within_the_users_own_means(queries):
    values, users = columns([*queries, (9, 0.5), (10, 0.25)])
    found = mean_interval(values, users=users, resamples=DRAWS)
    own = [values[users == user].mean() for user in np.unique(users)]
    assert found.mean == pytest.approx(values.mean())
    assert min(own) - 1e-12 <= found.low <= found.high <= max(own) + 1e-12


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values, users = np.random.default_rng(1).random(50), np.arange(50, dtype=np.uint64)
    assert mean_interval(values, users=users, seed=3) == mean_interval(values, users=users, seed=3)
    assert mean_interval(values, users=users, seed=3) != mean_interval(values, users=users, seed=4)


def test_more_users_make_the_interval_narrower_and_more_queries_of_the_same_users_do_not():
    values = np.random.default_rng(1).random(100)
    users = np.arange(100, dtype=np.uint64)
    alone = mean_interval(values, users=users)
    more_users = mean_interval(np.tile(values, 4), users=np.arange(400, dtype=np.uint64))
    more_queries = mean_interval(np.tile(values, 4), users=np.tile(users, 4))
    assert width(more_users) == pytest.approx(width(alone) / 2, rel=0.15)
    assert width(more_queries) == pytest.approx(width(alone))


def test_the_interval_of_independent_queries_is_the_textbook_one():
    values = np.random.default_rng(2).random(2_000)
    found = mean_interval(values, users=np.arange(2_000, dtype=np.uint64))
    assert width(found) == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2_000), rel=0.1)


def test_intervals_of_one_world_hold_its_truth_19_times_in_20():
    generator = np.random.default_rng(3)
    inside = 0
    for seed in range(300):
        taste = generator.normal(0.5, 0.1, 60)
        users = generator.integers(0, 60, 240)
        values = taste[users] + generator.normal(0, 0.1, 240)
        found = mean_interval(values, users=users.astype(np.uint64), seed=seed, resamples=400)
        inside += found.low <= 0.5 <= found.high
    assert 0.90 <= inside / 300 <= 0.99


def test_columns_judged_together_have_the_intervals_of_each_by_itself():
    generator = np.random.default_rng(4)
    values, users = generator.random((90, 3)), generator.integers(0, 30, 90).astype(np.uint64)
    for together, column in zip(mean_intervals(values, users=users, seed=5), values.T, strict=True):
        alone = mean_interval(column, users=users, seed=5)
        assert (together.mean, together.low, together.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_more_users_than_one_block_of_draws_holds_are_all_drawn(monkeypatch):
    values, users = np.random.default_rng(5).random(40), np.arange(40, dtype=np.uint64)
    whole = mean_interval(values, users=users)
    monkeypatch.setattr("recommender.evaluation.intervals._CELLS_MAX", 130)
    assert mean_interval(values, users=users) == whole


def test_one_user_says_nothing_about_others():
    found = mean_interval(np.array([0.2, 0.4]), users=np.array([7, 7], np.uint64))
    assert (found.mean, found.low, found.high) == (pytest.approx(0.3), None, None)


def test_no_query_and_no_number_are_refused():
    with pytest.raises(ValueError, match="no query"):
        mean_interval(np.zeros(0), users=np.zeros(0, np.uint64))
    with pytest.raises(ValueError, match="no number"):
        mean_interval(np.array([np.nan, 1.0]), users=np.array([1, 2], np.uint64))
