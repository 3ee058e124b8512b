"""The score that orders an item in the top lists: popularity that needs no re-decay.

Log-domain forward decay: log2 of the weighted 1 d half-life count as of its bucket's start, plus that start in
half-lives since 2000-01-01. Two scores of different days compare as the decayed counts would at any common time.
log2 is the piecewise-linear one of the float's own exponent and mantissa (exact at powers of two, at most 0.086 too
low between), since the C library's logarithm is not the same to the bit everywhere.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from features.rings import FIXED_POINT_BITS, HALF_LIVES_PER_BUCKET, HEADS_BYTES

EPOCH_DAY = 10_957  # 2000-01-01 in days since 1970
NOTHING = float("-inf")


def top_score(ring: bytes | bytearray, weights: Sequence[float]) -> float:
    """The score from a ring's first bytes (`rings.head_bytes`) and one weight a column; -inf when nothing counts.

    >>> from features.rings import add, delta
    >>> ring = add(bytearray(), 1, delta(EPOCH_DAY * 1440, 0, 4), b"a")
    >>> top_score(ring, [1.0]), top_score(ring, [2.0]), top_score(ring, [0.0])
    (2.0, 3.0, -inf)
    """
    columns = len(weights)
    (head,) = struct.unpack_from(">I", ring, 16)
    values = struct.unpack_from(f">{2 * columns}Q", ring, HEADS_BYTES)
    newest, other = columns * (head % 2), columns * ((head + 1) % 2)
    total = 0.0
    for column, weight in enumerate(weights):
        if weight > 0:
            total += weight * (float(values[newest + column]) + float(values[other + column]) / 256.0)
    if total <= 0:
        return NOTHING
    mantissa, exponent = math.frexp(total)
    log2 = exponent + 2.0 * mantissa - 2.0
    score: float = log2 - FIXED_POINT_BITS + (head * HALF_LIVES_PER_BUCKET - EPOCH_DAY)
    return score
