"""Effects of a micro-batch's events as operations on items, packed by key: one op a key and kind.

Kinds (`ItemOp.kind`), keys are 16 hex digits of a 64-bit hash:

    i  item ring       u16 deltas | deltas (rings.DELTA) | u8 lists | 16 hex of each attribute list | id
    g  the world's ring (shard 0, key ""), c  an attribute value's ring: as i, without lists
    s  session list    entries (neighbours.session_entry), ascending, newest of each user and session
    v  co-visited list contributions (neighbours.co_visit), in offset order
    r  item record     item_record.pack: the winner of the batch
    f  forgotten user  (key: the user) until u48 | 8 bytes of each item of this shard that is known to list the user
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from features import item_record
from features.domain import Domain
from features.facts import Gone
from features.fold import Effect, Forgotten
from features.ids import hash64
from features.neighbours import CO_VISIT, contribution, session_entry
from features.rings import MINUTE_MS, delta
from features.schema import Item
from features.store.port import ItemOp

Ring = dict[tuple[int, int], int]  # (minute, column) -> events


class Values(NamedTuple):
    """What an item's attributes put in motion: `lists`, hashes of the top lists that it enters; `rings`: hashes and
    names of the attribute values whose windows count its events.
    """

    lists: tuple[int, ...] = ()
    rings: tuple[tuple[int, str], ...] = ()


ValuesOf = Callable[[Sequence[int]], Mapping[int, Values]]


def list_name(attribute: str, value: str) -> str:
    """The name of the top list of an attribute's value, as `FeatureStore.read_top` takes it."""
    return f"a:{attribute}:{value}"


def value_name(attribute: str, value: str) -> str:
    """The name behind the hash of an attribute value's ring."""
    return f"{attribute}\0{value}"


def values_of(record: bytes, domain: Domain) -> Values:
    """What an item's record says of lists and value rings; nothing for an item without a record.

    >>> from features.domain import Attribute
    >>> domain = Domain(attributes=(Attribute("genre", "set", candidates=True),))
    >>> values = values_of(item_record.pack(Item("a", 1, attributes={"genre": ["x", "y"]})), domain)
    >>> values.lists == (hash64("a:genre:x"), hash64("a:genre:y")), values.rings
    (True, ())
    """
    if not record:
        return Values()
    attributes = item_record.unpack(record).attributes
    lists: list[int] = []
    rings: list[tuple[int, str]] = []
    for attribute in domain.attributes:
        if not (attribute.candidates or attribute.rate) or attribute.kind == "number":
            continue
        for text in item_record.texts(attributes.get(attribute.name)):
            if attribute.candidates:
                lists.append(hash64(list_name(attribute.name, text)))
            if attribute.rate:
                name = value_name(attribute.name, text)
                rings.append((hash64(name), name))
    return Values(tuple(lists[:255]), tuple(rings))


class _Visits(NamedTuple):
    mark: int  # of the shard that owns the list
    packed: list[bytes]


class Operations:
    """Collects the effects that shards still have to apply, then packs them."""

    def __init__(self, marks: Sequence[int], values: Mapping[int, Values]) -> None:
        self._marks = marks
        self._shards = len(marks)
        self._values = values
        self._rings: dict[int, Ring] = {}
        self._names: dict[int, str] = {}
        self._value_rings: dict[int, Ring] = {}
        self._world: Ring = {}
        self._sessions: dict[int, dict[tuple[int, int], int]] = {}
        self._visits: dict[bytes, _Visits] = {}
        self._forgotten: list[Forgotten] = []

    def forget(self, forgotten: Iterable[Forgotten]) -> None:
        """Users whose session entries have to go, in all shards beyond whose mark their being forgotten lies."""
        self._forgotten += forgotten

    def take(self, effects: Iterable[Effect]) -> None:
        """Effects in offset order; a shard takes those beyond its mark."""
        for effect in effects:
            minute = effect.ts_ms // MINUTE_MS
            if effect.column >= 0:
                self._count(effect, (minute, effect.column))
            if effect.interest:
                self._touch(effect)
            if effect.before:
                self._visit(effect, minute)

    def _count(self, effect: Effect, cell: tuple[int, int]) -> None:
        marks, offset, shards = self._marks, effect.offset, self._shards
        if offset > marks[0]:
            self._world[cell] = self._world.get(cell, 0) + len(effect.items)
        for item, name in effect.items:
            if offset > marks[item % shards]:
                ring = self._rings.get(item)
                if ring is None:
                    ring = self._rings[item] = {}
                    self._names[item] = name
                ring[cell] = ring.get(cell, 0) + 1
            values = self._values.get(item)
            if values:
                for value, value_id in values.rings:
                    if offset > marks[value % shards]:
                        ring = self._value_rings.setdefault(value, {})
                        self._names[value] = value_id
                        ring[cell] = ring.get(cell, 0) + 1

    def _touch(self, effect: Effect) -> None:
        item = effect.items[0][0]
        if effect.offset > self._marks[item % self._shards]:
            touches = self._sessions.get(item)
            if touches is None:
                touches = self._sessions[item] = {}
            who = (effect.user, effect.session)
            if touches.get(who, -1) < effect.ts_ms:
                touches[who] = effect.ts_ms

    def _visit(self, effect: Effect, minute: int) -> None:
        item, offset, pull = effect.items[0][0].to_bytes(8, "big"), effect.offset, effect.pull
        for distance, other in enumerate(effect.before, start=1):
            visits = self._visits.get(other)
            if visits is None:
                mark = self._marks[int.from_bytes(other, "big") % self._shards]
                visits = self._visits[other] = _Visits(mark, [])
            if offset > visits.mark:
                visits.packed.append(CO_VISIT.pack(item, minute, contribution(minute, pull, distance)))

    def packed(self) -> list[list[ItemOp]]:
        """The ops of each shard."""
        shards: list[list[ItemOp]] = [[] for _ in range(self._shards)]
        if self._world:
            shards[0].append(ItemOp("g", "", _ring_body(self._world, (), "")))
        for item, ring in self._rings.items():
            values = self._values.get(item)
            body = _ring_body(ring, values.lists if values else (), self._names[item])
            shards[item % self._shards].append(ItemOp("i", f"{item:016x}", body))
        for value, ring in self._value_rings.items():
            shards[value % self._shards].append(ItemOp("c", f"{value:016x}", _ring_body(ring, (), self._names[value])))
        for item, touches in self._sessions.items():
            entries = sorted([session_entry(ts_ms, *who) for who, ts_ms in touches.items()])
            shards[item % self._shards].append(ItemOp("s", f"{item:016x}", b"".join(entries)))
        for other, visits in self._visits.items():
            if visits.packed:
                op = ItemOp("v", other.hex(), b"".join(visits.packed))
                shards[int.from_bytes(other, "big") % self._shards].append(op)
        for shard, ops in enumerate(shards):
            ops += [
                forget_op(each, shard, self._shards) for each in self._forgotten if each.offset > self._marks[shard]
            ]
        return shards


def forget_op(forgotten: Forgotten, shard: int, shards: int) -> ItemOp:
    """The op by which a shard notes whose session entries have to go, with its own of the items that list them."""
    items = [item for item in forgotten.items if int.from_bytes(item, "big") % shards == shard]
    return ItemOp("f", f"{forgotten.user:016x}", b"".join((forgotten.until_ms.to_bytes(6, "big"), *items)))


def record_ops(records: Iterable[tuple[int, Item | Gone]], marks: Sequence[int]) -> list[list[ItemOp]]:
    """The ops of catalogue entries (offset, entry): one record an item, the winner of those that its shard lacks."""
    winners: dict[int, bytes] = {}
    for offset, entry in records:
        item = hash64(entry.item_id)
        if offset > marks[item % len(marks)]:
            blob = (
                item_record.pack(entry)
                if isinstance(entry, Item)
                else item_record.pack_gone(entry.item_id, ts_ms=entry.ts_ms)
            )
            winners[item] = item_record.merged(winners.get(item, b""), blob)
    shards: list[list[ItemOp]] = [[] for _ in marks]
    for item, blob in winners.items():
        shards[item % len(marks)].append(ItemOp("r", f"{item:016x}", blob))
    return shards


def _ring_body(ring: Ring, lists: Sequence[int], name: str) -> bytes:
    deltas = [delta(minute, column, events) for (minute, column), events in ring.items()]
    return b"".join(
        [len(deltas).to_bytes(2, "big"), *deltas, len(lists).to_bytes(1, "big"),
         *[b"%016x" % each for each in lists], name.encode()]
    )  # fmt: skip
