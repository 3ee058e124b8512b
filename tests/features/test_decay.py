from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.decay import decayed
from features.rings import add, delta, unpack

MINUTE_MS = 60_000
DAY_MIN = 1440
START_MIN = 28_000_000
RETENTION_MS = 90 * DAY_MIN * MINUTE_MS
EVENTS = st.lists(st.integers(0, 7 * DAY_MIN).map(lambda back: START_MIN - back), min_size=1, max_size=30)


def ring_of(minutes):
    ring = bytearray()
    for minute in minutes:
        ring = add(ring, 1, delta(minute, 0, 1), b"a")
    return unpack([bytes(ring)], columns=1)


@given(EVENTS, st.integers(0, 30 * DAY_MIN))
def test_decayed_counts_equal_the_sum_over_the_events(minutes, later_min):
    now_min = START_MIN + later_min
    got = decayed(ring_of(minutes), now_ms=now_min * MINUTE_MS, retention_ms=RETENTION_MS)[0, 0]
    for half_life_d, value in zip((1, 7, 30), got, strict=True):
        wanted = sum(2.0 ** (-(now_min - minute) / (half_life_d * DAY_MIN)) for minute in minutes)
        np.testing.assert_allclose(value, wanted, rtol=1e-4)


@given(EVENTS)
def test_a_decayed_count_only_falls_while_nothing_happens(minutes):
    rings = ring_of(minutes)
    values = [
        decayed(rings, now_ms=(START_MIN + step * DAY_MIN) * MINUTE_MS, retention_ms=RETENTION_MS) for step in range(5)
    ]
    assert all((later < earlier).all() for earlier, later in pairwise(values))


def test_an_item_beyond_the_retention_counts_zero():
    rings = ring_of([START_MIN])
    last_ms = START_MIN * MINUTE_MS + RETENTION_MS
    assert decayed(rings, now_ms=last_ms, retention_ms=RETENTION_MS).all()
    assert not decayed(rings, now_ms=last_ms + MINUTE_MS, retention_ms=RETENTION_MS).any()


def test_a_read_in_the_past_stays_finite():
    far = decayed(ring_of([START_MIN]), now_ms=0, retention_ms=RETENTION_MS)
    assert np.isfinite(far).all()
