"""Sums over lists of different lengths: how a source turns what it read into one `Found`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.distinct import distinct
from features.scene import Hashes
from recommender.query import EMPTY, Found


def summed(items: Hashes, scores: NDArray[Any], *, at_most: int) -> Found:
    """The best `at_most` distinct items by the sum of their scores; equal ones in the order of their hash.

    >>> found = summed(np.array([7, 9, 7], np.uint64), np.array([1., 3., 1.]), at_most=9)
    >>> found.items.tolist(), found.scores.tolist()
    ([9, 7], [3.0, 2.0])
    """
    if not len(items):
        return EMPTY
    found, of = distinct(items)
    return best(found, np.bincount(of, weights=scores), at_most=at_most)


def best(items: Hashes, scores: NDArray[Any], *, at_most: int) -> Found:
    """The best `at_most` of distinct items with a score above 0."""
    order = np.lexsort((items, -scores))[:at_most]
    order = order[scores[order] > 0]
    return Found(items[order], scores[order].astype(np.float32))
