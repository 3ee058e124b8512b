import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features import history
from features.history import USER_ITEM, past, user_counts, user_impressions, user_item, user_recency, user_session
from features.scene import UserHistory
from features.windows import WINDOWS_MS
from tests.features.worlds import CODES, DOMAIN, NOW_MS

ACTIONS = len(DOMAIN.actions)
MINUTE_MS = 60_000
EVENTS = st.lists(
    st.tuples(st.integers(0, 10**7), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2)), max_size=25
)


def log(events, *, open_session=True):
    """A history of (age in ms, item, code, session) tuples."""
    events = sorted(events, key=lambda event: -event[0])
    ages, items, codes, sessions = np.array(events, np.int64).reshape(-1, 4).T
    order = {session: place for place, session in enumerate(dict.fromkeys(sessions.tolist()))}
    ordinals = np.array([order[session] for session in sessions.tolist()], np.int32)
    inside = ordinals == ordinals[-1] if len(events) and open_session else np.zeros(len(events), bool)
    return UserHistory(
        ts_ms=NOW_MS - ages,
        items=items.astype(np.uint64),
        actions=codes.astype(np.uint8),
        sessions=ordinals,
        in_session=inside,
        weights=np.ones(len(events), np.float32),
        bought=np.unique(items[codes == 3]).astype(np.uint64),
        impressions_ts_ms=NOW_MS - ages,
    )


def item_columns(user, items):
    seen = past(user, DOMAIN, CODES, now_ms=NOW_MS)
    block = user_item(user, seen, np.array(items, np.uint64), now_ms=NOW_MS, actions=ACTIONS)
    counts = [f"{action.name}_count" for action in DOMAIN.actions]
    return dict(zip([*counts, *USER_ITEM], block.T, strict=True))


@given(EVENTS)
def test_user_counts_equal_a_count_over_the_events(events):
    user = log(events)
    got = user_counts(user, past(user, DOMAIN, CODES, now_ms=NOW_MS).actions, now_ms=NOW_MS, actions=ACTIONS)
    wanted = [
        sum(code == action and age < window for age, _, code, _ in events)
        for action in range(1, ACTIONS + 1)
        for window in (*WINDOWS_MS, 10**12)
    ]
    assert got.tolist() == wanted
    lists = user_impressions(user, now_ms=NOW_MS)
    assert lists.tolist() == [sum(age < window for age, *_ in events) for window in (*WINDOWS_MS, 10**12)]


@given(EVENTS)
def test_the_user_with_an_item_equals_a_look_through_the_events(events):
    user = log(events)
    items = [3, 1, 9, 5]
    got = item_columns(user, items)
    inside = user.items[user.in_session].tolist()
    for place, item in enumerate(items):
        mine = np.flatnonzero(user.items == item)
        for index, action in enumerate(DOMAIN.actions):
            assert got[f"{action.name}_count"][place] == (user.actions[mine] == index + 1).sum()
        assert got["session_count"][place] == inside.count(item)
        assert got["bought"][place] == (item in user.bought)
        assert got["touched_last"][place] == (len(user.items) > 0 and user.items[-1] == item)
        if not len(mine):
            assert np.isnan(got["recency_s"][place])
            assert np.isnan(got["recency_rank"][place])
            assert got["last_action"][place] == 0
            continue
        assert got["recency_s"][place] == np.float32((NOW_MS - user.ts_ms[mine[-1]]) / 1000)
        assert got["last_action"][place] == user.actions[mine[-1]]
        assert got["recency_rank"][place] == 1 + len(set(user.items[mine[-1] + 1 :].tolist()))
        np.testing.assert_allclose(got["session_share"][place], inside.count(item) / max(len(inside), 1), rtol=1e-6)
        if item in inside:
            last = len(inside) - 1 - inside[::-1].index(item)
            assert got["session_recency_rank"][place] == 1 + len(set(inside[last + 1 :]))


def test_the_run_length_is_that_of_the_newest_run_in_the_session():
    ages = range(90, 0, -10)
    items = [7, 7, 7, 5, 7, 7, 8, 8, 8]
    got = item_columns(log([(age, item, 1, 0) for age, item in zip(ages, items, strict=True)]), [7, 8, 5, 6])
    assert got["run_length"].tolist() == [2, 3, 1, 0]
    assert got["touched_last"].tolist() == [0, 1, 0, 0]


def test_dwell_is_the_gap_to_the_next_event_of_the_session_at_most_five_minutes():
    events = [
        (30 * MINUTE_MS, 1, 1, 0),
        (20 * MINUTE_MS, 2, 1, 1),
        (19 * MINUTE_MS, 1, 1, 0),
        (18 * MINUTE_MS, 3, 1, 1),
    ]
    user = log(events)
    assert history.dwell_s(user).tolist()[:2] == [300, 120]
    assert np.isnan(history.dwell_s(user)[2:]).all()
    assert item_columns(user, [1, 2])["dwell_s"].tolist() == [300, 120]


def test_recency_is_that_of_the_newest_event_of_each_action():
    user = log([(9_000, 1, 1, 0), (5_000, 2, 1, 0), (7_000, 2, 3, 0)])
    seen = past(user, DOMAIN, CODES, now_ms=NOW_MS)
    recency = user_recency(user, seen.actions, now_ms=NOW_MS, actions=ACTIONS)
    np.testing.assert_array_equal(recency, np.float32([5, 5, np.nan, 7, np.nan]))


def test_a_session_that_is_over_has_no_length():
    events = [(9_000, 1, 1, 0), (5_000, 2, 1, 0), (1_000, 2, 1, 1)]
    over = log(events, open_session=False)
    ongoing = log(events)
    lengths = [user_session(user, past(user, DOMAIN, CODES, now_ms=NOW_MS), now_ms=NOW_MS) for user in (over, ongoing)]
    assert [length[0] for length in lengths] == [0, 1]
    assert [length[5] for length in lengths] == [2, 2]
    assert np.isnan(lengths[0][2])
    np.testing.assert_allclose(lengths[1][6], 1 / 3, rtol=1e-6)


def test_an_action_that_is_no_longer_configured_counts_for_nothing_but_recency():
    user = log([(9_000, 1, 4, 0)])
    codes = {"view": 1, "cart": 2, "purchase": 3, "hide": 9, "old": 4}
    seen = past(user, DOMAIN, codes, now_ms=NOW_MS)
    assert not user_counts(user, seen.actions, now_ms=NOW_MS, actions=ACTIONS).any()
    assert not seen.taste.any()
    assert user_recency(user, seen.actions, now_ms=NOW_MS, actions=ACTIONS)[0] == 9


def test_a_negative_action_says_nothing_of_taste():
    user = log([(0, 1, 4, 0), (0, 2, 1, 0)])
    assert past(user, DOMAIN, CODES, now_ms=NOW_MS).taste.tolist() == [0, 1]
