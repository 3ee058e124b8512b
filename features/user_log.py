"""The user log: one packed string with what one user did, an order-free set cut to its newest records.

Big endian, so that the order of the bytes is the order of the records:

    header      version u32 | actions u16 | impressions u16 | bought u16 | flags u16
    actions     n x 24 B: ts u48 | item u64 | event u40 | session u16 | action u8 | tag u16, ascending, newest 256
    impressions n x 24 B: the same record with item 0 and action 0, event = hash of the impression_id, newest 64
    bought      n x 14 B: ts u48 (newest purchase) | item u64, ascending, newest 128 distinct items

Flags: the uppermost bit says that the user was forgotten before this log began (`features/tombstone.py` knows until
when); the others, by how many seconds at most a record's time lay ahead of the log that brought it.

The same set of events gives the same bytes in any order and any split, but for the flags and the tags (which log record
put a record there: `features/state.py` needs it for a redo). The version is the CRC-32 of all that follows it: two blobs of
one version are equal, so comparing versions before a write is safe even when a log was deleted and began again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from features.domain import Action, Domain
from features.scene import UserHistory
from features.store.port import Layout

ACTIONS_MAX = 256
IMPRESSIONS_MAX = 64
BOUGHT_MAX = 128

HEADER = struct.Struct(">4xHHHH")
RECORD = struct.Struct(">HIQ5sHBH")
BOUGHT = struct.Struct(">HIQ")
RECORD_BYTES = RECORD.size
BOUGHT_BYTES = BOUGHT.size
VERSION_BYTES = 4
EVENT_AT = 14  # of a record: where the event's hash begins
SESSION_AT = 19
ACTION_AT = 21
TAG_AT = 22
FLAGS_AT = 10  # of a log
FORGOTTEN = 0x8000
AHEAD_S_MAX = 0x7FFF
TIME_BYTES = 6
_ALL = slice(None)

_RECORDS = np.dtype(
    [("ts_high", ">u2"), ("ts_low", ">u4"), ("item", ">u8"), ("event", "V5"), ("session", ">u2"), ("action", "u1"), ("tag", ">u2")]
)  # fmt: skip
_BOUGHT = np.dtype([("ts_high", ">u2"), ("ts_low", ">u4"), ("item", ">u8")])


@dataclass(slots=True)
class Log:
    """A log taken apart for writing: three sections of whole records, each ascending."""

    actions: bytearray = field(default_factory=bytearray)
    impressions: bytearray = field(default_factory=bytearray)
    bought: bytearray = field(default_factory=bytearray)
    flags: int = 0


def event_bytes(text: str) -> bytes:
    """The 40-bit hash of an event or impression id as it stands in a record (`ids.event_hash`)."""
    return blake2b(text.encode(), digest_size=5).digest()


def record(ts_ms: int, item: int, event: bytes, session: int, action: int, tag: int) -> bytes:
    """One action or impression, packed.

    >>> record(1, 2, b"event", 3, 4, 5).hex()
    '00000000000100000000000000026576656e740003040005'
    """
    return RECORD.pack(ts_ms >> 32, ts_ms & 0xFFFFFFFF, item, event, session, action, tag)


def take_apart(blob: bytes) -> Log:
    """The sections of a packed log; an empty blob is an empty log. Raises `ValueError` for a damaged one."""
    if not blob:
        return Log()
    actions, impressions, _, flags = _header(blob)
    if crc32(memoryview(blob)[VERSION_BYTES:]) != int.from_bytes(blob[:VERSION_BYTES], "big"):
        raise ValueError("its checksum differs: damaged")
    shown = HEADER.size + actions * RECORD_BYTES
    bought = shown + impressions * RECORD_BYTES
    return Log(bytearray(blob[HEADER.size : shown]), bytearray(blob[shown:bought]), bytearray(blob[bought:]), flags)


def pack(log: Log) -> bytes:
    """The log as one string, cut to the newest records of each section; b"" when nothing is in it."""
    cut(log.actions, RECORD_BYTES, ACTIONS_MAX)
    cut(log.impressions, RECORD_BYTES, IMPRESSIONS_MAX)
    cut(log.bought, BOUGHT_BYTES, BOUGHT_MAX)
    if not (log.actions or log.impressions or log.bought):
        return b""
    head = HEADER.pack(
        len(log.actions) // RECORD_BYTES,
        len(log.impressions) // RECORD_BYTES,
        len(log.bought) // BOUGHT_BYTES,
        log.flags,
    )
    rest = b"".join((head[VERSION_BYTES:], log.actions, log.impressions, log.bought))
    return crc32(rest).to_bytes(VERSION_BYTES, "big") + rest


def _header(blob: bytes) -> tuple[int, int, int, int]:
    """Actions, impressions, bought, flags. Raises `ValueError` where they are not the blob's length."""
    if len(blob) >= HEADER.size:
        actions, impressions, bought, flags = HEADER.unpack_from(blob)
        if len(blob) == HEADER.size + RECORD_BYTES * (actions + impressions) + BOUGHT_BYTES * bought:
            return actions, impressions, bought, flags
    raise ValueError(f"its {len(blob)} bytes are no user log: damaged")


def version(blob: bytes) -> bytes:
    """What a write compares: 4 bytes, b"" where there is no log."""
    return blob[:VERSION_BYTES]


def has_tombstone(blob: bytes) -> bool:
    """Whether the user may have been forgotten: a log that says so, or none."""
    return not blob or blob[FLAGS_AT : FLAGS_AT + 1] >= b"\x80"


def note_ahead(log: Log, ahead_ms: int) -> None:
    """Remembers that a record's time lay so far ahead of the log that brought it.

    >>> log = Log()
    >>> for ahead_ms in (1_001, 5): note_ahead(log, ahead_ms)
    >>> log.flags
    2
    """
    ahead_s = min(-(-ahead_ms // 1000), AHEAD_S_MAX)
    log.flags = log.flags & FORGOTTEN | max(log.flags & ~FORGOTTEN, ahead_s)


def forget(log: Log, *, forgotten_ms: int, until_ms: int) -> tuple[int, list[bytes]]:
    """Empties a log of what came before its user was forgotten at `forgotten_ms`, or earlier up to `until_ms`; what is
    later stays: another partition's records may be ahead of the one that says so.

    A record whose time lay ahead of its log's may have come before and be later: so much more is forgotten as the
    log's clock ever ran ahead. Returns the event time of all that is forgotten, and the items that went (8 bytes each).
    """
    reach_ms = forgotten_ms + 1000 * (log.flags & ~FORGOTTEN)
    until_ms = max(until_ms, forgotten_ms)
    for section, width in _dated(log):
        if end := _end(section, width, reach_ms):
            until_ms = max(until_ms, int.from_bytes(section[end - width : end - width + TIME_BYTES], "big"))
    return until_ms, clip(log, until_ms)


def clip(log: Log, until_ms: int) -> list[bytes]:
    """Leaves what is later than `until_ms`, and notes that the user was forgotten; returns the items that went."""
    items: dict[bytes, None] = {}
    for section, width in _dated(log):
        end = _end(section, width, until_ms)
        if section is not log.impressions:
            items.update((bytes(section[at + TIME_BYTES : at + TIME_BYTES + 8]), None) for at in range(0, end, width))
        del section[:end]
    log.flags |= FORGOTTEN
    return list(items)


def _dated(log: Log) -> tuple[tuple[bytearray, int], ...]:
    """The sections and the bytes of an entry; each begins with its time."""
    return (log.actions, RECORD_BYTES), (log.impressions, RECORD_BYTES), (log.bought, BOUGHT_BYTES)


def _end(section: bytearray, width: int, ts_ms: int) -> int:
    """Where the first entry begins that is later than `ts_ms`."""
    newest = ts_ms.to_bytes(TIME_BYTES, "big")
    end = len(section)
    while end and section[end - width : end - width + TIME_BYTES] > newest:
        end -= width
    return end


def find(section: bytearray, needle: bytes, at: int, width: int) -> int:
    """Where the record begins that has `needle` at its byte `at`; -1 for none.

    One search in C instead of a set of 256 hashes; a hit that straddles two records is passed over.
    """
    hit = section.find(needle)
    while hit >= 0 and hit % width != at:
        hit = section.find(needle, hit + 1)
    return hit - at if hit >= 0 else -1


def place(section: bytearray, entry: bytes, width: int) -> int:
    """Inserts an entry where it belongs and returns where that is. Events mostly arrive in order: the end comes first."""
    end = len(section)
    if not end or entry >= section[end - width :]:
        section += entry
        return end
    low, high = 0, end // width - 1
    while low < high:
        middle = (low + high) // 2
        if section[middle * width : middle * width + width] < entry:
            low = middle + 1
        else:
            high = middle
    section[low * width : low * width] = entry
    return low * width


def cut(section: bytearray, width: int, most: int) -> None:
    """Leaves the newest `most` entries."""
    if len(section) > most * width:
        del section[: len(section) - most * width]


def buy(section: bytearray, ts_ms: int, item: int) -> None:
    """Remembers the newest purchase of an item.

    >>> bought = bytearray()
    >>> for ts_ms in (5, 9, 7): buy(bought, ts_ms, 1)
    >>> bought.hex()
    '0000000000090000000000000001'
    """
    entry = BOUGHT.pack(ts_ms >> 32, ts_ms & 0xFFFFFFFF, item)
    known = find(section, entry[6:], 6, BOUGHT_BYTES)
    if known >= 0:
        if section[known : known + BOUGHT_BYTES] >= entry:
            return
        del section[known : known + BOUGHT_BYTES]
    place(section, entry, BOUGHT_BYTES)


def history(blob: bytes, *, now_ms: int, domain: Domain, layout: Layout) -> UserHistory:
    """What the log says at `now_ms`: records within the retention and not after now, oldest first.

    A session is what carries one session_id; records without one are parted by a gap of `domain.session_gap_ms`. The
    newest record's session is open (`in_session`) while the gap has not passed, or as long as it has a session_id.
    """
    actions, impressions, bought = _sections(blob)
    actions, ts_ms = _within(actions, now_ms, domain.user_retention_ms)
    _, shown_ms = _within(impressions, now_ms, domain.user_retention_ms)
    bought, _ = _within(bought, now_ms, domain.user_retention_ms)
    codes = actions["action"].astype(np.uint8)
    sessions = _ordinals(actions["session"].astype(np.int64), ts_ms, domain.session_gap_ms)
    return UserHistory(
        ts_ms=ts_ms,
        items=actions["item"].astype(np.uint64),
        actions=codes,
        sessions=sessions,
        in_session=_open(actions, ts_ms, sessions, now_ms, domain.session_gap_ms),
        weights=_weights(domain.actions, tuple(layout.action_codes.items()))[codes],
        bought=bought["item"].astype(np.uint64),
        impressions_ts_ms=shown_ms,
    )


def sections(blob: bytes) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.void]]:
    """The three sections as structured arrays (fields ts_high, ts_low, item ...), no copy."""
    return _sections(blob)


def times_ms(rows: NDArray[np.void], at: NDArray[np.intp] | slice = _ALL) -> NDArray[np.int64]:
    """int64[n]: the event times of a section's rows, or of those at these places."""
    return (rows["ts_high"][at].astype(np.int64) << 32) | rows["ts_low"][at].astype(np.int64)


def _sections(blob: bytes) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.void]]:
    if not blob:
        return np.empty(0, _RECORDS), np.empty(0, _RECORDS), np.empty(0, _BOUGHT)
    n, shown, bought, _ = _header(blob)
    first = HEADER.size
    second = first + n * RECORD_BYTES
    third = second + shown * RECORD_BYTES
    return (
        np.frombuffer(blob, _RECORDS, n, first),
        np.frombuffer(blob, _RECORDS, shown, second),
        np.frombuffer(blob, _BOUGHT, bought, third),
    )


def _within(rows: NDArray[np.void], now_ms: int, retention_ms: int) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    ts_ms = times_ms(rows)
    if not len(rows):
        return rows, ts_ms
    low, high = ts_ms.searchsorted((now_ms - retention_ms, now_ms), side="right")
    return rows[low:high], ts_ms[low:high]


def _ordinals(hashes: NDArray[np.int64], ts_ms: NDArray[np.int64], gap_ms: int) -> NDArray[np.int32]:
    """int32[m]: 0, 1, ... in the order of each session's first record."""
    labels = hashes.copy()
    loose = np.flatnonzero(hashes == 0)
    if len(loose):
        breaks = np.diff(ts_ms[loose], prepend=ts_ms[loose[0]]) > gap_ms
        labels[loose] = 65_536 + np.cumsum(breaks)
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[which].astype(np.int32)


def _open(
    actions: NDArray[np.void], ts_ms: NDArray[np.int64], sessions: NDArray[np.int32], now_ms: int, gap_ms: int
) -> NDArray[np.bool_]:
    if not len(ts_ms) or (now_ms - ts_ms[-1] > gap_ms and actions["session"][-1] == 0):
        return np.zeros(len(ts_ms), np.bool_)
    mask: NDArray[np.bool_] = sessions == sessions[-1]
    return mask


@lru_cache(maxsize=16)
def _weights(actions: tuple[Action, ...], codes: tuple[tuple[str, int], ...]) -> NDArray[np.float32]:
    """float32[256]: the configured weight by action code; 0 for actions that are no longer configured."""
    table = np.zeros(256, np.float32)
    weight_of = {action.name: action.weight for action in actions}
    for name, code in codes:
        table[code] = weight_of.get(name, 0.0)
    return table
