"""New: items first seen in the catalogue lately, newest first, so that they get a chance before anybody acted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.view import StateView
from recommender.query import Found, Query

DAY_MS = 86_400_000
AGE_DAYS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class New:
    """The newest items by the time of their first record; score 1 / (1 + age in days), 0 from 30 days on."""

    limit: int = 200
    name: str = "new"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """Items that are not older than 30 days at the query's time."""
        items, first_ts_ms = view.top("new", self.limit)
        return [self._at(query.now_ms, items, first_ts_ms) for query in queries]

    def _at(self, now_ms: int, items: np.ndarray, first_ts_ms: np.ndarray) -> Found:
        days = np.maximum(now_ms - first_ts_ms, 0) / DAY_MS
        young = days < AGE_DAYS_MAX
        return Found(items[young], (1 / (1 + days[young])).astype(np.float32))
