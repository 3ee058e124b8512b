"""How far a second model, which scores the same rows without being shown, would answer otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Divergence:
    """One answer seen by the shadow. overlap: share of the shown k that both show. correlation: of the two rankings of
    all candidates. NaN where there is nothing to compare, or the shadow failed: `failure` says how.
    """

    version: str
    overlap: float = math.nan
    correlation: float = math.nan
    failure: str | None = None


def top_overlap(serving: NDArray[np.int64], shadow: NDArray[np.int64], *, k: int) -> float:
    """The share of the first k places that two orders of the same rows have in common; NaN without rows.

    >>> top_overlap(np.array([3, 1, 2, 0]), np.array([1, 0, 3, 2]), k=2)
    0.5
    """
    k = min(k, len(serving))
    return len(np.intersect1d(serving[:k], shadow[:k])) / k if k else math.nan


def rank_correlation(serving: Scores, shadow: Scores) -> float:
    """Spearman's rho: Pearson's correlation of the average ranks (ties share theirs).

    NaN for fewer than two rows, and where one side holds them all for equal.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0, 3.0]), np.array([10.0, 30.0, 20.0, 40.0])).__round__(4)
    0.6325
    """
    if len(serving) < 2:
        return math.nan
    ours, theirs = (average_ranks(side) - (len(side) + 1) / 2 for side in (serving, shadow))
    spread = math.sqrt(float(ours @ ours) * float(theirs @ theirs))
    return min(1.0, max(-1.0, float(ours @ theirs) / spread)) if spread else math.nan


def average_ranks(values: Scores) -> Scores:
    """float64[n]: ranks from 1 for the smallest; equal values share the mean of their ranks.

    >>> average_ranks(np.array([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, of, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: Scores = ((2 * last - sizes + 1) / 2)[of]
    return ranks
