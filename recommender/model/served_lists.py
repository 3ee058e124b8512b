"""What the logs say of served lists: which were served, what of them was shown, and what was done. Ids and times only.

`served_features` is read for its lists (`newest_served`), impressions for what was really shown (`shown`), actions for
labels (`acted`); each keeps a bounded number, the newest by the broker's clock, whatever order the log is read in.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.facts import Forget
from features.ids import hash64
from features.scene import Hashes
from features.schema import Impression, UserAction
from recommender.model.log_columns import ActionColumns, Ints, ListColumns
from recommender.served import BACKLOG_MS, Unpacked, unpack

PIECE = 100_000

UNREADABLE = "served records that cannot be read"
OTHER_FEATURES = "served lists of other features"
BACKLOG = "served lists of a backlog, or without a source"
OLDER = "served lists older than the newest that fit"

_ACTIONS = np.dtype(
    [
        ("at", np.int64),
        ("ts_ms", np.int64),
        ("user", np.uint64),
        ("item", np.uint64),
        ("event", np.uint64),
        ("session", np.uint64),
        ("impression", np.uint64),
        ("kind", np.int64),
    ]
)  # one row an action, the fields of `ActionColumns`: 64 bytes


class LogEntry(NamedTuple):
    """One record of a log: where it lies, when the broker took it (epoch ms), its value."""

    partition: int
    offset: int
    logged_ms: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class ServedLists:
    """m served lists in the order in which the broker took them, without their rows.

    lists: `at` is when the broker took the record, `impression` the hash of its rec_id, `items` what was shown, best
    first. partition, offset int64[m]: where each record lies.
    """

    lists: ListColumns
    partition: Ints
    offset: Ints
    dropped: Mapping[str, int]


class Shown(NamedTuple):
    """What impressions show of served lists: n items uint64[n] of `record` uint64[n] (hash of the rec_id) at `position`
    int64[n]; for impression_ids (their hashes) the record that they show; for records when they were first shown.
    sent: whether the front end says what it shows, by a rec_id on any impression.
    """

    record: Hashes
    item: Hashes
    position: Ints
    record_of: Mapping[int, int]
    first_ms: Mapping[int, int]
    sent: bool


class Acted(NamedTuple):
    """The label actions; the newest event time of all actions; when users (their hashes) were last forgotten."""

    actions: ActionColumns
    newest_ts_ms: int
    forgotten: Mapping[int, int]


class _Kept(NamedTuple):
    logged_ms: int
    partition: int
    offset: int
    ts_ms: int
    user: int
    record: int
    items: Hashes


def newest_served(entries: Iterable[LogEntry], *, features_hash: str, rows_max: int, after_ms: int = 0) -> ServedLists:
    """The newest lists of event time above `after_ms` of together at most `rows_max` shown rows; whatever the order."""
    dropped: Counter[str] = Counter()
    newest: list[_Kept] = []
    rows = 0
    for entry in entries:
        try:
            unpacked = unpack(entry.value or b"")
        except ValueError:
            dropped[UNREADABLE] += 1
            continue
        if why := _unfit(unpacked, features_hash):
            dropped[why] += 1
        elif unpacked.served.ts_ms > after_ms:
            heapq.heappush(newest, _kept(entry, unpacked))
            rows += unpacked.served.shown
        while rows > rows_max:
            rows -= len(heapq.heappop(newest).items)
            dropped[OLDER] += 1
    return _columns(sorted(newest), dropped)


def shown(served: ServedLists, impressions: Iterable[Impression]) -> Shown:
    """What the impressions with a rec_id of ours say; the others show lists that we did not make."""
    ours = frozenset(served.lists.impression.tolist())
    record_of: dict[int, int] = {}
    first_ms: dict[int, int] = {}
    records, items, positions = [], [], []
    sent = False
    for impression in impressions:
        record = 0 if impression.rec_id is None else hash64(impression.rec_id)
        sent |= record != 0
        name = hash64(impression.impression_id)
        if record not in ours or name in record_of:
            continue
        record_of[name] = record
        first_ms[record] = min(impression.ts_ms, first_ms.get(record, impression.ts_ms))
        records.append(np.full(len(impression.item_ids), record, np.uint64))
        items.append(np.array([hash64(item) for item in impression.item_ids], np.uint64))
        positions.append(np.arange(len(impression.item_ids)))
    none = np.empty(0, np.uint64)
    return Shown(
        np.concatenate([none, *records]),
        np.concatenate([none, *items]),
        np.concatenate([none.astype(np.int64), *positions]),
        record_of,
        first_ms,
        sent,
    )


def acted(entries: Iterable[tuple[int, UserAction | Forget]], domain: Domain, *, actions_max: int) -> Acted:
    """The newest `actions_max` label actions of (when the broker took it, action), whatever the order."""
    kinds = {action.name: index for index, action in enumerate(domain.actions)}
    graded = {action.name for action in domain.actions if action.grade > 0 and not action.negative}
    forgotten: dict[int, int] = {}
    newest_ts_ms = 0

    def rows() -> Iterator[tuple[int, ...]]:
        nonlocal newest_ts_ms
        for logged_ms, record in entries:
            if isinstance(record, Forget):
                user = hash64(record.user_id)
                forgotten[user] = max(logged_ms, forgotten.get(user, 0))
                continue
            newest_ts_ms = max(newest_ts_ms, record.ts_ms)
            if record.action in graded:
                named = 0 if record.impression_id is None else hash64(record.impression_id)
                ids = hash64(record.user_id), hash64(record.item_id), hash64(record.event_id), 0, named
                yield logged_ms, record.ts_ms, *ids, kinds[record.action]

    kept = _newest(rows(), actions_max)
    return Acted(
        ActionColumns(*(np.ascontiguousarray(kept[name]) for name in kept.dtype.names or ())), newest_ts_ms, forgotten
    )


def _unfit(unpacked: Unpacked, features_hash: str) -> str | None:
    served = unpacked.served
    if served.features_hash != features_hash:
        return OTHER_FEATURES
    return BACKLOG if served.backlog or served.event_age_ms > BACKLOG_MS else None


def _kept(entry: LogEntry, unpacked: Unpacked) -> _Kept:
    served = unpacked.served
    items = np.array([hash64(item) for item in served.item_ids[: served.shown]], np.uint64)
    return _Kept(
        entry.logged_ms,
        entry.partition,
        entry.offset,
        served.ts_ms,
        hash64(served.user_id),
        hash64(served.rec_id),
        items,
    )


def _columns(kept: list[_Kept], dropped: Mapping[str, int]) -> ServedLists:
    def column(name: str, kind: Any = np.int64) -> NDArray[Any]:
        return np.array([getattr(each, name) for each in kept], kind)

    lists = ListColumns(
        column("logged_ms"),
        column("ts_ms"),
        column("user", np.uint64),
        column("record", np.uint64),
        np.array([len(each.items) for each in kept], np.int64),
        np.concatenate([np.empty(0, np.uint64), *(each.items for each in kept)]),
    )
    return ServedLists(lists, column("partition"), column("offset"), dict(dropped))


def _newest(rows: Iterator[tuple[int, ...]], at_most: int) -> NDArray[Any]:
    """The `at_most` rows that the broker took last, in that order."""
    kept = np.empty(0, _ACTIONS)
    while len(piece := np.fromiter(islice(rows, PIECE), _ACTIONS)):
        kept = np.concatenate([kept, piece])
        kept = kept[np.argsort(kept["at"], kind="stable")][-at_most:]
    return kept
