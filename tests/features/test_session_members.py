import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.session_members import session_members
from features.user_log import Log, event_bytes, pack, place, record

GAP_MS = 100
COUNTED = np.arange(256) != 9


def log(*events):
    """A packed log of (ts_ms, item, session, action) events."""
    parts = Log()
    for number, (ts_ms, item, session, action) in enumerate(events):
        place(parts.actions, record(ts_ms, item, event_bytes(str(number)), session, action, 0), 24)
    return pack(parts)


def members(logs, sessions, ts_ms):
    owner, items = session_members(
        logs, np.array(sessions, np.uint16), np.array(ts_ms, np.int64), gap_ms=GAP_MS, counted=COUNTED
    )
    return [sorted(set(items[owner == index].tolist())) for index in range(len(logs))]


def test_a_session_with_an_id_is_what_carries_the_id():
    one = log((10, 1, 5, 1), (20, 2, 6, 1), (9_000, 3, 5, 1))
    assert members([one, one], [5, 6], [10, 20]) == [[1, 3], [2]]


def test_a_session_without_an_id_is_the_run_that_no_gap_parts():
    one = log((0, 1, 0, 1), (100, 2, 0, 1), (201, 3, 0, 1), (250, 4, 0, 1))
    assert members([one, one], [0, 0], [100, 250]) == [[1, 2], [3, 4]]


def test_a_negative_action_does_not_count():
    one = log((1, 7, 5, 1), (2, 7, 5, 1), (3, 8, 5, 9))
    assert members([one], [5], [1]) == [[7]]


def test_a_log_that_is_gone_has_no_items():
    assert members([b"", log((1, 7, 5, 1)), b""], [5, 5, 0], [1, 1, 1]) == [[], [7], []]


EVENTS = st.lists(st.tuples(st.integers(0, 600), st.integers(1, 4), st.integers(0, 2), st.just(1)), max_size=12)


@given(events=st.lists(EVENTS, min_size=1, max_size=3), session=st.integers(0, 2))
def test_many_logs_at_once_give_what_a_plain_walk_over_each_gives(events, session):
    wanted = []
    asked_ms = []
    for mine in events:
        inside = sorted(event for event in mine if event[2] == session)
        at = inside[-1][0] if inside else 0
        run = []
        for event in inside:
            if session == 0 and run and event[0] - run[-1][0] > GAP_MS:
                run = []
            run.append(event)
        wanted.append(sorted({event[1] for event in run}))
        asked_ms.append(at)
    assert members([log(*mine) for mine in events], [session] * len(events), asked_ms) == wanted
