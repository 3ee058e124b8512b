"""The process's cache of items, decoded to columns: one growing table, a row per item, gathered by index.

Rings and records are kept as the bytes that were read; a row is decoded again only when its bytes changed, its window
columns also when the minute of `now` did. At most `rows_max` items are held, the longest unasked go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from features import item_record
from features.decay import alive, decayed
from features.domain import Domain
from features.fresh import Tick
from features.rings import MINUTE_MS, DamagedRing, Rings, unpack
from features.scene import Floats, Hashes, ItemColumns
from features.schema import ItemAttributes
from features.store.port import FeatureStore
from features.value_pool import ValuePool
from features.windows import window_counts

ROWS_MAX = 1 << 16
ROWS_FIRST = 1 << 10
NEVER = -(1 << 60)
SLOW_AGE_TIMES = 10  # records and lifetimes may be ten times as old as counts: they change by the day, not the second
ASKED_MAX = 256  # questions of a micro-batch whose rows are remembered

Rows = NDArray[np.intp]


class ItemTable:
    """See the module. One per view; not for use by two threads."""

    def __init__(
        self, store: FeatureStore, domain: Domain, *, columns: int, freshness_ms: int, rows_max: int = ROWS_MAX
    ) -> None:
        self._store = store
        self._domain = domain
        self._columns = columns
        self._freshness_ms = freshness_ms
        self._rows_max = rows_max
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._asked = 0
        self._answered: dict[tuple[bytes, bool], Rows] = {}  # of this tick: (hashes, with counts)
        self._answered_tick = -1
        self._rings: list[bytes] = []
        self._records: list[bytes] = []
        self._ids: list[str | None] = []
        self._numbers = [attribute.name for attribute in domain.attributes if attribute.kind == "number"]
        self.pools = {attribute.name: ValuePool() for attribute in domain.attributes if attribute.kind != "number"}
        self._hashes = np.empty(0, np.uint64)
        self._last_asked = np.empty(0, np.int64)
        self._rings_read = np.empty((0, 2), np.int64)  # tick and wall time of the last read
        self._records_read = np.empty((0, 2), np.int64)
        self._minute = np.empty(0, np.int64)  # that the window columns were computed for
        self._minute_last = 0
        self._living = np.empty(0, np.bool_)
        self._counts = np.empty((0, columns, 4), np.float32)
        self._decays = np.empty((0, columns, 3), np.float32)
        self._lifetime = np.empty((0, columns), np.float32)
        self._first_ts_ms = np.empty(0, np.int64)
        self._known = np.empty(0, np.bool_)
        self._available = np.empty(0, np.bool_)
        self._values = np.empty((0, len(self._numbers)), np.float32)

    def rows(self, hashes: Hashes, *, tick: Tick, counts: bool = True) -> Rows:
        """The rows of these items, as fresh as the freshness asks; `counts=False`: only their records.

        Filter, hydration and features ask for one list within one micro-batch: it is looked up once.
        """
        if self._answered_tick != tick.number or len(self._answered) >= ASKED_MAX:
            self._answered.clear()
            self._answered_tick = tick.number
        key = hashes.tobytes()
        if (known := self._answered.get((key, counts))) is not None:
            self._asked += 1
            self._last_asked[known] = self._asked
            return known
        rows = self._placed(hashes)
        if counts:
            self._read_rings(self._stale(rows, self._rings_read, self._freshness_ms, tick), tick)
            self._answered[key, True] = rows
        self._refresh_records(rows, tick)
        self._answered[key, False] = rows
        return rows

    def columns(self, rows: Rows, *, now_ms: int) -> ItemColumns:
        """Everything known of the rows at the minute of `now_ms`."""
        self._decode_rings(rows, now_ms // MINUTE_MS)
        # take: six times as fast as indexing by an array
        lifetime = self._lifetime.take(rows, axis=0) * self._living.take(rows)[:, None]
        counts, decays = self._counts.take(rows, axis=0), self._decays.take(rows, axis=0)
        return self._gathered(rows, counts=counts, decays=decays, lifetime=lifetime)

    def records(self, rows: Rows) -> ItemColumns:
        """What the catalogue knows of the rows; the counts have no columns."""
        none = np.empty((len(rows), 0, 4), np.float32)
        return self._gathered(rows, counts=none, decays=none[:, :, :3], lifetime=none[:, :, 0])

    def available(self, rows: Rows) -> NDArray[np.bool_]:
        """bool[n]: what may be shown; an item without a record may."""
        return self._available.take(rows)

    def lifetimes(self, hashes: Hashes, *, tick: Tick) -> Floats:
        """float32[n, columns]: all events ever, whatever the retention; as old as records may be."""
        rows = self._placed(hashes)
        self._read_rings(self._stale(rows, self._rings_read, self._freshness_ms * SLOW_AGE_TIMES, tick), tick)
        undecoded = rows[self._minute[rows] == NEVER]
        if len(undecoded):
            self._decode_rings(undecoded, self._minute_last)
        return self._lifetime.take(rows, axis=0)

    def ids(self, rows: Rows) -> list[str | None]:
        """The items' ids as the rings or records tell them."""
        unread = [row for row in rows.tolist() if self._ids[row] is None and self._rings[row]]
        if unread:
            found = self._unpacked(unread).ids
            for row, item_id in zip(unread, found, strict=True):
                self._ids[row] = item_id
        return [self._ids[row] for row in rows.tolist()]

    def _gathered(self, rows: Rows, *, counts: Floats, decays: Floats, lifetime: Floats) -> ItemColumns:
        numbers = self._values.take(rows, axis=0)
        return ItemColumns(
            hashes=self._hashes.take(rows),
            counts=counts,
            decayed=decays,
            lifetime=lifetime,
            first_ts_ms=self._first_ts_ms.take(rows),
            known=self._known.take(rows),
            available=self._available.take(rows),
            numbers={name: numbers[:, index] for index, name in enumerate(self._numbers)},
            sets={name: pool.column(rows) for name, pool in self.pools.items()},
        )

    def _stale(self, rows: Rows, read: NDArray[np.int64], freshness_ms: int, tick: Tick) -> list[int]:
        """Of the rows, each once, those to be read again: `read` holds the tick and wall time of the last read."""
        last = read.take(rows, axis=0)
        age_ms = tick.wall_ms - last[:, 1]  # below 0: the clock was put back since
        stale = (last[:, 0] != tick.number) & ((age_ms < 0) | (age_ms >= freshness_ms * tick.freshness_times))
        return list(dict.fromkeys(rows[stale].tolist())) if stale.any() else []

    def _read_rings(self, rows: Sequence[int], tick: Tick) -> None:
        if not rows:
            return
        blobs = self._store.read_rings(self._hashes[rows].tolist())
        for row, blob in zip(rows, blobs, strict=True):
            if blob != self._rings[row]:
                self._rings[row] = blob
                self._minute[row] = NEVER
        self._rings_read[rows] = tick.number, tick.wall_ms

    def _refresh_records(self, rows: Rows, tick: Tick) -> None:
        self._read_records(self._stale(rows, self._records_read, self._freshness_ms * SLOW_AGE_TIMES, tick), tick)

    def _read_records(self, rows: Sequence[int], tick: Tick) -> None:
        if not rows:
            return
        blobs = self._store.read_records(self._hashes[rows].tolist())
        for row, blob in zip(rows, blobs, strict=True):
            if blob != self._records[row]:
                self._decode_record(row, blob)
        self._records_read[rows] = tick.number, tick.wall_ms

    def _decode_rings(self, rows: Rows, minute: int) -> None:
        other = self._minute.take(rows) != minute
        if not other.any():
            return
        stale = rows[other]
        now_ms = minute * MINUTE_MS
        retention_ms = self._domain.item_retention_ms
        rings = self._unpacked(stale.tolist())
        living = alive(rings, now_ms=now_ms, retention_ms=retention_ms)
        self._counts[stale] = window_counts(rings, now_ms=now_ms) * living[:, None, None]
        self._decays[stale] = decayed(rings, now_ms=now_ms, retention_ms=retention_ms)
        self._lifetime[stale] = rings.lifetime
        self._living[stale] = living
        self._minute[stale] = self._minute_last = minute

    def _unpacked(self, rows: Sequence[int]) -> Rings:
        """Raises `ValueError` that names the item of a damaged ring."""
        try:
            return unpack([self._rings[row] for row in rows], columns=self._columns)
        except DamagedRing as error:
            raise ValueError(f"the ring of item {int(self._hashes[rows[error.index]]):016x}: {error}") from error

    def _decode_record(self, row: int, blob: bytes) -> None:
        self._records[row] = blob
        attributes: ItemAttributes = {}
        self._known[row], self._available[row], self._first_ts_ms[row] = bool(blob), True, 0
        if blob:
            try:
                record = item_record.unpack(blob)
            except ValueError as error:
                self._records[row] = b""  # not taken: it is refused at every look
                raise ValueError(f"the record of item {int(self._hashes[row]):016x}: {error}") from error
            attributes = record.attributes
            self._ids[row] = record.item_id
            self._known[row], self._available[row] = not record.gone, record.available
            self._first_ts_ms[row] = record.first_ts_ms
        for index, name in enumerate(self._numbers):
            value = attributes.get(name)
            self._values[row, index] = value if isinstance(value, float) else np.nan
        for name, pool in self.pools.items():
            pool.put(row, item_record.texts(attributes.get(name)))

    def _placed(self, hashes: Hashes) -> Rows:
        """The row of each hash, a new one where it has none."""
        self._asked += 1
        keys = hashes.tolist()
        row_of = self._row_of
        found = list(map(row_of.get, keys))
        if None in found:
            held = np.array([row for row in found if row is not None], np.intp)
            self._last_asked[held] = self._asked
            for key, row in zip(keys, found, strict=True):
                if row is None and key not in row_of:
                    self._new_row(key)
            found = [row_of[key] for key in keys]
        rows = np.array(found, np.intp)
        self._last_asked[rows] = self._asked
        return rows

    def _new_row(self, key: int) -> int:
        if not self._free:
            if len(self._rings) < self._rows_max:
                self._make_room(min(max(2 * len(self._rings), ROWS_FIRST), self._rows_max))
            else:
                self._forget_quarter()
        row = self._free.pop()
        self._row_of[key] = row
        self._hashes[row] = key
        self._last_asked[row] = self._asked
        return row

    def _forget_quarter(self) -> None:
        """Empties the rows asked longest ago; those of the call that is under way stay."""
        self._answered.clear()
        oldest = np.argpartition(self._last_asked, len(self._rings) // 4)[: len(self._rings) // 4]
        oldest = oldest[self._last_asked[oldest] < self._asked]
        if not len(oldest):
            raise ValueError(f"more than {self._rows_max} items asked for at once")
        for row in oldest.tolist():
            del self._row_of[int(self._hashes[row])]
            if self._records[row]:
                self._decode_record(row, b"")
            self._rings[row], self._ids[row] = b"", None
            self._free.append(row)
        self._minute[oldest] = NEVER
        self._rings_read[oldest] = self._records_read[oldest] = NEVER

    def _make_room(self, rows: int) -> None:
        """Grows every column to `rows` rows."""
        more = rows - len(self._rings)
        self._free += range(rows - 1, len(self._rings) - 1, -1)
        self._rings += [b""] * more
        self._records += [b""] * more
        self._ids += [None] * more
        self._hashes = _grown(self._hashes, rows, 0)
        self._last_asked = _grown(self._last_asked, rows, 0)
        self._rings_read = _grown(self._rings_read, rows, NEVER)
        self._records_read = _grown(self._records_read, rows, NEVER)
        self._minute = _grown(self._minute, rows, NEVER)
        self._living = _grown(self._living, rows, False)
        self._counts = _grown(self._counts, rows, 0)
        self._decays = _grown(self._decays, rows, 0)
        self._lifetime = _grown(self._lifetime, rows, 0)
        self._first_ts_ms = _grown(self._first_ts_ms, rows, 0)
        self._known = _grown(self._known, rows, False)
        self._available = _grown(self._available, rows, True)
        self._values = _grown(self._values, rows, np.nan)
        for pool in self.pools.values():
            pool.grow(rows)


T = TypeVar("T", bound=np.generic)


def _grown(column: NDArray[T], rows: int, fill: float) -> NDArray[T]:
    grown = np.full((rows, *column.shape[1:]), fill, column.dtype)
    grown[: len(column)] = column
    return grown
