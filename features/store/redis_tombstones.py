"""Tombstones of one generation are added to those of another: by name, for the users are not known.

A name is keyed with the salt that all generations share, and its shard follows from the shard where it lay; with another
number of shards it may be one of several, and all of them get it. The later time counts. Refusals stay behind: they say
how events came out in the other generation, and this one has counted them by its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features import tombstone
from features.store import layout as names
from features.store.port import CARRIED, StateForeign, StoreAway
from features.store.redis_replies import good
from features.store.redis_scripts import CARRY, run
from features.store.redis_wire import Wire
from features.tombstone import Tombstone

TRIES_MAX = 64  # rounds of one page: each is lost only to a worker that forgets or refuses one of its users


@dataclass(frozen=True, slots=True)
class _Stone:
    """Where a tombstone belongs, what it says and how long it still lives."""

    prefix: str
    name: str
    until_ms: int
    ttl_s: int


def carry(wire: Wire, keys: Sequence[str], *, source: Sequence[str], target: Sequence[str], before_ms: int) -> int:
    """Adds the tombstones under some keys of a generation to another; returns how many there are.

    source, target: their shards' prefixes; `CARRIED` has marks in the target. before_ms: those of later nulls are left
    out. Raises `StoreAway` where the marks are lost.
    """
    wanted = [stone for stone in _read(wire, keys, source=source, target=target) if stone.until_ms < before_ms]
    for _ in range(TRIES_MAX):
        calls = _calls(wire, wanted)
        replies = run(wire, CARRY, list(calls.items())) if calls else []
        if any(reply < 0 for reply in replies):
            raise StoreAway("the marks under which tombstones are carried are lost")
        if not any(replies):
            return len(keys)
    raise StoreAway(f"lost {TRIES_MAX} races for tombstones")


def _read(wire: Wire, keys: Sequence[str], *, source: Sequence[str], target: Sequence[str]) -> list[_Stone]:
    shard_of = {prefix: shard for shard, prefix in enumerate(source)}
    lives_s = good(wire.exchange([("TTL", key) for key in keys]))
    found: list[_Stone] = []
    for key, blob, ttl_s in zip(keys, wire.mget(keys), lives_s, strict=True):
        prefix, _, name = key.rpartition("f:")
        if not blob or prefix not in shard_of:  # gone by now; of another number of shards
            continue
        until_ms = _unpacked(blob).until_ms
        shards = names.carried_to(shard_of[prefix], old=len(source), new=len(target))
        found += [_Stone(target[shard], name, until_ms, max(ttl_s, 1)) for shard in shards]
    return found


def _calls(wire: Wire, stones: Sequence[_Stone]) -> Mapping[str, list[str | bytes | int]]:
    """The arguments of carry.lua by KEYS[1], for those that are remembered until an earlier time, or not at all."""
    calls: dict[str, list[str | bytes | int]] = {}
    held = wire.mget([f"{stone.prefix}f:{stone.name}" for stone in stones])
    for stone, blob in zip(stones, held, strict=True):
        known = _unpacked(blob)
        if known.until_ms < stone.until_ms:
            later = tombstone.pack(known.later(stone.until_ms))
            args = calls.setdefault(f"{stone.prefix}hwm", [names.mark_field("u", CARRIED)])
            args += (stone.name, blob, later, stone.ttl_s)
    return calls


def _unpacked(blob: bytes) -> Tombstone:
    try:
        return tombstone.unpack(blob)
    except ValueError as error:
        raise StateForeign(f"a tombstone: {error}") from None
