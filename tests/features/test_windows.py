import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.rings import add, delta, unpack
from features.windows import WINDOW_NAMES, WINDOWS_MS, window_counts

MINUTE_MS = 60_000
WIDTHS_MIN = (1, 5, 60, 1440)
BUCKETS = (5, 12, 24, 7)
START_MIN = 28_000_000

# minutes that crowd around bucket edges and reach far enough back to fall out of every ring
MINUTES = st.integers(0, 12 * 1440).map(lambda back: START_MIN - back) | st.integers(0, 200).map(
    lambda b: START_MIN - b
)
EVENTS = st.lists(st.tuples(MINUTES, st.integers(0, 1)), min_size=1, max_size=40)


def ring_of(events):
    ring = bytearray()
    for minute, column in events:
        ring = add(ring, 2, delta(minute, column, 1), b"a")
    return unpack([bytes(ring)], columns=2)


def expected(events, now_min):
    """Brute force over the events in order: an event counts if its bucket was still held when it came."""
    counts = np.zeros((2, 4))
    for ring, (width, buckets) in enumerate(zip(WIDTHS_MIN, BUCKETS, strict=True)):
        head = 0
        for minute, column in events:
            bucket = minute // width
            head = max(head, bucket)
            if bucket > head - (buckets + 1):
                counts[column, ring] += 0 <= now_min // width - bucket < buckets
    return counts


@given(EVENTS, st.integers(-300, 3 * 1440))
def test_windows_equal_a_count_over_the_events_in_any_order(events, later_min):
    # a read before the newest event may miss buckets that this event cleared: `now` is at or after it
    now_min = max(START_MIN + later_min, *(minute for minute, _ in events))
    counts = window_counts(ring_of(events), now_ms=now_min * MINUTE_MS + 59_999)
    assert counts[0].tolist() == expected(events, now_min).tolist()


@given(EVENTS, st.integers(-300, 3 * 1440))
def test_no_window_counts_more_than_was_and_none_is_negative(events, later_min):
    counts = window_counts(ring_of(events), now_ms=(START_MIN + later_min) * MINUTE_MS)
    assert (counts >= 0).all()
    assert (counts <= len(events)).all()


@given(EVENTS)
def test_a_longer_window_counts_at_least_as_much(events):
    # the edges are buckets': a 7 d window that began less than a day ago still spans more than any 24 h window
    now_ms = max(minute for minute, _ in events) * MINUTE_MS
    counts = window_counts(ring_of(events), now_ms=now_ms)[0]
    assert (np.diff(counts, axis=1) >= 0).all()


def test_a_window_lets_go_of_an_event_after_its_length():
    rings = ring_of([(START_MIN, 0)])
    for ring, window_ms in enumerate(WINDOWS_MS):
        inside = window_counts(rings, now_ms=START_MIN * MINUTE_MS + window_ms - WIDTHS_MIN[ring] * MINUTE_MS)
        outside = window_counts(rings, now_ms=START_MIN * MINUTE_MS + window_ms)
        assert (inside[0, 0, ring], outside[0, 0, ring]) == (1, 0), WINDOW_NAMES[ring]


def test_an_item_without_a_ring_counts_zero():
    assert not window_counts(unpack([b""], columns=3), now_ms=START_MIN * MINUTE_MS).any()
