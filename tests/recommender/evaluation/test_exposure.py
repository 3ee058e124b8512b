import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.evaluation.exposure import coverage, exposure_gini, novelty_bits

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=8)
ITEMS = np.arange(10, dtype=np.uint64)


def hashes(lists):
    return [np.array(each, np.uint64) for each in lists]


def plain_gini(counts):
    """The mean difference of all pairs over twice the mean, unbiased: 1 where one item has all."""
    counts = np.array(counts, float)
    pairs = np.abs(counts[:, None] - counts).sum() / (len(counts) * (len(counts) - 1))
    return pairs / (2 * counts.mean()) if counts.sum() else 0.0


@given(lists=LISTS)
def test_coverage_and_gini_are_those_of_the_counts_over_the_whole_catalogue(lists):
    counts = [sum(item in each for each in lists) for item in range(10)]
    assert coverage(hashes(lists), catalogue=10) == sum(map(bool, counts)) / 10
    assert exposure_gini(hashes(lists), catalogue=10) == pytest.approx(plain_gini(counts))


@given(lists=LISTS, seed=st.integers(0, 99))
def test_neither_the_order_of_lists_nor_that_of_items_matters(lists, seed):
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(each) for each in hashes(lists)]
    generator.shuffle(shuffled)
    counts = np.arange(10) ** 2
    for figure in (
        lambda shown: coverage(shown, catalogue=10),
        lambda shown: exposure_gini(shown, catalogue=10),
        lambda shown: novelty_bits(shown, items=ITEMS, counts=counts, catalogue=10) or 0.0,
    ):
        assert figure(hashes(lists)) == pytest.approx(figure(shuffled))


def test_everything_shown_alike_is_even_and_one_item_alone_is_not():
    assert exposure_gini(hashes([range(5), range(5, 10)]), catalogue=10) == 0.0
    assert exposure_gini(hashes([[3]] * 7), catalogue=10) == pytest.approx(1.0)
    assert exposure_gini(hashes([[3]]), catalogue=1) == 0.0


def test_novelty_is_the_surprise_at_an_item_by_its_share_of_the_events():
    items, counts = np.array([8, 2], np.uint64), np.array([3, 11])  # of 14 + 2 virtual events: 1/4 and 3/4
    known = {"items": items, "counts": counts, "catalogue": 2}
    assert novelty_bits(hashes([[8]]), **known) == pytest.approx(2.0)
    assert novelty_bits(hashes([[2]]), **known) == pytest.approx(-np.log2(3 / 4))
    assert novelty_bits(hashes([[8, 2], [8]]), **known) == pytest.approx(((2 - np.log2(3 / 4)) / 2 + 2) / 2)


@given(counts=st.lists(st.integers(0, 1000), min_size=10, max_size=10))
def test_rarer_items_are_more_novel(counts):
    def bits(item):
        return novelty_bits(hashes([[item]]), items=ITEMS, counts=np.array(counts), catalogue=10)

    rarest, commonest = int(np.argmin(counts)), int(np.argmax(counts))
    assert bits(rarest) >= bits(commonest)


def test_an_item_without_events_is_news_but_not_infinitely():
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    assert novelty_bits(hashes([[5]]), items=nothing[0], counts=nothing[1], catalogue=8) == pytest.approx(3.0)


def test_where_nothing_is_shown_nothing_is_covered_and_novelty_unknown():
    for shown in ([], hashes([[]])):
        assert coverage(shown, catalogue=3) == exposure_gini(shown, catalogue=3) == 0.0
        assert novelty_bits(shown, items=ITEMS, counts=np.ones(10, np.int64), catalogue=10) is None


def test_more_items_than_the_catalogue_has_are_refused():
    with pytest.raises(ValueError, match="3 distinct items are shown of a catalogue of 2"):
        coverage(hashes([[1, 2, 3]]), catalogue=2)
