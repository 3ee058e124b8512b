"""Judges rankings query by query: each system's scores become figures, fair to ties, and a list that would be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes
from recommender.evaluation.metrics import Standings, hit_rate, joined, mrr, ndcg, recall, standings
from recommender.evaluation.report import Judged
from recommender.selection import best_first

PARTS_MAX = 4_096  # one query's standings are 700 bytes of five little arrays; joined, they are 40

Doubles = NDArray[np.float64]
Figure = Callable[[Standings], Doubles]


def ndcg_at(k: int) -> Figure:
    """NDCG@k; relevant items that the system does not name count in the ideal."""
    return lambda lists: ndcg(lists, k=k)


def mrr_at(k: int | None) -> Figure:
    """The reciprocal rank of the first relevant item, 0 beyond rank k."""
    return lambda lists: mrr(lists, k=k)


def hit_rate_at(k: int) -> Figure:
    """Whether a relevant item stands among the first k."""
    return lambda lists: hit_rate(lists, k=k)


def recall_at(k: int | None) -> Figure:
    """The share of all relevant items among the first k."""
    return lambda lists: recall(lists, k=k)


def named(lists: Standings) -> Doubles:
    """The share of the relevant items that the system names at all: what candidates lose is lost for every ranker."""
    return recall(lists)


@dataclass(slots=True)
class Jury:
    """Collects every system's figures. `figures` {name: figure}; shown lists are `k` long."""

    figures: Mapping[str, Figure]
    k: int
    _standings: dict[str, list[Standings]] = field(default_factory=dict)
    _shown: dict[str, list[Hashes]] = field(default_factory=dict)

    def judge(self, system: str, salt: str, items: Hashes, scores: Doubles, relevant: Hashes) -> None:
        """One system's answer to the query at hand: its items with their scores, and the distinct relevant items."""
        lists = standings(scores, np.isin(items, relevant), [len(items)], relevant=[len(relevant)])
        parts = self._standings.setdefault(system, [])
        parts.append(lists)
        if len(parts) == PARTS_MAX:
            parts[:] = [joined(parts)]
        order = best_first(scores, items, query_id=salt)
        self._shown.setdefault(system, []).append(items[order[: self.k]])

    def verdicts(self) -> list[Judged]:
        """All systems in the order in which they were first heard."""
        return [
            Judged(system, {name: figure(lists) for name, figure in self.figures.items()}, self._shown[system])
            for system, lists in ((system, joined(parts)) for system, parts in self._standings.items())
        ]
