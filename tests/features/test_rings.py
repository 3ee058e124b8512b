"""Rings: exact arithmetic, free of order (the plain reference in test_state.py proves the counts)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import rings

COLUMNS = 3
events = st.lists(
    st.tuples(st.integers(27_000_000, 28_000_000), st.integers(0, COLUMNS - 1), st.integers(1, 5)),
    min_size=1,
    max_size=30,
)


def ring_of(changes, size=1):
    ring = bytearray()
    for start in range(0, len(changes), size):
        packed = b"".join(rings.delta(*change) for change in changes[start : start + size])
        ring = rings.add(ring, COLUMNS, packed, b"item")
    return bytes(ring)


@given(events, st.randoms(use_true_random=False), st.integers(1, 7))
def test_any_order_and_any_split_gives_the_same_bytes(changes, rng, size):
    assert ring_of(rng.sample(changes, len(changes)), size) == ring_of(changes)


@given(st.floats(0, 63.99))
def test_powers_of_two_are_right_to_a_millionth(exponent):
    assert rings.exp2(exponent) == pytest.approx(2.0**exponent, rel=1e-6)


@given(st.integers(0, 4_000_000_000))
def test_an_event_weighs_more_the_later_it_comes_in_its_bucket(minute):
    for half_life, now, before in zip(
        rings.HALF_LIVES_MIN, rings.moment(minute + 1).decays, rings.moment(minute).decays, strict=True
    ):
        restarts = (minute + 1) % (8 * half_life) == 0
        assert (now == 2**20 and before > 2**27) if restarts else now >= before


@given(st.lists(st.one_of(st.none(), events), max_size=6))
def test_many_rings_unpack_as_each_alone_and_absent_ones_are_zeros(several):
    blobs = [ring_of(changes) if changes else b"" for changes in several]
    together = rings.unpack(blobs, columns=COLUMNS)
    assert together.ids == ["item" if blob else None for blob in blobs]
    for index, blob in enumerate(blobs):
        alone = rings.unpack([blob], columns=COLUMNS)
        for field in ("heads", "counts", "decay_heads", "decays", "lifetime"):
            assert np.array_equal(getattr(together, field)[index], getattr(alone, field)[0])
        assert alone.lifetime.sum() == sum(each[2] for each in several[index] or ())


def test_a_ring_of_other_columns_is_refused():
    with pytest.raises(ValueError, match="4 columns"):
        rings.unpack([ring_of([(27_000_000, 0, 1)])], columns=4)


def test_a_ring_has_the_size_that_the_layout_says():
    assert len(ring_of([(27_000_000, 0, 1)])) == rings.ring_bytes(COLUMNS) + 2 + len("item")
