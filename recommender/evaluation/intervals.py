"""How sure a mean over queries is: 95 % bootstrap intervals that resample users.

The queries of one user are not independent, so whole users are drawn, with replacement, and all their queries come along
(bootstrap: Efron 1979; of clusters: Field and Welsh 2007). The figure stays the mean over queries: a ratio of two sums.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes

Doubles = NDArray[np.float64]

RESAMPLES = 2000
_CELLS_MAX = 1 << 20  # draws held at a time: 8 MB each for places and weights


class Estimate(msgspec.Struct, frozen=True):
    """A mean with its 95 % interval; low and high are None where one user says nothing about others.

    >>> Estimate(0.2, 0.1, 0.3).clear_of_zero, Estimate(0.2, -0.1, 0.5).clear_of_zero, Estimate(0.2).clear_of_zero
    (True, False, False)
    """

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Doubles, *, users: Hashes, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of float64[Q] with the percentile interval over `resamples` draws of users (uint64[Q]).

    ValueError without queries, or where a value is no number.

    >>> users = np.array([1, 1, 2, 3], np.uint64)
    >>> mean_interval(np.array([1.0, 1.0, 1.0, 1.0]), users=users)
    Estimate(mean=1.0, low=1.0, high=1.0)
    >>> mean_interval(np.array([0.0, 0.0, 0.0, 1.0]), users=users).mean
    0.25
    """
    return mean_intervals(values[:, None], users=users, seed=seed, resamples=resamples)[0]


def paired(mine: Doubles, theirs: Doubles, *, users: Hashes, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mine minus theirs on the same queries, float64[Q] each: both see the same draws of users.

    >>> users = np.arange(5, dtype=np.uint64)
    >>> paired(np.ones(5), np.ones(5), users=users)
    Estimate(mean=0.0, low=0.0, high=0.0)
    >>> paired(np.arange(5) + 0.5, np.arange(5) + 0.25, users=users)
    Estimate(mean=0.25, low=0.25, high=0.25)
    """
    return mean_interval(mine - theirs, users=users, seed=seed, resamples=resamples)


def mean_intervals(values: Doubles, *, users: Hashes, seed: int = 0, resamples: int = RESAMPLES) -> list[Estimate]:
    """`mean_interval` of each column of float64[Q, m]; all columns see the same draws, which cost what one costs."""
    if not len(values):
        raise ValueError("no query to average over")
    if not np.isfinite(values).all():
        raise ValueError("a value is no number")
    sums, counts = _by_user(values, users)
    means = sums.sum(axis=0) / counts.sum()
    if len(counts) < 2:
        return [Estimate(mean) for mean in means.tolist()]
    low, high = np.quantile(_resampled(sums, counts, seed=seed, resamples=resamples), [0.025, 0.975], axis=0)
    return [Estimate(*row) for row in zip(means.tolist(), low.tolist(), high.tolist(), strict=True)]


def _by_user(values: Doubles, users: Hashes) -> tuple[Doubles, Doubles]:
    """Each user's sums float64[users, m] and queries float64[users]; users in the order of their hash."""
    _, of, counts = np.unique(users, return_inverse=True, return_counts=True)
    sums = [np.bincount(of, weights=column, minlength=len(counts)) for column in values.T]
    return np.stack(sums, axis=1), counts.astype(np.float64)


def _resampled(sums: Doubles, counts: Doubles, *, seed: int, resamples: int) -> Doubles:
    """float64[resamples, m]: the means of as many draws of as many users, with replacement."""
    users, columns = len(counts), np.column_stack([sums, counts])
    generator = np.random.Generator(np.random.PCG64(seed))
    height = max(1, _CELLS_MAX // users)
    means = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, height):
        rows = min(height, resamples - start)
        drawn = generator.integers(users, size=(rows, users), dtype=np.int64)
        drawn += np.arange(0, rows * users, users)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        totals = weights.astype(np.float64) @ columns
        means[start : start + rows] = totals[:, :-1] / totals[:, -1:]
    return means
