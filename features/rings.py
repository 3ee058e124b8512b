"""An item's ring: its windows, decayed counts and lifetime count as one packed string; the world's ring is alike.

Big endian, C = the columns that `meta` fixes:

    heads         4 x u32        newest bucket of the rings of 1 min, 5 min, 1 h, 1 d buckets
    decay heads   3 x u32        newest bucket of the decayed counts of half-life 1, 7, 30 d
    decays        3 x 2 x C x u64  two slots each, buckets of 8 half-lives; the 1 d one comes first: the top score reads it
    lifetime      C x u32
    counts        52 x C x u32   slots 0-5: 1 min, 6-18: 5 min, 19-43: 1 h, 44-51: 1 d
    id            u16 length + UTF-8, so that a hash can be turned back into an id

Bucket b of a ring lives in slot b mod N. An event raises the head and clears what fell out, or adds to its slot if that
still holds its bucket: the end state depends on the set of events only, not on their order. Each event adds
floor(2 ** (20 + age of its minute within the bucket, in half-lives)) to a decayed count: integers, so that sums are
exact and free of order. Time counts in whole minutes. `store/apply_items.lua` does the same in Redis.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MINUTE_MS = 60_000
WIDTHS_MIN = (1, 5, 60, 1440)
SLOTS = (6, 13, 25, 8)
FIRST_SLOTS = (0, 6, 19, 44)
SLOTS_ALL = 52
HALF_LIVES_MIN = (1440, 7 * 1440, 30 * 1440)
HALF_LIVES_PER_BUCKET = 8
FIXED_POINT_BITS = 20
HEADS_BYTES = 28
COUNT_MAX = 2**32 - 1
DELTA = struct.Struct(">IBIIII")  # minute, column, events, and what one event adds to the three decayed counts

_ROOTS = tuple(accumulate(range(19), lambda root, _: math.sqrt(root), initial=math.sqrt(2.0)))  # 2 ** 2**-i, i = 1..20


class Moment(NamedTuple):
    """A minute as the rings see it: its buckets, and what one event of it adds to the decayed counts."""

    buckets: tuple[int, int, int, int]
    decay_buckets: tuple[int, int, int]
    decays: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rings:
    """n rings taken apart: heads uint32[n, 4], counts uint32[n, 52, C], decay_heads uint32[n, 3], decays
    uint64[n, 3, 2, C] (bucket b in slot b mod 2), lifetime uint32[n, C], ids (None: no ring).
    """

    heads: NDArray[np.uint32]
    counts: NDArray[np.uint32]
    decay_heads: NDArray[np.uint32]
    decays: NDArray[np.uint64]
    lifetime: NDArray[np.uint32]
    ids: list[str | None]


class DamagedRing(ValueError):
    """The blob at `index` is no ring."""

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        super().__init__(reason)


def exp2(exponent: float) -> float:
    """2 ** exponent for 0 <= exponent < 64, in 2**-20 steps, by multiplications alone: the same bits on every machine,
    which the C library's `pow` does not promise.

    >>> exp2(0.0), exp2(3.0), exp2(0.5) == 2**0.5
    (1.0, 8.0, True)
    """
    whole = int(exponent)
    bits = int((exponent - whole) * 1_048_576)
    product = 1.0
    for index, root in enumerate(_ROOTS):
        if bits & (524_288 >> index):
            product *= root
    return math.ldexp(product, whole)


@lru_cache(maxsize=1 << 14)
def moment(minute: int) -> Moment:
    """Minute number since 1970 -> buckets and decayed contributions.

    >>> moment(11520).decay_buckets, moment(11520).decays[0] == 2**20, moment(11520 + 1440).decays[0] == 2**21
    ((1, 0, 0), True, True)
    """
    first, second, third, fourth = WIDTHS_MIN
    return Moment(
        (minute // first, minute // second, minute // third, minute // fourth),
        tuple(minute // (HALF_LIVES_PER_BUCKET * half_life) for half_life in HALF_LIVES_MIN),  # type: ignore[arg-type]
        tuple(int(exp2(FIXED_POINT_BITS + growth(minute, half_life))) for half_life in HALF_LIVES_MIN),  # type: ignore[arg-type]
    )


def growth(minute: int, half_life_min: int) -> float:
    """How many half-lives a minute lies after the start of its bucket, 0 <= growth < 8."""
    return minute % (HALF_LIVES_PER_BUCKET * half_life_min) / half_life_min


def delta(minute: int, column: int, events: int) -> bytes:
    """A ring's change: `events` events of one minute and column."""
    return DELTA.pack(minute, column, events, *moment(minute).decays)


def head_bytes(columns: int) -> int:
    """How much of a ring the top score needs: the heads and the 1 d decayed counts."""
    return HEADS_BYTES + 16 * columns


def counts_at(columns: int) -> int:
    """Where the 52 slots begin."""
    return HEADS_BYTES + 52 * columns


def ring_bytes(columns: int) -> int:
    """The size of a ring without its id.

    >>> ring_bytes(3)
    808
    """
    return HEADS_BYTES + (48 + 4 + 4 * SLOTS_ALL) * columns


def add(ring: bytearray, columns: int, deltas: bytes, item_id: bytes) -> bytearray:
    """Adds packed deltas (see `delta`) to a ring, creating it when empty; returns the ring.

    >>> ring = add(bytearray(), 2, delta(100, 1, 3) + delta(99, 0, 1), b"a")
    >>> rings = unpack([bytes(ring)], columns=2)
    >>> rings.lifetime.tolist(), rings.heads.tolist(), rings.ids
    ([[1, 3]], [[100, 20, 1, 0]], ['a'])
    """
    if not ring:
        ring = bytearray(ring_bytes(columns)) + len(item_id).to_bytes(2, "big") + item_id
    changes = list(DELTA.iter_unpack(deltas))
    newest = moment(max(change[0] for change in changes))
    heads = list(struct.unpack_from(">7I", ring))
    _advance(ring, columns, heads, newest)
    struct.pack_into(">7I", ring, 0, *heads)
    for minute, column, events, *decays in changes:
        _count(ring, columns, heads, moment(minute), column, events)
        _decay(ring, columns, heads, moment(minute), column, [events * each for each in decays])
    return ring


def _advance(ring: bytearray, columns: int, heads: list[int], newest: Moment) -> None:
    base = counts_at(columns)
    for index, bucket in enumerate(newest.buckets):
        if bucket > heads[index]:
            slots = SLOTS[index]
            for stale in range(max(heads[index] + 1, bucket - slots + 1), bucket + 1):
                at = base + 4 * columns * (FIRST_SLOTS[index] + stale % slots)
                ring[at : at + 4 * columns] = bytes(4 * columns)
            heads[index] = bucket
    for index, bucket in enumerate(newest.decay_buckets):
        if bucket > heads[4 + index]:
            for stale in range(max(heads[4 + index] + 1, bucket - 1), bucket + 1):
                at = HEADS_BYTES + 8 * columns * (2 * index + stale % 2)
                ring[at : at + 8 * columns] = bytes(8 * columns)
            heads[4 + index] = bucket


def _count(ring: bytearray, columns: int, heads: Sequence[int], when: Moment, column: int, events: int) -> None:
    base = counts_at(columns)
    places = [HEADS_BYTES + 48 * columns + 4 * column]
    for index, bucket in enumerate(when.buckets):
        if bucket > heads[index] - SLOTS[index]:
            slot = FIRST_SLOTS[index] + bucket % SLOTS[index]
            places.append(base + 4 * (columns * slot + column))
    for at in places:
        (count,) = struct.unpack_from(">I", ring, at)
        struct.pack_into(">I", ring, at, min(count + events, COUNT_MAX))


def _decay(
    ring: bytearray, columns: int, heads: Sequence[int], when: Moment, column: int, gains: Sequence[int]
) -> None:
    for index, bucket in enumerate(when.decay_buckets):
        if bucket > heads[4 + index] - 2:
            at = HEADS_BYTES + 8 * (columns * (2 * index + bucket % 2) + column)
            (value,) = struct.unpack_from(">Q", ring, at)
            struct.pack_into(">Q", ring, at, value + gains[index])


def unpack(blobs: Sequence[bytes], *, columns: int) -> Rings:
    """N packed rings as arrays; b"" becomes zeros with id None. One numpy pass over the joined bytes.

    Raises `DamagedRing` for a blob that is no ring of that many columns with an id behind it.
    """
    size = ring_bytes(columns)
    empty = bytes(size)
    for index, blob in enumerate(blobs):
        if blob and len(blob) != size + 2 + int.from_bytes(blob[size : size + 2], "big"):
            raise DamagedRing(index, f"its {len(blob)} bytes are no ring of {columns} columns: damaged")
    rows = np.frombuffer(b"".join([blob[:size] or empty for blob in blobs]), np.uint8).reshape(len(blobs), size)
    heads = _numbers(rows, 0, HEADS_BYTES, np.uint32)
    lifetime_at = HEADS_BYTES + 48 * columns
    return Rings(
        heads=heads[:, :4],
        counts=_numbers(rows, counts_at(columns), size, np.uint32).reshape(-1, SLOTS_ALL, columns),
        decay_heads=heads[:, 4:],
        decays=_numbers(rows, HEADS_BYTES, lifetime_at, np.uint64).reshape(-1, 3, 2, columns),
        lifetime=_numbers(rows, lifetime_at, lifetime_at + 4 * columns, np.uint32),
        ids=[blob[size + 2 :].decode() or None if blob else None for blob in blobs],
    )


def _numbers(rows: NDArray[np.uint8], start: int, end: int, kind: type[np.unsignedinteger]) -> NDArray:  # type: ignore[type-arg]
    big = np.dtype(kind).newbyteorder(">")
    return np.ascontiguousarray(rows[:, start:end]).view(big).astype(kind)
