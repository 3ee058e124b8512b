from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.evaluation.metrics import by_query, hit_rate, mrr, ndcg

LISTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6)
RANKS = st.integers(1, 7)


def plain_ndcg(ranked, k):
    ideal = sum(1 / np.log2(i + 2) for i in range(min(sum(ranked), k)))
    return sum(r / np.log2(i + 2) for i, r in enumerate(ranked[:k])) / ideal if ideal else 0.0


def plain_mrr(ranked, k):
    return next((1 / (i + 1) for i, r in enumerate(ranked[:k]) if r), 0.0)


def plain_hit_rate(ranked, k):
    return float(any(ranked[:k]))


def over_all_orders(metric, rows, k):
    """The mean over every order of the list that the scores allow."""
    orders = [p for p in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(p))]
    return float(np.mean([metric([r for _, r in order], k) for order in orders]))


@pytest.mark.parametrize(
    ("metric", "plain"), [(ndcg, plain_ndcg), (mrr, plain_mrr), (hit_rate, plain_hit_rate)], ids=["ndcg", "mrr", "hr"]
)
@given(rows=LISTS, k=RANKS)
def test_equal_scores_take_their_expected_value_over_all_orders_of_the_tie(metric, plain, rows, k):
    scores, relevance = map(np.array, zip(*rows, strict=True))
    assert metric(scores.astype(float), relevance, k=k) == pytest.approx(over_all_orders(plain, rows, k))


@given(rows=LISTS, seed=st.integers(0, 99))
def test_the_order_in_which_a_list_came_changes_no_figure(rows, seed):
    scores, relevance = (np.array(column) for column in zip(*rows, strict=True))
    order = np.random.default_rng(seed).permutation(len(rows))
    for metric in (ndcg, mrr, hit_rate):
        assert metric(scores, relevance) == pytest.approx(metric(scores[order], relevance[order]), abs=1e-15)


def test_a_list_with_nothing_relevant_scores_nothing():
    for metric in (ndcg, mrr, hit_rate):
        assert metric(np.array([2.0, 1.0]), np.array([0, 0])) == 0.0


def test_a_score_that_is_not_a_number_ranks_last():
    assert mrr(np.array([np.nan, 1.0]), np.array([1, 0])) == 0.5


def test_each_list_is_judged_by_itself():
    assert by_query(mrr, np.array([2.0, 1.0, 1.0, 2.0]), np.array([1, 0, 1, 0]), [2, 2]).tolist() == [1.0, 0.5]
