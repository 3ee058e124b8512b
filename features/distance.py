"""How far a number of the candidates lies from that of the items the user touched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats, Hashes


def distances(values: Floats, touched: Floats, weights: NDArray[np.float64]) -> Floats:
    """float32[n, 2]: each value less the weighted mean of the touched ones, and less the last touched one.

    values float32[n], touched float32[m] oldest first, weights float64[m]; NaN where a side is unknown.

    >>> distances(np.float32([5]), np.float32([1, np.nan, 3]), np.ones(3)).tolist()
    [[3.0, 2.0]]
    """
    known = ~np.isnan(touched) & (weights > 0)
    if not known.any():
        return np.full((len(values), 2), np.nan, np.float32)
    heard, share = touched[known].astype(np.float64), weights[known]
    centre = np.array([(heard * share).sum() / share.sum(), heard[-1]], np.float32)
    return values[:, None] - centre


def within_list(values: Floats, items: Hashes, touched: Hashes) -> Floats:
    """float32[m]: the list's own values of the touched items, NaN for those that are not in the list.

    A number that comes with a list (a price) is known only for the items of this list. Of an item that stands in it
    twice the smaller value is taken, whatever the order.

    >>> within_list(np.float32([9, 7]), np.uint64([3, 5]), np.uint64([5, 4])).tolist()
    [7.0, nan]
    """
    if not len(items):
        return np.full(len(touched), np.nan, np.float32)
    order = np.lexsort((values, items))
    ordered = items[order]
    at = np.minimum(np.searchsorted(ordered, touched), len(items) - 1)
    return np.where(ordered[at] == touched, values[order][at], np.float32(np.nan))
