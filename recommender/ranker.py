"""What scores a matrix of candidates. Two things implement it: a LightGBM booster, and whatever a test needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats

Scores = NDArray[np.float64]

HURRIED_KEEP = 30  # rows that a hurried ranker scores with all trees, or as many as are shown
BELOW = 2.0**20  # raw scores are some units wide; at 2^20 a double still tells 2e-10 apart


class Ranker(Protocol):
    """Scores rows: higher is better, only the order within one list means something."""

    @property
    def version(self) -> str:
        """Which model this is, as `Recommendation.model.version` shows it."""
        ...

    @property
    def features_hash(self) -> str:
        """The fingerprint of the catalogue that the rows must come from."""
        ...

    @property
    def cascade_trees(self) -> int:
        """How many trees score every row before the rest of them score the best; 0: all trees score all rows."""
        ...

    def score(self, matrix: Floats, *, shown: int = 0) -> Scores:
        """float64[n]: the raw scores of the rows of one list, float32[n, features].

        The best `shown` rows get their full score, whatever is saved on the others.
        """
        ...

    def contributions(self, matrix: Floats) -> Scores:
        """float64[n, features + 1]: what each feature adds to a row's full score; the last column is the model's base."""
        ...

    def hurried(self, share: float) -> Ranker:
        """The same model with a harder cascade: at most `share` (0 to 1) of its trees score every row, and the rest of
        them little more than what is shown.
        """
        ...


@dataclass(frozen=True, slots=True)
class Cascade:
    """A prefix cascade: the first `trees` score every row, the rest only the best `keep` of them.

    50 trees on 500 rows, the rest on the best 100: 3.7x less CPU, 97 % of the top 20 the same.
    """

    trees: int
    keep: int


@dataclass(frozen=True, slots=True)
class LightGBMRanker:
    """A loaded booster; `recommender.model.artefact.load` makes one after all its checks.

    A score depends on the row, the model and `cascade.trees` alone, never on the list around it, so it can be
    recomputed to the bit from a logged row (`rescore`): prefix + rest of the trees for the kept, prefix - 2^20 for the
    others, which puts them below.

    One thread a call: LightGBM's own threads busy-wait and burn 2-2.8x the CPU, workers scale by processes.
    """

    booster: Any
    version: str
    features_hash: str
    trees: int
    cascade: Cascade | None = None

    @property
    def cascade_trees(self) -> int:
        """The trees of the prefix; 0 where there is no cascade, or no tree behind the prefix."""
        return self.cascade.trees if self.cascade is not None and self.cascade.trees < self.trees else 0

    def score(self, matrix: Floats, *, shown: int = 0) -> Scores:
        """float64[n]: raw scores of float32[n, features] rows, in C order. A wrong width raises, never passes.

        With a cascade the best max(keep, `shown`) rows by the prefix are kept, and all that equal the last of them:
        the order in which rows came decides nothing.
        """
        if not len(matrix):
            return np.empty(0, np.float64)
        if self.cascade is None or not self.cascade_trees:
            return self._predict(matrix, 0, self.trees)
        prefix = self._predict(matrix, 0, self.cascade_trees)
        return self._finish(matrix, prefix, best(prefix, max(self.cascade.keep, shown)))

    def rescore(self, matrix: Floats, scores: Scores) -> Scores:
        """float64[n]: the scores of rows whose scores were logged; equal to them to the bit, or something is wrong.

        The logged scores say only which rows a cascade had kept.
        """
        if not len(matrix) or not self.cascade_trees:
            return self.score(matrix)
        return self._finish(matrix, self._predict(matrix, 0, self.cascade_trees), scores > -BELOW / 2)

    def contributions(self, matrix: Floats) -> Scores:
        """float64[n, features + 1]: TreeSHAP values (Lundberg et al. 2018), the model's base last; they add up to the
        full score up to the order of summation. Not thread-safe (LightGBM issue 5482): from one thread only.
        """
        if not len(matrix):
            return np.empty((0, matrix.shape[1] + 1), np.float64)
        parts = self.booster.predict(
            matrix, start_iteration=0, num_iteration=self.trees, pred_contrib=True, num_threads=1
        )
        return np.asarray(parts, np.float64)

    def hurried(self, share: float) -> LightGBMRanker:
        """The cascade that is configured, at most `share` of all trees wide and HURRIED_KEEP deep."""
        trees, keep = max(1, int(self.trees * share)), HURRIED_KEEP
        if self.cascade is not None and self.cascade_trees:
            trees, keep = min(trees, self.cascade_trees), min(keep, self.cascade.keep)
        return replace(self, cascade=Cascade(trees, keep))

    def _finish(self, matrix: Floats, prefix: Scores, kept: NDArray[np.bool_]) -> Scores:
        """The rest of the trees for the kept rows, always added to the prefix; the others go below, in its order."""
        scores = np.where(kept, prefix, prefix - BELOW)
        if kept.any():
            first = self.cascade_trees
            scores[kept] += self._predict(np.ascontiguousarray(matrix[kept]), first, self.trees - first)
        return scores

    def _predict(self, matrix: Floats, first: int, count: int) -> Scores:
        scores = self.booster.predict(matrix, start_iteration=first, num_iteration=count, raw_score=True, num_threads=1)
        return np.asarray(scores, np.float64)


def best(scores: Scores, count: int) -> NDArray[np.bool_]:
    """bool[n]: the greatest `count`, and all that equal the least of them.

    >>> best(np.array([3.0, 1.0, 2.0, 2.0]), 2).tolist()
    [True, False, True, True]
    """
    if count >= len(scores):
        return np.ones(len(scores), np.bool_)
    kept: NDArray[np.bool_] = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
    return kept
