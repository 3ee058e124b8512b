"""Two bounded lists of an item: the newest sessions that touched it, and the items that came after it.

Sessions: the newest 64 of (ts u48 | user u64 | session u16), 16 B each, ascending; one entry per user and session with
its newest touch, so the list does not depend on the order of arrival.

Co-visited: base bucket u32 | newest day u32, then (item u64 | weight float64), at most 64. Weights decay with a
half-life of 7 days: within a bucket of 8 half-lives a contribution counts 2 ** (half-lives since the bucket's start),
and between buckets weights are scaled by exact powers of two. Contributions are added strictly in offset order and a
full list keeps its best 32 before it takes a new item. Nothing but + and * by powers of two: `store/apply_items.lua`
does the same to the bit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from features.rings import HALF_LIVES_MIN, HALF_LIVES_PER_BUCKET, exp2, growth

SESSIONS_MAX = 64
SESSION_BYTES = 16
CO_VISITED_MAX = 64
CO_VISITED_KEPT = 32
CO_VISITED_HEAD = struct.Struct(">II")
CO_VISIT = struct.Struct(">8sId")  # the item that came after, the minute, the contribution
CO_VISITED_BYTES = 16
HALF_LIFE_MIN = HALF_LIVES_MIN[1]
BUCKET_MIN = HALF_LIVES_PER_BUCKET * HALF_LIFE_MIN
DAY_MIN = 1440

_SESSION = np.dtype([("ts_high", ">u2"), ("ts_low", ">u4"), ("user", ">u8"), ("session", ">u2")])
_CO_VISITED = np.dtype([("item", ">u8"), ("weight", ">f8")])

CoVisited = tuple[int, NDArray[np.uint64], NDArray[np.float64]]


def touch(sessions: bytearray, entries: bytes) -> None:
    """Takes packed session entries into a list.

    >>> sessions = bytearray()
    >>> touch(sessions, session_entry(9, 1, 0) + session_entry(5, 2, 0) + session_entry(7, 1, 0))
    >>> [column.tolist() for column in session_touches(bytes(sessions))]
    [[5, 9], [2, 1], [0, 0]]
    """
    for start in range(0, len(entries), SESSION_BYTES):
        entry = entries[start : start + SESSION_BYTES]
        known = _known(sessions, entry[6:])
        if known >= 0:
            if sessions[known : known + 6] >= entry[:6]:
                continue
            del sessions[known : known + SESSION_BYTES]
        at = len(sessions)
        while at and sessions[at - SESSION_BYTES : at] > entry:
            at -= SESSION_BYTES
        sessions[at:at] = entry
        if len(sessions) > SESSIONS_MAX * SESSION_BYTES:
            del sessions[:SESSION_BYTES]


def leave_out(sessions: bytearray, until: Mapping[bytes, bytes]) -> int:
    """Removes the entries of users (8 bytes) up to each one's time (6 bytes); returns how many those were.

    >>> sessions = bytearray()
    >>> touch(sessions, session_entry(5, 1, 0) + session_entry(6, 2, 0) + session_entry(9, 1, 1))
    >>> leave_out(sessions, {(1).to_bytes(8, "big"): (7).to_bytes(6, "big")}), session_touches(bytes(sessions))[0].tolist()
    (1, [6, 9])
    """
    entries = [bytes(sessions[at : at + SESSION_BYTES]) for at in range(0, len(sessions), SESSION_BYTES)]
    kept = [entry for entry in entries if entry[:6] > until.get(entry[6:14], b"")]
    if len(kept) < len(entries):
        sessions[:] = b"".join(kept)
    return len(entries) - len(kept)


def session_entry(ts_ms: int, user: int, session: int) -> bytes:
    """One touch, packed."""
    return struct.pack(">HIQH", ts_ms >> 32, ts_ms & 0xFFFFFFFF, user, session)


def _known(sessions: bytearray, who: bytes) -> int:
    hit = sessions.find(who)
    while hit >= 0 and hit % SESSION_BYTES != 6:
        hit = sessions.find(who, hit + 1)
    return hit - 6 if hit >= 0 else -1


def session_touches(blob: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint16]]:
    """A session list: ts_ms int64[s], users uint64[s], sessions uint16[s], oldest first."""
    rows = np.frombuffer(blob, _SESSION)
    ts_ms = (rows["ts_high"].astype(np.int64) << 32) | rows["ts_low"].astype(np.int64)
    return ts_ms, rows["user"].astype(np.uint64), rows["session"].astype(np.uint16)


@lru_cache(maxsize=1 << 12)
def contribution(minute: int, weight: float, distance: int) -> float:
    """What an action of that weight, `distance` items later, adds within its minute's bucket.

    >>> contribution(0, 3.0, 2), contribution(HALF_LIFE_MIN, 3.0, 1)
    (1.5, 6.0)
    """
    return weight / distance * exp2(growth(minute, HALF_LIFE_MIN))


def co_visit(item: bytes, minute: int, gain: float) -> bytes:
    """One contribution, packed: `item` (8 bytes) came after the list's own item."""
    return CO_VISIT.pack(item, minute, gain)


def follow(listed: bytearray, visits: bytes) -> None:
    """Takes packed contributions into a co-visited list, in their order.

    >>> listed = bytearray()
    >>> a, b = (1).to_bytes(8, "big"), (2).to_bytes(8, "big")
    >>> follow(listed, co_visit(a, 0, 1.0) + co_visit(b, 0, 0.5) + co_visit(a, BUCKET_MIN, 1.0))
    >>> base, items, weights = co_visited(bytes(listed))
    >>> base, items.tolist(), weights.tolist()
    (1, [1, 2], [1.00390625, 0.001953125])
    """
    for item, minute, gain in CO_VISIT.iter_unpack(visits):
        bucket, day = minute // BUCKET_MIN, minute // DAY_MIN
        if not listed:
            listed += CO_VISITED_HEAD.pack(bucket, day)
        base, newest_day = CO_VISITED_HEAD.unpack_from(listed)
        if bucket > base:
            _rebase(listed, math.ldexp(1.0, -HALF_LIVES_PER_BUCKET * (bucket - base)))
            base = bucket
        scaled = gain * math.ldexp(1.0, -HALF_LIVES_PER_BUCKET * (base - bucket))
        CO_VISITED_HEAD.pack_into(listed, 0, base, max(day, newest_day))
        _gain(listed, item, scaled)


def _rebase(listed: bytearray, factor: float) -> None:
    for at in range(16, len(listed), CO_VISITED_BYTES):
        struct.pack_into(">d", listed, at, struct.unpack_from(">d", listed, at)[0] * factor)


def _gain(listed: bytearray, item: bytes, gain: float) -> None:
    hit = listed.find(item, 8)
    while hit >= 0 and hit % CO_VISITED_BYTES != 8:
        hit = listed.find(item, hit + 1)
    if hit >= 0:
        struct.pack_into(">d", listed, hit + 8, struct.unpack_from(">d", listed, hit + 8)[0] + gain)
        return
    if len(listed) >= 8 + CO_VISITED_MAX * CO_VISITED_BYTES:
        listed[8:] = b"".join(_best(listed[at : at + 16] for at in range(8, len(listed), 16)))
    listed += item + struct.pack(">d", gain)


def _best(entries: Iterable[bytearray]) -> list[bytes]:
    """The best 32: by weight, then by hash. Positive doubles sort as their bytes do."""
    ordered = sorted((bytes(entry) for entry in entries), key=lambda entry: entry[:8])
    return sorted(ordered, key=lambda entry: entry[8:], reverse=True)[:CO_VISITED_KEPT]


def co_visited(blob: bytes) -> CoVisited:
    """A co-visited list: its base bucket, items uint64[n], weights float64[n] as of the bucket's start."""
    if not blob:
        return 0, np.empty(0, np.uint64), np.empty(0, np.float64)
    rows = np.frombuffer(blob, _CO_VISITED, offset=CO_VISITED_HEAD.size)
    return CO_VISITED_HEAD.unpack_from(blob)[0], rows["item"].astype(np.uint64), rows["weight"].astype(np.float64)


def at_one_time(lists: Sequence[CoVisited]) -> list[tuple[NDArray[np.uint64], NDArray[np.float64]]]:
    """Lists of different buckets with their weights as of the newest one's start, so that they can be added up.

    >>> one = np.array([1], np.uint64)
    >>> [weights.tolist() for _, weights in at_one_time([(4, one, np.array([1.0])), (5, one, np.array([1.0]))])]
    [[0.00390625], [1.0]]
    """
    newest = max((base for base, _, _ in lists), default=0)
    return [(items, weights * 2.0 ** (HALF_LIVES_PER_BUCKET * (base - newest))) for base, items, weights in lists]
