import numpy as np
import pytest

from features.ids import hash64
from recommender.candidates.session_neighbours import SessionNeighbours

ME = hash64("me")


def found(source, query, view):
    each = source.find([query], view)[0]
    return dict(zip(each.items.tolist(), each.scores.tolist(), strict=True))


def test_neighbours_vote_by_similarity_place_and_rarity(query, toy_view, now_ms):
    """Ours: 1 then 2 (newest). Session (8, 1) shares both, (9, 1) only the older one."""
    view = toy_view(
        sessions={2: [(now_ms - 50, 8, 1)], 1: [(now_ms - 60, 8, 1), (now_ms - 40, 9, 1)]},
        members={(8, 1): [1, 2, 30], (9, 1): [1, 40]},
        rarity={30: 2.0},
    )
    scores = found(SessionNeighbours(), query((5, 1, 0), (4, 2, 0)), view)
    assert scores[30] == pytest.approx((1 + 0.5) * 0.9 * 2.0)
    assert scores[40] == pytest.approx(0.5 * 0.8)
    assert scores[1] == pytest.approx(1.5 * 0.9 + 0.5 * 0.8)


def test_an_item_that_a_neighbour_touched_twice_gets_one_vote(query, toy_view, now_ms):
    view = toy_view(sessions={2: [(now_ms, 8, 1)]}, members={(8, 1): [2, 70, 70, 71]})
    scores = found(SessionNeighbours(), query((4, 2, 0)), view)
    assert scores[70] == scores[71]


def test_the_users_own_session_of_now_is_no_neighbour_but_an_earlier_one_is(query, toy_view, now_ms):
    view = toy_view(
        sessions={2: [(now_ms - 4 * 60_000, ME, 7), (now_ms - 3_600_000, ME, 6), (now_ms, 8, 1)]},
        members={(ME, 7): [2, 50], (ME, 6): [2, 60], (8, 1): [2, 70]},
    )
    assert set(found(SessionNeighbours(), query((5, 1, 0), (4, 2, 0)), view)) == {2, 60, 70}


def test_a_session_beyond_the_retention_is_no_neighbour(query, toy_view, now_ms):
    view = toy_view(sessions={2: [(now_ms - 91 * 86_400_000, 8, 1)]}, members={(8, 1): [2, 70]})
    assert found(SessionNeighbours(), query((4, 2, 0)), view) == {}


def test_only_the_k_most_similar_vote_and_the_newer_of_equals_comes_first(query, toy_view, now_ms):
    view = toy_view(sessions={2: [(now_ms - 9, 8, 1), (now_ms - 5, 9, 1)]}, members={(8, 1): [2, 70], (9, 1): [2, 80]})
    assert set(found(SessionNeighbours(k=1), query((4, 2, 0)), view)) == {2, 80}


def test_one_micro_batch_gives_each_query_its_own_neighbours(query, toy_view, now_ms):
    view = toy_view(sessions={1: [(now_ms, 8, 1)], 2: [(now_ms, 9, 2)]}, members={(8, 1): [1, 70], (9, 2): [2, 80]})
    queries = [query((4, 1, 0)), query(), query((4, 2, 0)), query((4, 3, 0))]
    items = [each.items.tolist() for each in SessionNeighbours().find(queries, view)]
    assert [sorted(each) for each in items] == [[1, 70], [], [2, 80], []]
    alone = [SessionNeighbours().find([each], view)[0].items.tolist() for each in queries]
    assert items == alone


def test_without_any_history_nothing_is_read(query):
    assert len(SessionNeighbours().find([query()], view=None)[0].items) == 0
    assert SessionNeighbours().find([], view=None) == []


def test_scores_are_float32_and_items_hashes(query, toy_view, now_ms):
    view = toy_view(sessions={1: [(now_ms, 8, 1)]}, members={(8, 1): [1, 70]})
    each = SessionNeighbours().find([query((4, 1, 0))], view)[0]
    assert (each.items.dtype, each.scores.dtype) == (np.uint64, np.float32)
