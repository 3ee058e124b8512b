"""Affinity: popular items that share the user's favourite attribute values (a brand, a genre, an author)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

    The user's `values` strongest values per attribute vote for the items of their lists: idf x share of the user's
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
            codes, of = np.unique(column.codes, return_inverse=True)
            votes = np.bincount(of, weights=np.repeat(weights, np.diff(column.start)), minlength=len(codes))
            profile = votes * view.idf(attribute.name)[codes]
            texts = view.values(attribute.name)
            for place in np.argsort(-profile, kind="stable")[: self.values]:
                if profile[place] > 0:
                    found, _ = view.top(f"a:{attribute.name}:{texts[codes[place]]}", self.depth)
                    items.append(found)
                    scores.append(profile[place] / profile.sum() / (1 + RANK_FADE * np.arange(len(found))))
        return summed(np.concatenate(items), np.concatenate(scores), at_most=self.limit) if items else EMPTY
