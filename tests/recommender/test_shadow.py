"""The figures of divergence against plain definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recommender.shadow import average_ranks, rank_correlation, top_overlap

VALUES = st.integers(-3, 3).map(float)  # few values: many ties
PAIRS = st.integers(2, 30).flatmap(
    lambda n: st.tuples(arrays(float, n, elements=VALUES), arrays(float, n, elements=VALUES))
)


@given(arrays(float, st.integers(0, 30), elements=VALUES))
def test_an_average_rank_is_one_more_than_the_smaller_ones_and_half_the_equal_others(values):
    plain = [sum(v < each for v in values) + (sum(v == each for v in values) + 1) / 2 for each in values]
    assert average_ranks(values).tolist() == plain


@given(PAIRS)
def test_the_correlation_is_that_of_the_ranks(pair):
    one, other = pair
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(average_ranks(one), average_ranks(other))[0, 1])
        assert -1 <= found <= 1


@given(arrays(float, st.integers(2, 30), elements=st.integers(-999, 999).map(float), unique=True))
def test_the_same_order_correlates_fully_whatever_the_scale_and_the_reverse_order_against(values):
    assert rank_correlation(values, 2 * values) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)


@given(st.permutations(range(12)), st.permutations(range(12)), st.integers(1, 20))
def test_the_overlap_is_the_share_of_the_first_k_in_common(one, other, k):
    found = top_overlap(np.array(one), np.array(other), k=k)
    assert found == pytest.approx(len(set(one[:k]) & set(other[:k])) / min(k, 12))


def test_without_rows_there_is_nothing_to_compare():
    assert math.isnan(top_overlap(np.empty(0, np.int64), np.empty(0, np.int64), k=5))
    assert math.isnan(rank_correlation(np.ones(1), np.ones(1)))
