"""The simple rules that a ranker has to beat.

For a given list a rule is a function (query, items, view) -> float64[n], higher is better. For a next item or a basket it
is a function of a `Moment` that names items of its own. None knows anything that the pipeline would not know then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.scene import Hashes
from features.view import StateView
from recommender.candidates.co_visited import CoVisited
from recommender.candidates.ragged import best, summed
from recommender.model.log_columns import ActionColumns
from recommender.query import EMPTY, Found, Query

Doubles = NDArray[np.float64]
ListRule = Callable[[Query, Hashes, StateView], Doubles]

CTR_STRENGTH = 10.0  # impressions that the world's rate weighs in the smoothed click-through rate
HALF_LIFE_MS = 7 * 86_400_000  # of decayed popularity
NAMED_MAX = 300


def list_rules(domain: Domain) -> Mapping[str, ListRule]:
    """{name: rule} for given lists. A random order is all ties: its figures are the expected ones."""
    columns = np.array(
        [index for index, action in enumerate(domain.counted, start=1) if action.grade > 0 and not action.negative], int
    )
    return {
        "random": lambda _, items, __: np.zeros(len(items)),
        "as shown": lambda _, items, __: -np.arange(len(items), dtype=np.float64),
        "popularity": lambda query, items, view: _events(query, items, view, columns)[0],
        "smoothed CTR": lambda query, items, view: smoothed_ctr(query, items, view, columns),
        "touched last first": lambda query, items, _: last_touch(query, items),
        "touched last first, then as shown": lambda query, items, _: then_as_shown(last_touch(query, items)),
    }


def smoothed_ctr(query: Query, items: Hashes, view: StateView, columns: NDArray[np.intp]) -> Doubles:
    """float64[n]: label actions per impression over all time, shrunk to the world's by 10 virtual impressions."""
    events, shown = _events(query, items, view, columns)
    world = view.world(now_ms=query.now_ms).lifetime[0].astype(np.float64)
    prior = float(world[columns].sum()) / max(float(world[0]), 1.0)
    rates: Doubles = (events + CTR_STRENGTH * prior) / (shown + CTR_STRENGTH)
    return rates


def last_touch(query: Query, items: Hashes) -> Doubles:
    """float64[n]: the time of the user's newest action on the item, -inf where there is none."""
    user = query.user
    newest = dict(zip(user.items.tolist(), user.ts_ms.tolist(), strict=True))  # oldest first: the newest stays
    return np.array([newest.get(item, -np.inf) for item in items.tolist()], np.float64)


def then_as_shown(scores: Doubles) -> Doubles:
    """float64[n]: the same order with ties broken by the place in the list.

    >>> then_as_shown(np.array([1.0, 5.0, 1.0])).tolist()
    [-1.0, 0.0, -2.0]
    """
    order = np.lexsort((np.arange(len(scores)), -scores))
    ranks = np.empty(len(scores))
    ranks[order] = -np.arange(len(scores), dtype=np.float64)
    return ranks + 0.0


def _events(query: Query, items: Hashes, view: StateView, columns: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """Label actions and impressions of each item over all time."""
    lifetime = view.items(items, now_ms=query.now_ms).lifetime.astype(np.float64)
    return lifetime[:, columns].sum(axis=1), lifetime[:, 0]


@dataclass(frozen=True, slots=True)
class Moment:
    """What a rule may look at. own: the user's items so far, oldest first. seen: how many of the log's positive actions
    lie before the moment.
    """

    query: Query
    own: Hashes
    seen: int


class Popularity:
    """Counts of positive actions by item as they grow along the log, plain and with a half-life of 7 days.

    Moments come in the order of the log: the counts only ever grow.
    """

    def __init__(self, positive: ActionColumns) -> None:
        self.items, self._of = np.unique(positive.item, return_inverse=True)
        # weights relative to the log's end: 2^-1000 at 19 years before it is still a double
        end_ms = int(positive.ts_ms.max(initial=0))
        self._weights = np.exp2(np.maximum((positive.ts_ms - end_ms) / HALF_LIFE_MS, -1000.0))
        self._counts, self._decayed = np.zeros(len(self.items)), np.zeros(len(self.items))
        self._seen = 0

    def plain(self, moment: Moment) -> Found:
        """By the count of all time."""
        self._advance(moment.seen)
        return best(self.items, self._counts, at_most=NAMED_MAX)

    def decayed(self, moment: Moment) -> Found:
        """By the count with a half-life of 7 days."""
        self._advance(moment.seen)
        top = self._decayed.max(initial=0.0)
        return best(self.items, self._decayed / top if top > 0 else self._decayed, at_most=NAMED_MAX)

    def _advance(self, seen: int) -> None:
        new = slice(self._seen, seen)
        np.add.at(self._counts, self._of[new], 1.0)
        np.add.at(self._decayed, self._of[new], self._weights[new])
        self._seen = max(self._seen, seen)


def newest_first(moment: Moment) -> Found:
    """The user's own items, the newest first."""
    items = np.array(list(dict.fromkeys(moment.own[::-1].tolist())), np.uint64)[:NAMED_MAX]
    return Found(items, (1 / np.arange(1, len(items) + 1)).astype(np.float32))


def most_often(moment: Moment) -> Found:
    """The user's own items by how often, among equals the newest first."""
    if not len(moment.own):
        return EMPTY
    recency = np.arange(1, len(moment.own) + 1) / (len(moment.own) + 1)
    items, of = np.unique(moment.own, return_inverse=True)
    newest = np.zeros(len(items))
    np.maximum.at(newest, of, recency)
    return best(items, np.bincount(of) + newest, at_most=NAMED_MAX)


def followed(moment: Moment, view: StateView, popular: Found) -> Found:
    """What others went on to after the last item alone, then decayed popularity."""
    after = CoVisited(depth=1).find([moment.query], view)[0]
    return summed(
        np.concatenate([after.items, popular.items]),
        # every item that followed stands above every merely popular one
        np.concatenate([1.0 + after.scores.astype(np.float64), popular.scores.astype(np.float64) * 1e-3]),
        at_most=2 * NAMED_MAX,
    )
