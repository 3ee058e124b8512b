"""Which candidates are scored and which are shown: quotas before the ranker, the best k after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.distinct import distinct
from features.ids import event_hash
from features.scene import Floats, Hashes
from recommender.query import Candidates, Found

GIVEN = -1


def merge(names: Sequence[str], found: Sequence[Found], shares: Sequence[float], *, at_most: int) -> Candidates:
    """One list of at most `at_most` distinct candidates out of one query's sources, in merge order.

    Every source first proposes up to its share (`shares`, relative) of items that no source before it proposed; room
    that is left is shared out again among those that have more. The first proposer is the item's source.

    >>> def source(*items): return Found(np.array(items, np.uint64), np.ones(len(items), np.float32))
    >>> merged = merge(["a", "b"], [source(1, 2, 3), source(2, 4)], [0.5, 0.5], at_most=4)
    >>> sorted(zip(merged.items.tolist(), merged.source.tolist()))
    [(1, 0), (2, 0), (3, 0), (4, 1)]
    """
    items, at, scores = _table(found)
    source = np.full(len(items), GIVEN, np.int16)
    left, room = at, at_most
    while room > 0:
        open_shares = [share if len(places) else 0.0 for share, places in zip(shares, left, strict=True)]
        if not sum(open_shares):
            break
        quota = np.ceil(np.array(open_shares) / sum(open_shares) * room).astype(np.int64)
        for index, places in enumerate(left):
            if not len(places):
                continue
            taken = places[source.take(places) == GIVEN][: min(int(quota[index]), room)]
            source[taken] = index
            room -= len(taken)
        left = [places[source.take(places) == GIVEN] for places in left] if room > 0 else left
    chosen = np.flatnonzero(source != GIVEN)
    return Candidates(items[chosen], source[chosen], dict(zip(names, scores[:, chosen], strict=True)))


def given(names: Sequence[str], found: Sequence[Found], items: Hashes) -> Candidates:
    """The caller's own list as candidates, as it came, duplicates too, with every source's score of each item."""
    known, _, scores = _table(found)
    if len(known):
        place = np.minimum(np.searchsorted(known, items), len(known) - 1)
        columns = np.where(known[place] == items, scores[:, place], np.float32(0))
    else:
        columns = np.zeros((len(names), len(items)), np.float32)
    source = np.full(len(items), GIVEN, np.int16)
    return Candidates(items, source, dict(zip(names, columns, strict=True)))


def blend(candidates: Candidates, weights: Sequence[float]) -> NDArray[np.float64]:
    """float64[n]: the order of the sources themselves, where no ranker serves: each source's scores relative to its
    best, weighted by its share, added up.
    """
    total = np.zeros(len(candidates.items))
    for weight, scores in zip(weights, candidates.scores.values(), strict=True):
        best = float(scores.max(initial=0.0))
        if best > 0:
            total += weight * scores / best
    return total


def best_first(scores: NDArray[Any], items: Hashes, *, query_id: str) -> NDArray[np.int64]:
    """int64[n]: the places of the rows, best first; equal scores in the order of hash(query id, item id).

    The order in which candidates came must not show in the answer: it carries the position, or the source.
    """
    salt = np.uint64(event_hash(query_id))
    return np.lexsort((scattered(items ^ salt), -np.asarray(scores, np.float64)))


def sampled(items: Hashes, *, rate: float, query_id: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which items a sample of `rate` (0 to 1) takes: their places int64[m], and their draws float64[m], ascending.

    An item's draw is hash(query id, item id) in [0, 1); it is taken where that lies below `rate`. So a redo takes the
    same ones, and the first few are again a fair sample, whose rate is the draw of the first that is left out.

    >>> places, draws = sampled(np.arange(5, dtype=np.uint64), rate=0.5, query_id="q")
    >>> places.tolist(), draws.round(2).tolist()
    ([1, 0], [0.29, 0.45])
    """
    salt = np.uint64(event_hash(f"sample of {query_id}"))  # not the salt of ties: it would take whom ties favour
    draws = (scattered(items ^ salt) >> np.uint64(11)) / 2.0**53
    order = np.argsort(draws, kind="stable")
    places = order[: np.searchsorted(draws[order], rate)]
    return places, draws[places]


def scattered(keys: Hashes) -> Hashes:
    """uint64[n]: the finaliser of SplitMix64 (Steele, Lea and Flood 2014): an order that says nothing.

    >>> hex(scattered(np.array([1], np.uint64))[0])
    '0x5692161d100b05e5'
    """
    mixed = keys
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _table(found: Sequence[Found]) -> tuple[Hashes, list[NDArray[np.int64]], Floats]:
    """All distinct items, ascending; each source's places in them, best first; scores float32[sources, items]."""
    items, of = distinct(np.concatenate([each.items for each in found]))
    places = []
    scores = np.zeros((len(found), len(items)), np.float32)
    for row, each in zip(scores, found, strict=True):
        places.append(of[: len(each.items)])
        of = of[len(each.items) :]
        row[places[-1]] = each.scores
    return items, places, scores
