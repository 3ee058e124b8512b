"""Trending: what everybody acts on now, by action-weighted counts with a half-life of one day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.view import StateView
from recommender.query import Found, Query

EPOCH_MS = 946_684_800_000  # 2000-01-01: the state keeps log2 of the count as if all had happened then
HALF_LIFE_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Trending:
    """The head of the state's popularity list; costs the same whatever the size of the catalogue.

    score: the decayed count itself at the query's time (about: its logarithm is kept piecewise linear).
    """

    limit: int = 300
    name: str = "trending"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """The same items for every query, best first."""
        items, logs = view.top("top", self.limit)
        ages = [(query.now_ms - EPOCH_MS) / HALF_LIFE_MS for query in queries]
        return [Found(items, np.exp2(np.clip(logs - age, -60, 60)).astype(np.float32)) for age in ages]
