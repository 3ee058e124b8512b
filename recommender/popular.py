"""The cheapest answer: what is popular and new, found and filtered once for a whole run of questions.

Nothing is scored and no item is read but those on the shelf; of the user only what the filters ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes
from features.view import StateView
from recommender.query import Filter, Found, Query
from recommender.selection import best_first, blend, given, merge

GIVEN_SOURCE = "given"


class Pick(NamedTuple):
    """What one answer shows, best first: ids, scores float64[n], sources by name."""

    item_ids: list[str]
    scores: NDArray[np.float64]
    sources: list[str]


@dataclass(frozen=True)
class Shelf:
    """Items for everybody, best first: items uint64[n], scores float64[n], their ids and sources.

    found: all that each of the sources `names` knew, with their shares: it orders the lists that callers give.
    """

    items: Hashes
    scores: NDArray[np.float64]
    item_ids: list[str]
    sources: list[str]
    names: Sequence[str]
    found: Sequence[Found]
    shares: Sequence[float]
    _heads: dict[int, Pick] = field(default_factory=dict)

    @cached_property
    def place(self) -> dict[int, int]:
        """{item: its place}."""
        return {item: place for place, item in enumerate(self.items.tolist())}

    def head(self, k: int) -> Pick:
        """The best k: one and the same for all who may see them."""
        if k not in self._heads:
            self._heads[k] = Pick(self.item_ids[:k], self.scores[:k], self.sources[:k])
        return self._heads[k]

    def at(self, places: NDArray[np.int64]) -> Pick:
        """The items at these places."""
        chosen = places.tolist()
        return Pick([self.item_ids[at] for at in chosen], self.scores[places], [self.sources[at] for at in chosen])


def stock(
    query: Query,
    found: Sequence[Found],
    view: StateView,
    *,
    names: Sequence[str],
    shares: Sequence[float],
    filters: Sequence[Filter],
    at_most: int,
) -> Shelf:
    """The shelf of a run of questions, `found` for the newest of them (`query`). filters: those that hold for all alike."""
    pool = merge(names, found, shares, at_most=at_most)
    for rule in filters:
        pool = pool.only(rule.keep(query, pool.items, view))
    scores = blend(pool, shares)
    order = best_first(scores, pool.items, query_id="")
    told = view.ids(pool.items[order])
    known = np.array([item_id is not None for item_id in told], np.bool_)
    order = order[known]
    return Shelf(
        pool.items[order],
        scores[order],
        [item_id for item_id in told if item_id is not None],
        [names[index] for index in pool.source[order].tolist()],
        names,
        found,
        shares,
    )


def pick(query: Query, shelf: Shelf, view: StateView, *, filters: Sequence[Filter]) -> Pick:
    """One answer from the shelf. filters: those that ask for the user. A given list comes back whole, popular first."""
    if query.given is not None:
        return _ordered(query, query.given, shelf, view)
    current = [shelf.place.get(item, query.k) for item in query.current.tolist()]
    if not filters and all(place >= query.k for place in current):
        return shelf.head(query.k)
    keep = np.ones(len(shelf.items), np.bool_)
    for rule in filters:
        keep &= rule.keep(query, shelf.items, view)
    keep[[place for place in current if place < len(keep)]] = False
    return shelf.at(np.flatnonzero(keep)[: query.k])


def _ordered(query: Query, item_ids: Sequence[str], shelf: Shelf, view: StateView) -> Pick:
    listed = given(shelf.names, shelf.found, view.learn(item_ids))
    scores = blend(listed, shelf.shares)
    order = best_first(scores, listed.items, query_id=query.salt or query.query_id)[: query.k]
    return Pick([item_ids[at] for at in order.tolist()], scores[order], [GIVEN_SOURCE] * len(order))
