from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.evaluation.metrics import hit_rate, joined, mrr, ndcg, recall, standings

LISTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6)
RANKS = st.integers(1, 7)
METRICS = {
    "ndcg": lambda lists: ndcg(lists, k=10),
    "mrr": mrr,
    "hit rate": lambda lists: hit_rate(lists, k=2),
    "recall": lambda lists: recall(lists, k=2),
}


def plain_ndcg(ranked, k):
    ideal = sum(1 / np.log2(i + 2) for i in range(min(sum(ranked), k)))
    return sum(r / np.log2(i + 2) for i, r in enumerate(ranked[:k])) / ideal if ideal else 0.0


def plain_mrr(ranked, k):
    return next((1 / (i + 1) for i, r in enumerate(ranked[:k]) if r), 0.0)


def plain_hit_rate(ranked, k):
    return float(any(ranked[:k]))


def plain_recall(ranked, k):
    return sum(ranked[:k]) / sum(ranked) if any(ranked) else 0.0


def over_all_orders(metric, rows, k):
    """The mean over every order of the list that the scores allow."""
    orders = [p for p in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(p))]
    return float(np.mean([metric([r for _, r in order], k) for order in orders]))


def stood(*lists):
    """The standings of lists of (score, relevance)."""
    rows = np.array([row for rows in lists for row in rows], float).reshape(-1, 2)
    return standings(rows[:, 0], rows[:, 1], [len(rows) for rows in lists])


@pytest.mark.parametrize(
    ("metric", "plain"),
    [(ndcg, plain_ndcg), (mrr, plain_mrr), (hit_rate, plain_hit_rate), (recall, plain_recall)],
    ids=["ndcg", "mrr", "hr", "recall"],
)
@given(rows=LISTS, k=RANKS)
def test_equal_scores_take_their_expected_value_over_all_orders_of_the_tie(metric, plain, rows, k):
    assert metric(stood(rows), k=k)[0] == pytest.approx(over_all_orders(plain, rows, k))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@given(rows=LISTS, seed=st.integers(0, 99))
def test_the_order_in_which_a_list_came_changes_no_bit_of_a_figure(metric, rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    assert metric(stood(rows))[0] == metric(stood([rows[i] for i in order]))[0]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@given(lists=st.lists(LISTS | st.just([]), min_size=1, max_size=5))
def test_lists_judged_together_have_the_figures_of_each_by_itself(metric, lists):
    alone = [metric(stood(rows))[0] for rows in lists]
    assert metric(stood(*lists)).tolist() == alone
    assert metric(joined([stood(rows) for rows in lists])).tolist() == alone


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_list_with_nothing_relevant_scores_nothing(metric):
    assert metric(stood([(2, 0), (1, 0)])).tolist() == [0.0]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_an_empty_list_scores_nothing(metric):
    assert metric(stood([])).tolist() == [0.0]


def test_a_score_that_is_not_a_number_ranks_last():
    assert mrr(standings(np.array([np.nan, 1.0]), np.array([1, 0]), [2])).tolist() == [0.5]


def test_relevant_items_that_a_list_does_not_hold_count_against_it():
    lists = standings(np.array([2.0, 1.0]), np.array([1, 0]), [2], relevant=[3])
    assert recall(lists, k=2).tolist() == recall(lists).tolist() == [pytest.approx(1 / 3)]
    assert ndcg(lists, k=2).tolist() == [pytest.approx(1 / (1 + 1 / np.log2(3)))]


def test_a_relevant_item_that_stands_in_a_list_twice_makes_it_no_better_than_perfect():
    lists = standings(np.array([2.0, 2.0, 1.0]), np.array([1, 1, 0]), [3], relevant=[1])
    assert ndcg(lists, k=10).tolist() == [pytest.approx(1.0)]
    assert recall(lists).tolist() == [1.0]


@given(items=st.integers(1, 30), relevant=st.integers(1, 30), k=st.integers(1, 40))
def test_a_scorer_that_cannot_tell_items_apart_has_the_expected_figures_of_a_random_order(items, relevant, k):
    relevant = min(relevant, items)
    lists = standings(np.zeros(items), np.arange(items) < relevant, [items])
    first = min(k, items)
    discounts = 1 / np.log2(np.arange(first) + 2)
    # every place is relevant with chance r/n, and the first relevant one lies beyond j places with (n-r)_j / (n)_j
    beyond = np.cumprod([1.0] + [max(items - relevant - j, 0) / (items - j) for j in range(first)])
    assert recall(lists, k=k)[0] == pytest.approx(first / items)
    assert ndcg(lists, k=k)[0] == pytest.approx(relevant / items * discounts.sum() / discounts[:relevant].sum())
    assert hit_rate(lists, k=k)[0] == pytest.approx(1 - beyond[-1])
    assert mrr(lists, k=k)[0] == pytest.approx((-np.diff(beyond) / np.arange(1, first + 1)).sum())


def test_random_scores_come_to_the_same_figures_as_a_tie_in_the_mean():
    generator = np.random.default_rng(7)
    groups, relevance = [9] * 20_000, np.tile(np.arange(9) < 2, 20_000)
    random = standings(generator.random(len(relevance)), relevance, groups)
    tied = standings(np.zeros(9), np.arange(9) < 2, [9])
    for metric in METRICS.values():
        assert metric(random).mean() == pytest.approx(metric(tied)[0], abs=0.01)
