"""The store in this process's memory: replay, training and tests. The reference that the Redis scripts must equal.

Not durable, one process, no TTL: a key never expires, which changes no feature (`layout.ttl_s`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features import item_record, neighbours, rings, user_log
from features.domain import Domain
from features.ids import hash64
from features.item_ops import value_name
from features.store import layout as names
from features.store.port import PHASES, Beat, ItemCall, ItemOp, Layout, Part, Phase, Reply, StateForeign, UserCall
from features.top_score import NOTHING, top_score

MISSING = -2
Head = tuple[NDArray[np.uint64], NDArray[np.float64]]


@dataclass(slots=True)
class Shard:
    """One shard's keys by kind, its marks and its counters."""

    marks: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    users: dict[int, bytes] = field(default_factory=dict)
    tombstones: dict[int, bytes] = field(default_factory=dict)
    sweeps: dict[int, bytes] = field(default_factory=dict)
    rings: dict[str, bytearray] = field(default_factory=dict)
    value_rings: dict[str, bytearray] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    co_visited: dict[str, bytearray] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    tops: dict[str, dict[int, float]] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)  # of the tops that nothing was written to since the last read
    sampled: list[bytes] | None = None  # the sampled items' records, until a record is put
    world: bytearray = field(default_factory=bytearray)


class MemoryStore:
    """`FeatureStore` over dicts."""

    def __init__(self, shards: int = 16) -> None:
        self._count = shards
        self._shards = [Shard() for _ in range(shards)]
        self._meta: dict[str, str] = {}
        self._settled: dict[str, str] = {}  # what was opened and bound
        self._starts: dict[Part, int] = {}
        self._columns = 0
        self._weights: tuple[float, ...] = ()

    def begun(self) -> bool:
        return bool(self._meta)

    def open(self, domain: Domain) -> Layout:
        names.check_meta(self._meta, shards=self._count, generation=1, columns=domain.columns)
        self._meta.update({"generation": "1", "format:1": names.FORMAT, "shards:1": str(self._count)})
        self._meta["columns:1"] = names.columns_text(domain.columns)
        for action in domain.actions:
            codes = names.codes_of(self._meta, 1)
            if action.name not in codes:
                self._meta[f"action:1:{names.free_code(codes)}"] = action.name
        self._settled.update({"generation": "1", **names.fixed_by(self._meta, 1)})
        self._columns = len(domain.columns)
        self._weights = names.weights(domain)
        return names.layout_of(domain, self._meta, shards=self._count, generation=1)

    def bind_log(self, topic: str, identity: str) -> None:
        known = self._meta.setdefault(f"log:1:{topic}", identity)
        if known != identity:
            raise StateForeign(f"the state was built from another log of {topic}: {known}, not {identity}")
        self._settled[f"log:1:{topic}"] = identity

    def marks(self, phase: Phase, part: Part) -> NDArray[np.int64]:
        self._restore_meta()
        name = names.mark_field(phase, part)
        return np.array([shard.marks.get(name, MISSING) for shard in self._shards], np.int64)

    def _restore_meta(self) -> None:
        names.check_place(self._meta, generation=1)
        self._meta.update(names.lost_fields(self._settled, self._meta))

    def begin(self, part: Part, start: int) -> None:
        self._restore_meta()
        for shard in self._shards:
            for phase in PHASES:
                shard.marks.setdefault(names.mark_field(phase, part), start - 1)
        self._starts.setdefault(part, start)

    def started_at(self, part: Part) -> int | None:
        return self._starts.get(part)

    def commit_users(self, part: Part, calls: Sequence[UserCall]) -> list[Reply]:
        return [self._users_call(names.mark_field("u", part), call) for call in calls]

    def commit_items(self, part: Part, calls: Sequence[ItemCall]) -> list[Reply]:
        return [self._items_call(names.mark_field("i", part), call) for call in calls]

    def _users_call(self, name: str, call: UserCall) -> Reply:
        shard = self._shards[call.shard]
        mark = shard.marks.get(name, MISSING)
        if mark != call.prev:
            return Reply(applied=False, mark=mark)
        epoch = shard.epochs.get("u", 0)
        if epoch != call.epoch:
            return Reply(applied=False, mark=mark, epoch=epoch)
        losers = tuple(
            user for user, expected, _ in call.puts if user_log.version(shard.users.get(user, b"")) != expected
        )
        if losers:
            return Reply(applied=False, mark=mark, losers=losers)
        for user, _, blob in call.puts:
            if blob:
                shard.users[user] = blob
            else:
                shard.users.pop(user, None)
        shard.tombstones.update(call.tombstones)
        shard.epochs["u"] = epoch + bool(call.tombstones)
        for counter, count in call.counts.items():
            shard.counts[counter] = shard.counts.get(counter, 0) + count
        shard.marks[name] = call.last
        return Reply(applied=True, mark=call.last)

    def _items_call(self, name: str, call: ItemCall) -> Reply:
        shard = self._shards[call.shard]
        mark = shard.marks.get(name, MISSING)
        if mark != call.prev:
            return Reply(applied=False, mark=mark)
        epoch = shard.epochs.get("i", 0)
        if epoch != call.epoch:
            return Reply(applied=False, mark=mark, epoch=epoch)
        for op in call.ops:
            self._apply(shard, op)
        shard.epochs["i"] = epoch + any(op.kind == "f" for op in call.ops)
        if len(shard.tops.get("new", ())) > names.NEW_MAX:  # at once: what leaves the list must not come back
            _trim(shard, "new", names.NEW_MAX)
        shard.marks[name] = call.last
        return Reply(applied=True, mark=call.last)

    def _apply(self, shard: Shard, op: ItemOp) -> None:
        if op.kind == "i":
            self._add_item(shard, op)
        elif op.kind == "g":
            shard.world = self._add(shard.world, op.body)
        elif op.kind == "c":
            shard.value_rings[op.key] = self._add(shard.value_rings.get(op.key), op.body)
        elif op.kind == "s":
            neighbours.touch(shard.sessions.setdefault(op.key, bytearray()), op.body)
        elif op.kind == "v":
            neighbours.follow(shard.co_visited.setdefault(op.key, bytearray()), op.body)
        elif op.kind == "r":
            _put_record(shard, op)
        elif op.kind == "f":
            user = int(op.key, 16)
            shard.sweeps[user] = max(op.body[:6], shard.sweeps.get(user, b"")[:6]) + op.body[6:]
        else:
            raise ValueError(f"no such kind of op: {op.kind}")

    def _add(self, ring: bytearray | None, body: bytes) -> bytearray:
        lists_at = 2 + int.from_bytes(body[:2], "big") * rings.DELTA.size
        name = body[lists_at + 1 + 16 * body[lists_at] :]
        return rings.add(bytearray() if ring is None else ring, self._columns, body[2:lists_at], name)

    def _add_item(self, shard: Shard, op: ItemOp) -> None:
        ring = shard.rings[op.key] = self._add(shard.rings.get(op.key), op.body)
        at = 2 + int.from_bytes(op.body[:2], "big") * rings.DELTA.size
        columns = {change[1] for change in rings.DELTA.iter_unpack(op.body[2:at])}
        if not any(self._weights[column] for column in columns):  # impressions alone move no item
            return
        score = top_score(ring, self._weights)
        if score == NOTHING:
            return
        item = int(op.key, 16)
        _rank(shard, "top", item, score, names.TOP_MAX)
        for index in range(op.body[at]):
            listed = op.body[at + 1 + 16 * index : at + 17 + 16 * index]
            _rank(shard, f"a:{listed.decode()}", item, score, names.VALUE_LIST_MAX)

    def beat(self, beats: Mapping[int, Sequence[Beat]]) -> list[tuple[int, Beat, int]]:
        names.check_place(self._meta, generation=1)
        missed = []
        for index, wanted in beats.items():
            marks = self._shards[index].marks
            for beat in wanted:
                name = names.mark_field(beat.phase, beat.part)
                mark = marks.get(name, MISSING)
                if mark == beat.prev:
                    marks[name] = beat.last
                else:
                    missed.append((index, beat, mark))
        return missed

    def counts(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for shard in self._shards:
            for counter, count in shard.counts.items():
                total[counter] = total.get(counter, 0) + count
        return total

    def users(self) -> Iterator[list[int]]:
        for shard in self._shards:
            yield list(shard.users)

    def read_users(self, users: Sequence[int]) -> list[bytes]:
        shards, count = self._shards, self._count
        return [shards[user % count].users.get(user, b"") for user in users]

    def read_tombstones(self, users: Sequence[int]) -> list[bytes]:
        return [self._of(user).tombstones.get(user, b"") for user in users]

    def to_sweep(self) -> dict[int, dict[int, bytes]]:
        shards = enumerate(self._shards)
        return {at: dict(islice(shard.sweeps.items(), names.SWEPT_MAX)) for at, shard in shards if shard.sweeps}

    def sweep(self, due: Mapping[int, Mapping[int, bytes]]) -> Iterator[int]:
        for index, users in due.items():
            shard, until = self._shards[index], {user.to_bytes(8, "big"): body[:6] for user, body in users.items()}
            removed = 0
            for item, sessions in list(shard.sessions.items()):
                removed += neighbours.leave_out(sessions, until)
                if not sessions:
                    del shard.sessions[item]
            yield removed
            for user, body in users.items():
                if shard.sweeps.get(user) == body:
                    del shard.sweeps[user]

    def read_rings(self, items: Sequence[int]) -> list[bytes]:
        return [bytes(self._of(item).rings.get(f"{int(item):016x}", b"")) for item in items]

    def read_records(self, items: Sequence[int]) -> list[bytes]:
        return [self._of(item).records.get(f"{int(item):016x}", b"") for item in items]

    def read_sample(self) -> list[bytes]:
        return list(chain.from_iterable(map(_sampled, self._shards)))

    def read_co_visited(self, items: Sequence[int]) -> list[bytes]:
        return [bytes(self._of(item).co_visited.get(f"{int(item):016x}", b"")) for item in items]

    def read_sessions(self, items: Sequence[int]) -> list[bytes]:
        return [bytes(self._of(item).sessions.get(f"{int(item):016x}", b"")) for item in items]

    def read_value_rings(self, values: Sequence[tuple[str, str]]) -> list[bytes]:
        hashes = [hash64(value_name(*value)) for value in values]
        return [bytes(self._of(value).value_rings.get(f"{value:016x}", b"")) for value in hashes]

    def read_global(self) -> bytes:
        return bytes(self._shards[0].world)

    def read_top(self, name: str, k: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        key, most = names.top_key(name), _most(name)
        heads = [_head(shard, key, most) for shard in self._shards]
        items, scores = (np.concatenate(column) for column in zip(*heads, strict=True))
        best = _best(items, scores, k)
        return items[best], scores[best]

    def scan(self, kind: Literal["u", "i", "r", "g"]) -> Iterator[tuple[str, bytes]]:
        if kind == "g":
            return iter([("", self.read_global())] if self._shards[0].world else [])
        if kind == "u":
            return iter(sorted((f"{user:016x}", blob) for shard in self._shards for user, blob in shard.users.items()))
        if kind == "i":
            return iter(sorted((key, bytes(ring)) for shard in self._shards for key, ring in shard.rings.items()))
        return iter(sorted(each for shard in self._shards for each in shard.records.items()))

    def ping(self) -> Mapping[str, str]:
        return {"server": "memory", "persistence": "none"}

    def close(self) -> None:
        """Nothing to close."""

    def _of(self, key: int) -> Shard:
        return self._shards[int(key) % self._count]


def _put_record(shard: Shard, op: ItemOp) -> None:
    blob = shard.records[op.key] = item_record.merged(shard.records.get(op.key, b""), op.body)
    _, first_ts_ms, flags, _ = item_record.HEAD.unpack_from(blob)
    item = int(op.key, 16)
    _rank(shard, "sample", item, names.sample_score(item), names.SAMPLE_MAX)
    shard.sampled = None
    if flags & item_record.GONE:
        shard.tops.get("new", {}).pop(item, None)
        shard.heads.pop("new", None)
    elif first_ts_ms:
        _set(shard, "new", item, float(first_ts_ms))


def _sampled(shard: Shard) -> list[bytes]:
    """The records of a shard's sample, kept until one is put: a replay asks after every event."""
    if shard.sampled is None:
        items, _ = _head(shard, "sample", names.SAMPLE_MAX)
        shard.sampled = [shard.records[f"{item:016x}"] for item in items.tolist()]
    return shard.sampled


def _most(name: str) -> int:
    return {"top": names.TOP_MAX, "new": names.NEW_MAX}.get(name, names.VALUE_LIST_MAX)


def _rank(shard: Shard, key: str, item: int, score: float, most: int) -> None:
    """Sets a score and, now and then, forgets what is not among the best `most`. Reads look at these only."""
    _set(shard, key, item, score)
    if len(shard.tops[key]) > 2 * most:
        _trim(shard, key, most)


def _set(shard: Shard, key: str, item: int, score: float) -> None:
    shard.tops.setdefault(key, {})[item] = score
    shard.heads.pop(key, None)


def _trim(shard: Shard, key: str, most: int) -> None:
    items, values = _head(shard, key, most)
    shard.tops[key] = dict(zip(items.tolist(), values.tolist(), strict=True))


def _head(shard: Shard, key: str, most: int) -> Head:
    """The best `most` of a shard's list, kept until the list changes: a replay reads after every event."""
    head = shard.heads.get(key)
    if head is None:
        listed = shard.tops.get(key, {})
        items = np.fromiter(listed.keys(), np.uint64, len(listed))
        scores = np.fromiter(listed.values(), np.float64, len(listed))
        best = _best(items, scores, most)
        head = shard.heads[key] = items[best], scores[best]
    return head


def _best(items: NDArray[np.uint64], scores: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """The places of the best `most`, best first by (score, hash)."""
    places = np.arange(len(items))
    if 0 < most < len(items):
        places = np.flatnonzero(scores >= np.partition(scores, -most)[-most])
    return places[np.lexsort((items[places], scores[places]))[::-1][:most]]
