"""Scene -> matrix: float32[n, F], C order, one numpy operation a column or block, never a cell.

200 candidates x 150 features cost about 0.5 ms (tests/benchmarks/); the matrix is what the ranker scores, what is
served for training and what training reads: there is no second way to build it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from features.relative import relative
from features.scene import Floats, Scene


class Feature(NamedTuple):
    """Names of neighbouring columns and what fills them: a scalar, float32[n], float32[names] or float32[n, names]."""

    names: Sequence[str]
    fill: Callable[[Scene], Floats | float]


class Relatives(NamedTuple):
    """List-relative forms of the columns at `bases`: rank of all, z of all, then to_min and to_median of the last
    `ratios` of them.
    """

    bases: Sequence[int]
    ratios: int


def matrix(scene: Scene, features: Sequence[Feature], relatives: Relatives, *, width: int) -> Floats:
    """float32[n, width]: the features of every candidate, then the list-relative forms of the base columns."""
    cells = np.empty((scene.size, width), np.float32)
    start = 0
    for names, fill in features:
        if len(names) == 1:
            column = np.asarray(fill(scene))
            cells[:, start] = column[:, 0] if column.ndim == 2 else column
        else:
            cells[:, start : start + len(names)] = fill(scene)
        start += len(names)
    for block in relative(cells.take(relatives.bases, axis=1), ratios=relatives.ratios):
        cells[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return cells
