"""Co-visited: what others went on to after the items of this session (item-to-item association rules, decayed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.scene import Hashes
from features.view import StateView
from recommender.candidates.ragged import summed
from recommender.candidates.session import session_items
from recommender.query import EMPTY, Found, Query


@dataclass(frozen=True, slots=True)
class CoVisited:
    """score(B) = sum over the session's last `depth` items A, newest first at place p = 1, 2 ..., of
    share of A's list that is B / p. A list's entries are weighted by action, distance (1, 1/2, 1/3) and a half-life
    of 7 days; taking shares keeps a popular A from drowning the others.
    """

    depth: int = 5
    limit: int = 300
    name: str = "co_visited"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """One read of all lists of the micro-batch."""
        sessions = [session_items(query.user, at_most=self.depth) for query in queries]
        asked = np.unique(np.concatenate(sessions)) if sessions else np.empty(0, np.uint64)
        lists = dict(zip(asked.tolist(), view.co_visited(asked), strict=True)) if len(asked) else {}
        return [self._scored(session, lists) for session in sessions]

    def _scored(self, session: Hashes, lists: dict[int, tuple[Hashes, np.ndarray]]) -> Found:
        items, scores = [], []
        for place, item in enumerate(session.tolist(), start=1):
            others, weights = lists[item]
            if len(others):
                items.append(others)
                scores.append(weights / (weights.sum() * place))
        return summed(np.concatenate(items), np.concatenate(scores), at_most=self.limit) if items else EMPTY
