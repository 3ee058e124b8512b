import numpy as np

from recommender.candidates.session import session_items


def test_the_newest_session_gives_its_distinct_items_newest_first(history):
    user = history((90, 1, 0), (9, 5, 1), (8, 6, 1), (7, 5, 1), (6, 7, 1))
    assert session_items(user, at_most=9).tolist() == [7, 5, 6]
    assert session_items(user, at_most=2).tolist() == [7, 5]


def test_actions_without_weight_do_not_count(history):
    assert session_items(history((9, 5, 0), (8, 6, 0, 0.0)), at_most=9).tolist() == [5]


def test_nobody_has_no_session(history):
    assert session_items(history(), at_most=9).dtype == np.uint64
    assert len(session_items(history(), at_most=9)) == 0
