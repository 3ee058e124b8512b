"""Ids as fixed-size numbers: what the packed state holds instead of text.

64 bits for users and items (1 M items: one collision in 3.7e7 worlds), 40 bits for an event within one user's log,
16 bits for a session within one user's log (0 = the event carries no session_id).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

CACHED_IDS_MAX = 1 << 18


@lru_cache(maxsize=CACHED_IDS_MAX)
def hash64(text: str) -> int:
    """The 64-bit hash of a user or item id (BLAKE2b, first 8 bytes, big endian).

    >>> hex(hash64("a"))
    '0x40f89e395b66422f'
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def event_hash(text: str) -> int:
    """The 40-bit hash of an event or impression id, unique within one user's log (1e-9 for 256 records)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest(), "big")


@lru_cache(maxsize=CACHED_IDS_MAX)
def session_hash(text: str | None) -> int:
    """The 16-bit hash of a session_id, 1 to 65 535; 0 for none: then a gap of 30 min parts sessions."""
    if text is None:
        return 0
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % 65_535 + 1


def source_tag(partition: int, offset: int) -> int:
    """16 bits that tell which log record put a user-log record there (see `features/state.py`: redo)."""
    return (offset * 31 + partition * 7919) & 0xFFFF
