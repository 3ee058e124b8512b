"""User x set attribute: how well a candidate's values (genres, tags, a brand) match those of the touched items.

Profile of a user: p[v] = sum of the weights of the touched items that have value v. Values weigh by their inverse
document frequency, idf = ln((items + 1) / (items with v + 1)) + 1 (the smoothed form of scikit-learn), since a shared
rare tag says more than a shared common one. A category is a set of one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats, SetColumn


def inverse_document_frequency(frequencies: NDArray[np.int64], *, documents: int) -> Floats:
    """float32[codes]: the weight of each value, 1 for one that every item has.

    >>> inverse_document_frequency(np.array([9, 4]), documents=9).round(2).tolist()
    [1.0, 1.690000057220459]
    """
    return (np.log((documents + 1) / (frequencies + 1)) + 1).astype(np.float32)


def affinities(items: SetColumn, touched: SetColumn, weights: NDArray[np.float64], idf: Floats) -> Floats:
    """float32[n, 4]: per candidate its affinity, cosine, overlap and overlap with the last touched item.

    weights float64[m] of the touched items, oldest first. Affinity: the share of the user's weight that the
    candidate's values have, averaged over the values. Cosine: of the two IDF-weighted vectors. Overlaps: the IDF share
    of the candidate's values that the user (or the last touched item) has. 0 where nothing is known of either.

    >>> items = SetColumn(np.array([0, 1, 2]), np.array([0, 1]))
    >>> touched = SetColumn(np.array([0, 1]), np.array([0]))
    >>> affinities(items, touched, np.ones(1), np.ones(2, np.float32)).tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    sizes = items.start[1:] - items.start[:-1]
    total = weights.sum()
    if not len(touched.codes) or not len(items.codes) or not total > 0:
        return np.zeros((len(sizes), 4), np.float32)
    spread = np.repeat(weights, touched.start[1:] - touched.start[:-1])
    # np.zeros hands out untouched pages: a vocabulary of 100 000 values costs what the touched ones cost
    profile = np.zeros(len(idf))
    np.add.at(profile, touched.codes, spread)
    recent = np.zeros(len(idf), bool)
    recent[_last_codes(touched)] = True
    norm = np.sqrt((spread * profile[touched.codes] * idf[touched.codes].astype(np.float64) ** 2).sum())

    row = np.repeat(np.arange(len(sizes)), sizes)
    weight, share = idf.take(items.codes).astype(np.float64), profile.take(items.codes)
    squared = weight * weight
    # bincount adds in the order of the candidate's own values: no neighbour changes a last bit
    touch, dot, square, seen, again, whole = (
        np.bincount(row, cells, minlength=len(sizes))
        for cells in (share, share * squared, squared, weight * (share > 0), weight * recent.take(items.codes), weight)
    )
    whole = np.maximum(whole, 1e-9)
    matches = np.empty((len(sizes), 4), np.float32)
    matches[:, 0] = touch / (total * np.maximum(sizes, 1))
    matches[:, 1] = dot / np.maximum(np.sqrt(square) * norm, 1e-9)
    matches[:, 2] = seen / whole
    matches[:, 3] = again / whole
    return matches


def _last_codes(touched: SetColumn) -> NDArray[np.int64]:
    """The values of the newest touched item that has any."""
    filled = np.flatnonzero(touched.start[1:] - touched.start[:-1])[-1]
    return touched.codes[touched.start[filled] : touched.start[filled + 1]]
