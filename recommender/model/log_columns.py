"""A log as columns: what is needed to know which questions it answers, before any feature is computed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.ids import hash64
from features.scene import Hashes
from features.schema import Impression, Item, RecommendationRequest, UserAction
from recommender.replay import Entry

Ints = NDArray[np.int64]
PROGRESS_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class ActionColumns:
    """n actions in log order. `at` int64: the record's ordinal in the log; ts_ms int64; user, item, event, session,
    impression uint64 (0 = none); `kind` int64: the action's place in `domain.actions`.
    """

    at: Ints
    ts_ms: Ints
    user: Hashes
    item: Hashes
    event: Hashes
    session: Hashes
    impression: Hashes
    kind: Ints

    def __len__(self) -> int:
        return len(self.at)

    def only(self, rows: NDArray[np.bool_] | Ints) -> ActionColumns:
        """The actions at a mask or at indices."""
        return ActionColumns(*(getattr(self, name)[rows] for name in ActionColumns.__slots__))


@dataclass(frozen=True, slots=True)
class ListColumns:
    """m shown lists in log order: `at`, ts_ms, user, impression as above; list j shows the next `sizes[j]` of `items`."""

    at: Ints
    ts_ms: Ints
    user: Hashes
    impression: Hashes
    sizes: Ints
    items: Hashes

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class LogColumns:
    """A whole log: its actions (unknown kinds and requests left out), its lists, how many records, the last ts_ms."""

    actions: ActionColumns
    lists: ListColumns
    records: int
    last_ts_ms: int


def read_columns(
    records: Iterable[Entry], domain: Domain, *, progress: Callable[[int], None] | None = None
) -> LogColumns:
    """One pass over the log, about 110 bytes an action. progress(records so far) is called every 1 000 records."""
    kinds = {action.name: index for index, action in enumerate(domain.actions)}
    actions = [array("q"), array("q"), *(array("Q") for _ in range(5)), array("q")]
    lists = [array("q"), array("q"), array("Q"), array("Q"), array("q"), array("Q")]
    count, last_ts_ms = 0, 0
    for count, (_, record) in enumerate(records, start=1):
        if isinstance(record, UserAction) and record.action in kinds:
            _add(actions, (count - 1, record.ts_ms, *_keys(record), kinds[record.action]))
        elif isinstance(record, Impression):
            user, impression = hash64(record.user_id), hash64(record.impression_id)
            _add(lists[:5], (count - 1, record.ts_ms, user, impression, len(record.item_ids)))
            lists[5].extend(map(hash64, record.item_ids))
        if isinstance(record, UserAction | Impression | Item | RecommendationRequest):
            last_ts_ms = max(last_ts_ms, record.ts_ms)
        if progress is not None and count % PROGRESS_EVERY == 0:
            progress(count)
    return LogColumns(ActionColumns(*map(_column, actions)), ListColumns(*map(_column, lists)), count, last_ts_ms)


def _keys(record: UserAction) -> tuple[int, int, int, int, int]:
    """User, item, event, session and impression as 64-bit numbers, 0 for what is not given."""
    session = 0 if record.session_id is None else hash64(f"{record.user_id}\n{record.session_id}")
    impression = 0 if record.impression_id is None else hash64(record.impression_id)
    return hash64(record.user_id), hash64(record.item_id), hash64(record.event_id), session, impression


def _add(columns: list[array[int]], row: tuple[int, ...]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)


def _column(values: array[int]) -> NDArray[Any]:
    return np.frombuffer(values, np.int64 if values.typecode == "q" else np.uint64)
