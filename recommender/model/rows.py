"""Training rows: labelled lists of feature rows, oldest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from features.ids import event_hash
from features.scene import Floats, Hashes
from recommender.selection import scattered


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Q queries of together N rows; query q is the next `groups[q]` rows.

    matrix float32[N, features]: the bytes that were, or would have been, scored. grades int32[N]: 0 = no label.
    items uint64[N]. groups int64[Q]; ts_ms int64[Q]: event time of the query; users uint64[Q]; query_ids [Q].
    dropped: why queries are missing, with counts. positions int32[N]: the place, from 0, at which each row was shown;
    None where no list was shown.
    """

    matrix: Floats
    grades: NDArray[np.int32]
    items: Hashes
    groups: NDArray[np.int64]
    ts_ms: NDArray[np.int64]
    users: Hashes
    query_ids: tuple[str, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    positions: NDArray[np.int32] | None = None

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
            positions=None if self.positions is None else self.positions[rows],
        )

    def scattered(self) -> TrainingRows:
        """The same lists with their rows in the order of hash(query id, item id).

        LightGBM orders equal scores as they stand, in its gradients and in its NDCG: lists in the order shown would
        teach and pay it the position (measured: early stopping after one tree, whose ties stood as shown).
        """
        order = hashed_order(self.items, self.matrix, self.groups, self.query_ids)
        positions = None if self.positions is None else self.positions[order]
        return replace(
            self,
            matrix=self.matrix[order],
            grades=self.grades[order],
            items=self.items[order],
            positions=positions,
        )


def hashed_order(
    items: Hashes, matrix: Floats, groups: NDArray[np.int64], query_ids: Sequence[str]
) -> NDArray[np.intp]:
    """intp[N]: the rows list by list, within one in the order of hash(query id, item id).

    An item that stands in its list twice (at two prices, say) has its rows in the order of their bytes: how the list
    came shows nowhere.
    """
    salts = np.array([event_hash(query_id) for query_id in query_ids], np.uint64)
    lists = np.repeat(np.arange(len(groups)), groups)
    keys = scattered(items ^ salts[lists])
    order = np.lexsort((keys, lists))
    again = (keys[order[1:]] == keys[order[:-1]]) & (lists[order[1:]] == lists[order[:-1]])
    if not again.any():
        return order
    twice = np.unique(np.concatenate([order[1:][again], order[:-1][again]]))
    whole_rows = matrix[twice].view(np.dtype((np.void, matrix.itemsize * matrix.shape[1]))).ravel()
    content = np.zeros(len(items), np.intp)
    content[twice] = np.unique(whole_rows, return_inverse=True)[1]
    return np.lexsort((content, keys, lists))
