import numpy as np
from hypothesis import given as for_all
from hypothesis import strategies as st

from recommender.query import Found
from recommender.selection import best_first, blend, given, merge

LISTS = st.lists(st.lists(st.integers(1, 30), unique=True, max_size=20), min_size=1, max_size=4)


def source(*items):
    return Found(np.array(items, np.uint64), np.arange(len(items), 0, -1).astype(np.float32))


def names(count):
    return [f"s{index}" for index in range(count)]


@for_all(lists=LISTS, at_most=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_merge_holds_distinct_items_of_its_sources_and_fills_the_room_that_it_can(lists, at_most, seed):
    shares = np.random.default_rng(seed).uniform(0.1, 1, len(lists)).tolist()
    merged = merge(names(len(lists)), [source(*items) for items in lists], shares, at_most=at_most)
    every = {item for items in lists for item in items}
    assert len(set(merged.items.tolist())) == len(merged.items) == min(at_most, len(every))
    assert all(item in lists[by] for item, by in zip(merged.items.tolist(), merged.source.tolist(), strict=True))


def test_each_source_gets_its_share_and_the_first_proposer_is_the_source():
    merged = merge(["a", "b"], [source(*range(1, 20)), source(*range(1, 40))], [0.75, 0.25], at_most=8)
    assert np.bincount(merged.source).tolist() == [6, 2]
    assert sorted(merged.items.tolist()) == list(range(1, 9))


def test_an_unused_quota_flows_to_the_others():
    merged = merge(["a", "b", "c"], [source(1), source(*range(1, 30)), source()], [0.5, 0.25, 0.25], at_most=8)
    assert np.bincount(merged.source, minlength=3).tolist() == [1, 7, 0]


def test_a_source_without_a_share_proposes_nothing_but_its_score_is_known():
    merged = merge(["a", "b"], [source(1, 2), source(2, 3)], [1.0, 0.0], at_most=8)
    assert sorted(merged.items.tolist()) == [1, 2]
    assert merged.scores["b"].tolist() == [0.0, 2.0]


def test_a_given_list_comes_back_as_it_came_with_the_same_scores_as_found_ones():
    found = [source(5, 6, 7), source(7)]
    asked = given(["a", "b"], found, np.array([7, 9, 7, 5], np.uint64))
    assert asked.items.tolist() == [7, 9, 7, 5]
    assert asked.source.tolist() == [-1] * 4
    assert asked.scores["a"].tolist() == [1.0, 0.0, 1.0, 3.0]
    assert asked.scores["b"].tolist() == [1.0, 0.0, 1.0, 0.0]
    merged = merge(["a", "b"], found, [1, 1], at_most=9)
    assert merged.scores["a"][merged.items == 7].tolist() == [1.0]


def test_a_given_list_that_no_source_knows_scores_nothing():
    assert given(["a"], [source()], np.array([1, 2], np.uint64)).scores["a"].tolist() == [0.0, 0.0]


def test_without_a_ranker_the_sources_own_scores_are_blended_by_their_share():
    merged = merge(["a", "b"], [source(1, 2), source(2)], [0.8, 0.2], at_most=9)
    scores = dict(zip(merged.items.tolist(), blend(merged, [0.8, 0.2]).round(6).tolist(), strict=True))
    assert scores == {1: 0.8, 2: 0.6}


@for_all(items=st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1, max_size=30), seed=st.integers(0, 9))
def test_the_order_in_which_candidates_came_never_shows(items, seed):
    hashes = np.array(items, np.uint64)
    scores = np.random.default_rng(seed).integers(0, 3, len(items)).astype(np.float64)
    ranked = hashes[best_first(scores, hashes, query_id="q")]
    shuffled = np.random.default_rng(seed + 1).permutation(len(items))
    again = hashes[shuffled][best_first(scores[shuffled], hashes[shuffled], query_id="q")]
    assert ranked.tolist() == again.tolist()
    by_item = dict(zip(items, scores, strict=True))
    assert (np.diff([by_item[item] for item in ranked.tolist()]) <= 0).all()


def test_equal_scores_come_in_another_order_for_another_question():
    hashes = np.arange(100, dtype=np.uint64)
    orders = {tuple(best_first(np.zeros(100), hashes, query_id=f"q{index}").tolist()) for index in range(5)}
    assert len(orders) == 5
