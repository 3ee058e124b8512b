"""Affinity: popular items that share the user's favourite attribute values (a brand, a genre, an author)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.decay import half_life_weights
from features.domain import Attribute
from features.view import StateView
from recommender.candidates.ragged import summed
from recommender.query import EMPTY, Found, Query

HALF_LIFE_MS = 7 * 86_400_000
RANK_FADE = 0.05  # a list's 20th item counts half as much as its first


@dataclass(frozen=True, slots=True)
class Affinity:
    """From the state's short lists of popular items per value, for attributes with `candidates = true`.

    The user's `values` strongest values (of equal ones those touched first) per attribute vote for the items of their lists: idf x share of the user's
    taste (action weight, half-life 7 days) x 1 / (1 + .05 rank in the list).
    """

    values: int = 6
    depth: int = 40
    limit: int = 300
    name: str = "affinity"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """Lists that several queries ask for are read once a micro-batch."""
        attributes = [attribute for attribute in view.domain.attributes if attribute.candidates]
        return [self._of(query, attributes, view) for query in queries]

    def _of(self, query: Query, attributes: Sequence[Attribute], view: StateView) -> Found:
        user = query.user
        if not attributes or not len(user.items):
            return EMPTY
        records = view.records(user.items)
        weights = user.weights * half_life_weights(query.now_ms - user.ts_ms, half_life_ms=HALF_LIFE_MS)
        items, scores = [], []
        for attribute in attributes:
            column = records.sets[attribute.name]
            codes, of = _first_met(column.codes)
            votes = np.bincount(of, weights=np.repeat(weights, np.diff(column.start)), minlength=len(codes))
            profile = votes * view.idf(attribute.name)[codes]
            texts = view.values(attribute.name)
            for place in np.argsort(-profile, kind="stable")[: self.values]:
                if profile[place] > 0:
                    found, _ = view.top(f"a:{attribute.name}:{texts[codes[place]]}", self.depth)
                    items.append(found)
                    scores.append(profile[place] / profile.sum() / (1 + RANK_FADE * np.arange(len(found))))
        return summed(np.concatenate(items), np.concatenate(scores), at_most=self.limit) if items else EMPTY


def _first_met(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct codes in the order in which they come, and the place of each code among them.

    A code's number is a matter of the process, its place in the user's log is not: sums over values and the order of
    equal ones must not depend on the number.

    >>> [each.tolist() for each in _first_met(np.array([7, 3, 7]))]
    [[7, 3], [0, 1, 0]]
    """
    found, first, of = np.unique(codes, return_index=True, return_inverse=True)
    order = first.argsort()
    place = np.empty(len(found), np.intp)
    place[order] = np.arange(len(found))
    return found[order], place[of]
