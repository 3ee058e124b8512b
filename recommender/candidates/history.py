"""History: what the user touched before, for those who come back to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.view import StateView
from recommender.candidates.ragged import summed
from recommender.query import Found, Query

HALF_LIFE_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class History:
    """The user's own items; score: the sum over their actions of weight x 2^(-age / 1 day)."""

    limit: int = 256
    name: str = "history"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:  # noqa: ARG002 (all of it is in the log)
        """From the user's own log alone."""
        return [self._of(query) for query in queries]

    def _of(self, query: Query) -> Found:
        user = query.user
        age_ms = np.maximum(query.now_ms - user.ts_ms, 0)
        # a floor of 2^-60 keeps the least remembered item above "unknown"
        return summed(user.items, user.weights * np.exp2(np.maximum(-age_ms / HALF_LIFE_MS, -60.0)), at_most=self.limit)
