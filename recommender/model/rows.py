"""Training rows: labelled lists of feature rows, oldest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats, Hashes


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Q queries of together N rows; query q is the next `groups[q]` rows.

    matrix float32[N, features]: the bytes that were, or would have been, scored. grades int32[N]: 0 = no label.
    items uint64[N]. groups int64[Q]; ts_ms int64[Q]: event time of the query; users uint64[Q]; query_ids [Q].
    dropped: why queries are missing, with counts.
    """

    matrix: Floats
    grades: NDArray[np.int32]
    items: Hashes
    groups: NDArray[np.int64]
    ts_ms: NDArray[np.int64]
    users: Hashes
    query_ids: tuple[str, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many queries."""
        return len(self.groups)

    def slice(self, first: int, last: int) -> TrainingRows:
        """The queries first..last-1, as views."""
        ends = np.concatenate([[0], np.cumsum(self.groups)])
        rows = np.s_[int(ends[first]) : int(ends[last])]
        queries = np.s_[first:last]
        return TrainingRows(
            self.matrix[rows],
            self.grades[rows],
            self.items[rows],
            self.groups[queries],
            self.ts_ms[queries],
            self.users[queries],
            self.query_ids[queries],
        )
