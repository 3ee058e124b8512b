"""The user log's bytes: an order-free set, cut to the newest; what a history says at a moment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import user_log
from features.domain import Action, Domain
from features.store.port import Layout
from features.user_log import RECORD_BYTES, Log, history, pack, place, record, take_apart

DOMAIN = Domain(actions=(Action("view", weight=0.5), Action("cart", weight=3.0)))
LAYOUT = Layout(16, DOMAIN.columns, {"view": 1, "gone": 2, "cart": 3})
MINUTE_MS = 60_000
NOW_MS = 1_700_000_000_000

rows = st.lists(
    st.tuples(
        st.integers(0, 2**47), st.integers(0, 2**64 - 1), st.binary(min_size=5, max_size=5), st.integers(0, 65_535)
    ),
    max_size=40,
    unique_by=lambda row: row[2],
)


def log_of(acted, shown=(), bought=()):
    log = Log()
    for at, (ts_ms, item, session, code) in enumerate(acted):
        place(log.actions, record(ts_ms, item, b"%05d" % at, session, code, 0), RECORD_BYTES)
    for at, ts_ms in enumerate(shown):
        place(log.impressions, record(ts_ms, 0, b"%05d" % at, 0, 0, 0), RECORD_BYTES)
    for ts_ms, item in bought:
        user_log.buy(log.bought, ts_ms, item)
    return pack(log)


def at(blob, now_ms=NOW_MS):
    return history(blob, now_ms=now_ms, domain=DOMAIN, layout=LAYOUT)


@given(rows, st.randoms(use_true_random=False))
def test_records_placed_in_any_order_give_the_sorted_bytes(drawn, rng):
    entries = [record(ts_ms, item, event, session, 1, 7) for ts_ms, item, event, session in drawn]
    section = bytearray()
    for entry in rng.sample(entries, len(entries)):
        start = place(section, entry, RECORD_BYTES)
        assert section[start : start + RECORD_BYTES] == entry
    assert section == b"".join(sorted(entries))


@given(rows)
def test_every_event_is_found_where_it_stands_and_no_other_is(drawn):
    section = bytearray(b"".join(sorted(record(*row, 1, 7) for row in drawn)))
    for start in range(0, len(section), RECORD_BYTES):
        event = bytes(section[start + user_log.EVENT_AT : start + user_log.EVENT_AT + 5])
        assert user_log.find(section, event, user_log.EVENT_AT, RECORD_BYTES) == start
    known = {row[2] for row in drawn}
    absent = next(event for number in range(99) if (event := b"%05d" % number) not in known)
    assert user_log.find(section, absent, user_log.EVENT_AT, RECORD_BYTES) == -1


@given(rows)
def test_a_log_survives_being_packed_and_equal_logs_have_equal_versions(drawn):
    log = Log(actions=bytearray(b"".join(sorted(record(*row, 1, 7) for row in drawn))))
    blob = pack(log)
    assert take_apart(blob) == log
    assert pack(take_apart(blob)) == blob
    assert (user_log.version(blob) == b"") == (not drawn)


def test_a_log_keeps_its_newest_records_and_its_newest_purchases():
    blob = log_of(
        [(ts_ms, ts_ms, 0, 1) for ts_ms in range(300)], range(100), [(ts_ms, ts_ms % 200) for ts_ms in range(400)]
    )
    actions, impressions, bought = user_log.sections(blob)
    assert user_log.times_ms(actions).tolist() == list(range(300 - 256, 300))
    assert user_log.times_ms(impressions).tolist() == list(range(100 - 64, 100))
    assert user_log.times_ms(bought).tolist() == list(range(400 - 128, 400))


def test_an_empty_log_is_an_empty_history():
    empty = at(b"")
    assert [len(column) for column in (empty.ts_ms, empty.items, empty.sessions, empty.in_session, empty.bought)] == [
        0
    ] * 5


def test_a_history_sees_the_retention_up_to_now_and_nothing_later():
    retention_ms = DOMAIN.user_retention_ms
    times = [NOW_MS - retention_ms, NOW_MS - retention_ms + 1, NOW_MS, NOW_MS + 1]
    seen = at(log_of([(ts_ms, ts_ms, 0, 1) for ts_ms in times], times, [(ts_ms, ts_ms) for ts_ms in times]))
    assert (
        seen.ts_ms.tolist()
        == seen.impressions_ts_ms.tolist()
        == seen.items.tolist()
        == seen.bought.tolist()
        == times[1:3]
    )


def test_weights_are_the_configured_ones_and_zero_for_an_action_no_longer_configured():
    seen = at(log_of([(1, 1, 0, 1), (2, 1, 0, 2), (3, 1, 0, 3)]), 10)
    assert seen.weights.tolist() == [0.5, 0.0, 3.0]
    assert seen.actions.tolist() == [1, 2, 3]
    assert seen.items.dtype == np.uint64


@pytest.mark.parametrize(
    ("sessions", "minutes", "ordinals"),
    [
        ([7, 7, 9, 7], [0, 1, 2, 300], [0, 0, 1, 0]),
        ([0, 0, 0, 0], [0, 29, 60, 61], [0, 0, 1, 1]),
        ([0, 9, 0, 9], [0, 20, 29, 90], [0, 1, 0, 1]),
        ([9, 0, 0, 9], [0, 20, 51, 90], [0, 1, 2, 0]),
    ],
)
def test_a_session_is_one_session_id_or_what_no_gap_parts(sessions, minutes, ordinals):
    acted = [(minute * MINUTE_MS, 1, session, 1) for session, minute in zip(sessions, minutes, strict=True)]
    assert at(log_of(acted), 100 * 86_400_000 // 2).sessions.tolist() == ordinals


def test_the_newest_session_is_open_while_it_has_an_id_or_the_gap_has_not_passed():
    loose = log_of([(0, 1, 9, 1), (40 * MINUTE_MS, 2, 0, 1), (50 * MINUTE_MS, 3, 0, 1)])
    assert at(loose, 80 * MINUTE_MS).in_session.tolist() == [False, True, True]
    assert at(loose, 81 * MINUTE_MS).in_session.tolist() == [False, False, False]
    named = log_of([(0, 1, 0, 1), (1, 2, 9, 1)])
    assert at(named, 86_400_000).in_session.tolist() == [False, True]


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:5], lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:30] + b"?" + b[31:]]
)
def test_a_damaged_log_is_refused_before_it_is_written_again(spoil):
    log = user_log.Log()
    for n in range(3):
        log.actions += user_log.record(100 + n, n, b"event", 0, 1, n)
    blob = user_log.pack(log)
    assert user_log.take_apart(blob) == log
    with pytest.raises(ValueError, match="damaged"):
        user_log.take_apart(spoil(blob))
