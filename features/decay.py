"""Exponential decay with exact half-lives.

An event of age a counts 2^(-a / half_life). A decay ring keeps, per bucket of 8 half-lives, the sum of
floor(2^(20 + age of the bucket at the event, in half-lives)): integers, so the sum does not depend on the order. At
most 16 half-lives are kept, the rest weighs below 2^-8. Source of the form: forward decay (Cormode, Shkapenyuk,
Srivastava, Xu: "Forward Decay", ICDE 2009).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.rings import FIXED_POINT_BITS, HALF_LIVES_MIN, HALF_LIVES_PER_BUCKET, MINUTE_MS, Rings
from features.scene import Floats

HALF_LIFE_NAMES = ("1d", "7d", "30d")

_HALF_LIVES_MS = np.array(HALF_LIVES_MIN, np.int64) * MINUTE_MS
_UNIT = 2.0**FIXED_POINT_BITS


def decayed(rings: Rings, *, now_ms: int, retention_ms: int) -> Floats:
    """float32[n, columns, 3]: counts decayed to `now_ms` with half-lives of 1, 7 and 30 days.

    Zero for an item whose newest event is older than `retention_ms`: its keys may have expired, and expiry must not
    change a feature. An event newer than `now_ms` weighs at most as much as its bucket had grown.
    """
    heads = rings.decay_heads.astype(np.int64)[:, :, None]
    bucket = heads - (heads - np.arange(2)) % 2
    elapsed = (now_ms - bucket * (HALF_LIVES_PER_BUCKET * _HALF_LIVES_MS[:, None])) / _HALF_LIVES_MS[:, None]
    factor = np.exp2(-np.maximum(elapsed, 0.0)) / _UNIT
    values = np.asarray(rings.decays, np.float64)
    summed = values[:, :, 0] * factor[:, :, 0, None] + values[:, :, 1] * factor[:, :, 1, None]
    summed *= alive(rings, now_ms=now_ms, retention_ms=retention_ms)[:, None, None]
    return np.ascontiguousarray(summed.transpose(0, 2, 1), dtype=np.float32)


def alive(rings: Rings, *, now_ms: int, retention_ms: int) -> NDArray[np.bool_]:
    """bool[n]: whether the newest event (to the minute) lies within `retention_ms` before `now_ms`."""
    return rings.heads[:, 0].astype(np.int64) >= (now_ms - retention_ms) // MINUTE_MS


def half_life_weights(age_ms: NDArray[np.int64], *, half_life_ms: int) -> NDArray[np.float64]:
    """float64[m]: what events of these ages count today; a future event counts 1.

    >>> half_life_weights(np.array([0, 10, 20]), half_life_ms=10).tolist()
    [1.0, 0.5, 0.25]
    """
    return np.exp2(np.minimum(-age_ms / half_life_ms, 0.0))
