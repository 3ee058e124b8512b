"""Sliding windows read from rings of tumbling slots.

A ring of N slots of width W holds the newest N buckets; the window is the newest N-1 of them, the one of `now`
included, so a 5 min window spans 4 to 5 minutes. Slot s of ring r stands for bucket head - ((head - s) mod N).
The layout is that of `features/rings.py`; measured against brute force in tests/features/test_windows.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.rings import FIRST_SLOTS, MINUTE_MS, SLOTS, WIDTHS_MIN, Rings
from features.scene import Floats

WINDOW_NAMES = ("5m", "1h", "24h", "7d")
WINDOWS_MS = (300_000, 3_600_000, 86_400_000, 604_800_000)

_WIDTHS_MS = np.array(WIDTHS_MIN, np.int64) * MINUTE_MS
_SLOTS = np.array(SLOTS, np.int64)
_STARTS = np.array(FIRST_SLOTS, np.intp)
_RING_OF = np.repeat(np.arange(4), _SLOTS)
_SLOT_IN_RING = np.arange(_SLOTS.sum()) - _STARTS[_RING_OF]


def window_counts(rings: Rings, *, now_ms: int) -> Floats:
    """float32[n, columns, 4]: counts within 5 min, 1 h, 24 h and 7 d before `now_ms`, bucket by bucket.

    Buckets that begin after `now_ms` are left out, so a read in the past sees nothing of the future's buckets.
    """
    weight = _inside(rings.heads, now_ms=now_ms)
    summed = np.add.reduceat(rings.counts * weight[:, :, None], _STARTS, axis=1)
    return summed.transpose(0, 2, 1).astype(np.float32, order="C")


def _inside(heads: NDArray[np.uint32], *, now_ms: int) -> NDArray[np.uint32]:
    """uint32[n, 52]: 1 where a slot's bucket lies in its ring's window at `now_ms`."""
    head = heads.astype(np.int64)[:, _RING_OF]
    size = _SLOTS[_RING_OF]
    age = (now_ms // _WIDTHS_MS)[_RING_OF] - head + (head - _SLOT_IN_RING) % size
    inside: NDArray[np.bool_] = (age >= 0) & (age < size - 1)
    return inside.astype(np.uint32)
