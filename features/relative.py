"""List-relative forms: how a candidate stands among the candidates it competes with.

Everything here is taken from the sorted column, so no figure depends, not even in its last bit, on the order in
which the candidates came: a list in display order must not tell the ranker its positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats


class Relative(NamedTuple):
    """`rank`, `z` float32[n, r]; `to_min`, `to_median` float32[n, ratios], of the last columns. `rank`: average rank
    from the smallest = 1, ties share. `z`: standard score (0 where all are equal). The ratios are NaN where the divisor
    is not positive. NaN values stay NaN and count for nobody.
    """

    rank: Floats
    z: Floats
    to_min: Floats
    to_median: Floats


def relative(values: Floats, *, ratios: int) -> Relative:
    """The list-relative forms of float32[n, r], column by column; the ratios of the last `ratios` columns only.

    >>> forms = relative(np.float32([[3], [1], [1], [np.nan]]), ratios=1)
    >>> forms.rank.ravel().tolist(), forms.to_min.ravel().tolist()
    ([3.0, 1.5, 1.5, nan], [3.0, 1.0, 1.0, nan])
    """
    rows = np.ascontiguousarray(values.T)
    columns, n = rows.shape
    if not rows.size:
        return Relative(values, values, values[:, columns - ratios :], values[:, columns - ratios :])
    # flat indices: take_along_axis and put_along_axis cost four times as much
    order = (rows.argsort(axis=1) + np.arange(0, columns * n, n)[:, None]).ravel()
    ordered = rows.ravel().take(order).reshape(columns, n)
    absent = np.isnan(ordered)
    size = n - absent.sum(axis=1, keepdims=True)
    rank = np.empty(columns * n, np.float32)
    rank[order] = np.where(absent, np.float32(np.nan), _average_ranks(ordered)).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        centre, spread = _moments(ordered, absent, size)
        z = np.where(np.isnan(rows) | (spread > 0), (rows - centre) / spread, np.float32(0))
        last, sorted_last = rows[columns - ratios :], ordered[columns - ratios :]
        to_min = last / _positive(sorted_last[:, :1])
        to_median = last / _positive(_median(sorted_last, size[columns - ratios :]))
    forms = (rank.reshape(columns, n), z, to_min, to_median)
    return Relative(*(form.T for form in forms))


def _average_ranks(ordered: Floats) -> NDArray[np.float64]:
    """Average ranks of ascending rows: the middle of the first and last rank of each run of equals."""
    columns, n = ordered.shape
    begins = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], columns * n)
    middles = (starts + ends + 1) / 2 - starts // n * n
    return np.repeat(middles, ends - starts).reshape(columns, n)


def _moments(ordered: Floats, absent: NDArray[np.bool_], size: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """float32[r, 1] each: mean and standard deviation of what is present; a spread within rounding is 0."""
    filled = ordered.astype(np.float64)
    filled[absent] = 0.0
    mean = filled.sum(axis=1, keepdims=True) / size
    off = filled - mean
    off[absent] = 0.0
    spread = np.sqrt((off * off).sum(axis=1, keepdims=True) / size)
    return mean.astype(np.float32), np.where(spread > 1e-6 * np.abs(mean), spread, 0).astype(np.float32)


def _median(ordered: Floats, size: NDArray[np.intp]) -> Floats:
    """float32[r, 1]: the middle of what is present, which comes before what is absent."""
    rows, n = ordered.shape
    begin = np.arange(0, rows * n, n)[:, None]
    low = ordered.ravel().take(begin + np.maximum(size - 1, 0) // 2)
    high = ordered.ravel().take(begin + np.minimum(size // 2, n - 1))
    middle: Floats = (low + np.where(size % 2 == 0, high, low)) / np.float32(2)
    return middle


def _positive(divisor: Floats) -> Floats:
    return np.where(divisor > 0, divisor, np.float32(np.nan))
