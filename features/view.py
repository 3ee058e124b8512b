"""The read side of the state: everything that sources, filters and features may ask, cached in the process.

A micro-batch begins with `advance`; within it every key is read at most once. Item rings, lists and the world's ring
are as old as `freshness_ms` at most (what changes by the day: records, document frequencies, an item's count of all
time, the lists of an attribute's value: ten times that), users' logs are read whenever asked. With freshness 0
everything is read again in each micro-batch: replay, training and lock-step runs see exactly the state of the moment.

No figure depends on what was asked before: with freshness 0 two views of one state answer equal questions with equal
bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features import decay, neighbours, rates, user_log
from features.distinct import distinct
from features.document_sample import DocumentSample
from features.domain import Domain
from features.fresh import FreshCache, Tick
from features.history import past
from features.ids import hash64
from features.item_table import ASKED_MAX, SLOW_AGE_TIMES, ItemTable
from features.rings import MINUTE_MS, Rings, unpack
from features.scene import Floats, Hashes, ItemColumns, Scene, SetColumn, UserHistory
from features.session_members import session_members
from features.store.port import FeatureStore, Layout
from features.windows import window_counts

LISTS_MAX = 1 << 14  # co-visited and session lists, about 1 kB each
TOPS_MAX = 1 << 10
VALUES_MAX = 1 << 14
HYDRATE_MAX = 1 << 13
LEARNT_MAX = 1 << 17
WORLD = np.zeros(1, np.uint64)

CoVisited = tuple[Hashes, NDArray[np.float64]]
Touches = tuple[NDArray[np.int64], Hashes, NDArray[np.uint16]]
Top = tuple[Hashes, NDArray[np.float64]]


class StateView:
    """See the module. One per worker thread: not for use by two."""

    def __init__(self, store: FeatureStore, domain: Domain, layout: Layout, *, freshness_ms: int) -> None:
        self.domain = domain
        self.layout = layout
        self._store = store
        self._tick = Tick(0, 0)
        self._items = ItemTable(store, domain, columns=len(layout.columns), freshness_ms=freshness_ms)
        self._sample = DocumentSample(store, self._items.pools, freshness_ms=freshness_ms * SLOW_AGE_TIMES)
        self._world = FreshCache[str, Rings](size_max=1, freshness_ms=freshness_ms)
        self._world_columns: tuple[Rings, int, ItemColumns] | None = None
        self._tops = FreshCache[tuple[str, int], Top](size_max=TOPS_MAX, freshness_ms=freshness_ms)
        self._value_tops = FreshCache[tuple[str, int], Top](
            size_max=TOPS_MAX, freshness_ms=freshness_ms * SLOW_AGE_TIMES
        )
        self._records: dict[bytes, ItemColumns] = {}  # of this micro-batch
        self._co_visited = FreshCache[int, neighbours.CoVisited](size_max=LISTS_MAX, freshness_ms=freshness_ms)
        self._sessions = FreshCache[int, Touches](size_max=LISTS_MAX, freshness_ms=freshness_ms)
        self._value_lifetimes = FreshCache[tuple[str, str], Floats](size_max=VALUES_MAX, freshness_ms=freshness_ms)
        self._learnt: OrderedDict[int, str] = OrderedDict()
        negative = {layout.action_codes.get(action.name, 0) for action in domain.actions if action.negative}
        self._counted = np.array([code not in negative for code in range(256)])

    def advance(self, *, wall_ms: int, freshness_times: int = 1) -> None:
        """A micro-batch begins: what is older than so many times the freshness is read again when next asked."""
        self._tick = Tick(self._tick.number + 1, wall_ms, freshness_times)
        self._records.clear()

    def history(self, blob: bytes, *, now_ms: int) -> UserHistory:
        """A user's log as read or just written, at `now_ms`."""
        return user_log.history(blob, now_ms=now_ms, domain=self.domain, layout=self.layout)

    def histories(self, users: Sequence[int], *, now_ms: int) -> list[UserHistory]:
        """The users' logs as they stand in the store."""
        return [self.history(blob, now_ms=now_ms) for blob in self._store.read_users(users)]

    def hydrate(self, hashes: Hashes) -> None:
        """Reads what is not fresh of these items at once: call it with all candidates of a micro-batch."""
        for start in range(0, len(hashes), HYDRATE_MAX):
            self._items.rows(hashes[start : start + HYDRATE_MAX], tick=self._tick)

    def items(self, hashes: Hashes, *, now_ms: int) -> ItemColumns:
        """All that is known of n items at the minute of `now_ms`."""
        return self._items.columns(self._items.rows(hashes, tick=self._tick), now_ms=now_ms)

    def records(self, hashes: Hashes) -> ItemColumns:
        """What the catalogue says of n items: `items` without the counts (they have no columns)."""
        key = hashes.tobytes()
        if (known := self._records.get(key)) is None:
            if len(self._records) >= ASKED_MAX:
                self._records.clear()
            known = self._items.records(self._items.rows(hashes, tick=self._tick, counts=False))
            self._records[key] = known
        return known

    def available(self, hashes: Hashes) -> NDArray[np.bool_]:
        """bool[n]: False for what the catalogue calls gone or not available."""
        return self._items.available(self._items.rows(hashes, tick=self._tick, counts=False))

    def world(self, *, now_ms: int) -> ItemColumns:
        """The global ring as one row at the minute of `now_ms`."""
        rings, minute = self._world_rings(), now_ms // MINUTE_MS
        held = self._world_columns
        if held is None or held[0] is not rings or held[1] != minute:
            held = self._world_columns = (rings, minute, self._world_at(rings, minute * MINUTE_MS))
        return held[2]

    def rarity(self, hashes: Hashes) -> NDArray[np.float64]:
        """float64[n]: ln(1 + all actions / the item's actions), over all time: an item's inverse frequency."""
        everywhere = self._world_rings().lifetime[0, 1:].sum(dtype=np.float64)
        lifetimes = self._items.lifetimes(hashes, tick=self._tick)
        here = np.maximum(lifetimes[:, 1:].sum(axis=1, dtype=np.float64), 1.0)
        rarity: NDArray[np.float64] = np.log1p(np.maximum(everywhere, here) / here)
        return rarity

    def ids(self, hashes: Hashes) -> list[str | None]:
        """The items' ids, from their rings, their records, or lists given lately; None where nobody told."""
        told = self._items.ids(self._items.rows(hashes, tick=self._tick))
        return [
            self._learnt.get(key) if item_id is None else item_id
            for key, item_id in zip(hashes.tolist(), told, strict=True)
        ]

    def learn(self, item_ids: Sequence[str]) -> Hashes:
        """uint64[n]: the hashes of ids that a caller gave; `ids` knows them afterwards."""
        keys = [hash64(item_id) for item_id in item_ids]
        for key, item_id in zip(keys, item_ids, strict=True):
            self._learnt[key] = item_id
            self._learnt.move_to_end(key)
        while len(self._learnt) > LEARNT_MAX:
            self._learnt.popitem(last=False)
        return np.array(keys, np.uint64)

    def top(self, name: str, k: int) -> Top:
        """The best k of a bounded list, best first: "top", "new" or "a:<attribute>:<value>"."""
        cache = self._value_tops if name.startswith("a:") else self._tops
        return cache.get([(name, k)], lambda keys: [self._store.read_top(*key) for key in keys], tick=self._tick)[0]

    def co_visited(self, items: Hashes) -> list[CoVisited]:
        """Per item what others went on to: items uint64[r] and weights float64[r], all decayed to one time."""
        return neighbours.at_one_time(self._co_visited.get(items.tolist(), self._read_co_visited, tick=self._tick))

    def sessions(self, items: Hashes) -> list[Touches]:
        """Per item the newest 64 sessions that touched it: ts_ms int64[r], users uint64[r], sessions uint16[r]."""
        return self._sessions.get(items.tolist(), self._read_sessions, tick=self._tick)

    def session_members(
        self, users: Hashes, sessions: NDArray[np.uint16], ts_ms: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Hashes]:
        """The items of n sessions, one an event: owner int64[r], ascending, and items uint64[r]."""
        owners, of = distinct(users)
        read = self._store.read_users(owners.tolist())
        logs = [read[place] for place in of.tolist()]
        gap_ms = self.domain.session_gap_ms
        return session_members(logs, sessions, ts_ms, gap_ms=gap_ms, counted=self._counted)

    def idf(self, attribute: str) -> Floats:
        """float32[codes]: inverse document frequencies of the values of a category or set attribute."""
        return self._sample.idf(attribute, tick=self._tick)

    def values(self, attribute: str) -> Sequence[str]:
        """The texts behind the codes of a `SetColumn`."""
        return self._items.pools[attribute].values

    def value_rates(self, attribute: str, column: SetColumn, *, world: ItemColumns) -> Floats:
        """float32[n, columns - 1]: each action's lifetime rate through the items' values of `attribute`.

        The mean over an item's values, each shrunk to the world; the world's own rate for an item without values.
        """
        everywhere = rates.world_rates(world.lifetime[0][:, None], world.lifetime[0])
        codes, of = np.unique(column.codes, return_inverse=True)
        texts = self.values(attribute)
        names = [(attribute, texts[code]) for code in codes.tolist()]
        if not names:
            return np.tile(everywhere[:, 0], (len(column.start) - 1, 1))
        lifetime = np.stack(self._value_lifetimes.get(names, self._read_value_lifetimes, tick=self._tick))[:, :, None]
        through = rates.item_rates(lifetime, prior=everywhere)[:, :, 0]
        return mean_by_row(column.start, through[of], default=everywhere[:, 0])

    def _world_rings(self) -> Rings:
        return self._world.get(["g"], lambda _: [self._unpacked([self._store.read_global()])], tick=self._tick)[0]

    def _world_at(self, rings: Rings, now_ms: int) -> ItemColumns:
        return ItemColumns(
            hashes=WORLD,
            counts=window_counts(rings, now_ms=now_ms),
            decayed=decay.decayed(rings, now_ms=now_ms, retention_ms=self.domain.item_retention_ms),
            lifetime=rings.lifetime.astype(np.float32),
            first_ts_ms=np.zeros(1, np.int64),
            known=np.zeros(1, np.bool_),
            available=np.ones(1, np.bool_),
            numbers={},
            sets={},
        )

    def _unpacked(self, blobs: Sequence[bytes]) -> Rings:
        return unpack(blobs, columns=len(self.layout.columns))

    def _read_value_lifetimes(self, names: Sequence[tuple[str, str]]) -> list[Floats]:
        return list(self._unpacked(self._store.read_value_rings(names)).lifetime.astype(np.float32))

    def _read_co_visited(self, keys: Sequence[int]) -> list[neighbours.CoVisited]:
        return [neighbours.co_visited(blob) for blob in self._store.read_co_visited(keys)]

    def _read_sessions(self, keys: Sequence[int]) -> list[Touches]:
        return [neighbours.session_touches(blob) for blob in self._store.read_sessions(keys)]


def mean_by_row(start: NDArray[np.int64], cells: Floats, *, default: Floats) -> Floats:
    """float32[n, c]: the mean of cells[start[i]:start[i + 1]], `default` for an empty row.

    >>> mean_by_row(np.array([0, 2, 2]), np.float32([[1], [3]]), default=np.float32([9])).ravel().tolist()
    [2.0, 9.0]
    """
    sizes = np.diff(start)
    row = np.repeat(np.arange(len(sizes)), sizes)
    # bincount adds in the order of the row's own cells: no neighbour changes a last bit
    sums = np.stack([np.bincount(row, cell, minlength=len(sizes)) for cell in cells.T], axis=1)
    return np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], default).astype(np.float32)


def scene(
    view: StateView,
    *,
    now_ms: int,
    items: Hashes,
    user: UserHistory,
    sources: Mapping[str, Floats],
    context: Mapping[str, float | str],
    item_context: Mapping[str, Floats],
    position: Floats | None = None,
) -> Scene:
    """The whole view of one query: reads what is not cached, gathers columns, computes nothing twice."""
    domain = view.domain
    columns, world = view.items(items, now_ms=now_ms), view.world(now_ms=now_ms)
    touched = view.records(user.items)
    sets = [attribute for attribute in domain.attributes if attribute.kind != "number"]
    return Scene(
        domain=domain,
        now_ms=now_ms,
        items=columns,
        world=world,
        user=user,
        past=past(user, domain, view.layout.action_codes, now_ms=now_ms),
        touched=touched,
        idf={attribute.name: view.idf(attribute.name) for attribute in sets},
        value_rates={
            attribute.name: view.value_rates(attribute.name, columns.sets[attribute.name], world=world)
            for attribute in sets
            if attribute.rate
        },
        sources=sources,
        context=context,
        item_context=item_context,
        position=position,
    )
