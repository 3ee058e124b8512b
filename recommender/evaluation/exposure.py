"""What a recommender shows over all its lists: how much of the catalogue, how well known, how unevenly.

Definitions as collected by Castells, Hurley and Vargas (Novelty and Diversity in Recommender Systems, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes

SMOOTHING = 1.0  # virtual events of every catalogue item: an item without events is news, not infinitely so


def coverage(shown: Sequence[Hashes], *, catalogue: int) -> float:
    """The share of a catalogue of `catalogue` items that stands in at least one list (uint64[<= k] each).

    ValueError where the lists hold more distinct items than the catalogue.

    >>> coverage([np.array([1, 2], np.uint64), np.array([2], np.uint64)], catalogue=4)
    0.5
    """
    return len(_exposures(shown, catalogue)) / max(catalogue, 1)


def exposure_gini(shown: Sequence[Hashes], *, catalogue: int) -> float:
    """The Gini index of how often each item of the catalogue is shown: 0 all equally, 1 one item alone.

    Plain counts, as usual (Fleder and Hosanagar 2009): each place of a list is one exposure. 0 where nothing is shown.

    >>> lists = [np.array([1, 2], np.uint64), np.array([3, 4], np.uint64)]
    >>> exposure_gini(lists, catalogue=4), exposure_gini([np.array([1], np.uint64)], catalogue=4)
    (0.0, 1.0)
    """
    counts = np.sort(_exposures(shown, catalogue))
    if not len(counts) or catalogue < 2:
        return 0.0
    # items never shown come first in the ascending order, and add nothing
    ranks = np.arange(catalogue - len(counts) + 1, catalogue + 1)
    return float(((2 * ranks - catalogue - 1) * counts).sum() / ((catalogue - 1) * counts.sum()))


def novelty_bits(shown: Sequence[Hashes], *, items: Hashes, counts: NDArray[np.int64], catalogue: int) -> float | None:
    """The mean self-information -log2 p(item) of a list's items, in bits, averaged over the lists (Zhou et al. 2010).

    p is the item's share of the training events: `counts` int64[m] of the distinct `items`, all others 0, and one
    virtual event for each of the `catalogue` items. None where nothing is shown.

    >>> known = np.array([7, 8], np.uint64), np.array([5, 1], np.int64)
    >>> novelty_bits([np.array([7], np.uint64), np.array([9], np.uint64)], items=known[0], counts=known[1], catalogue=6)
    2.292481250360578
    """
    lengths = np.array([len(each) for each in shown])
    if not lengths.sum():
        return None
    flat, of = np.unique(np.concatenate(shown), return_inverse=True)
    place = np.minimum(np.searchsorted(flat, items), len(flat) - 1)
    known = flat[place] == items
    events = np.zeros(len(flat))
    events[place[known]] = counts[known]
    chances = (events + SMOOTHING) / (counts.sum() + SMOOTHING * catalogue)
    lists = np.repeat(np.arange(len(shown)), lengths)
    totals = np.bincount(lists, weights=-np.log2(chances)[of], minlength=len(shown))
    return float((totals[lengths > 0] / lengths[lengths > 0]).mean())


def _exposures(shown: Sequence[Hashes], catalogue: int) -> NDArray[np.int64]:
    """How often each item that is shown at all is shown."""
    if not len(shown):
        return np.zeros(0, np.int64)
    _, counts = np.unique(np.concatenate(shown), return_counts=True)
    if len(counts) > catalogue:
        raise ValueError(f"{len(counts)} distinct items are shown of a catalogue of {catalogue}")
    return counts.astype(np.int64)
