"""The wire to a Redis or Valkey Cluster: one steady connection a node, commands grouped by the owner of their slot.

redis-py's own cluster client costs two to three times as much a micro-batch. All keys of a shard share a slot, so an
exchange is one packed write a node, and an MGET becomes one for each shard.

A command that was answered MOVED was not executed: the slot map is read again, and just those commands are sent again.
Whatever else goes wrong (a node is away, a slot has no owner, a slot is just being moved) makes the whole exchange fail
with the cause; the next one reads the map first, from another node each time, and so follows a fail-over as soon as the
cluster has decided it. Calls that other nodes had executed by then show in their marks.

While a slot is moved key by key (Redis; Valkey before 9 and where it is asked to) its shard waits: a script that ran
into a key that has left already would stop half-way. `apply_*.lua` look for that before they write; see there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from features.store.layout import SLOTS, slot
from features.store.redis_url import Host
from features.store.redis_wire import MGET_MAX, Command, Node

ROUNDS_MAX = 4  # maps that one exchange follows; a slot that moves more often is a cluster that argues
TRIED_MAX = 8  # nodes that are asked for the map, one after the other


@dataclass(frozen=True, slots=True)
class Map:
    """Who owns what: `owners` by slot, None where nobody does; all masters, and all nodes with their replicas."""

    owners: Sequence[Host | None]
    masters: tuple[Host, ...]
    members: tuple[Host, ...]


class Cluster:
    """`Wire` over all masters. `seeds`: nodes to ask first. Not for use by two threads at once."""

    def __init__(self, seeds: Sequence[Host], connect: Callable[[Host], Node]) -> None:
        self._seeds = tuple(seeds)
        self._connect = connect
        self._nodes: dict[Host, Node] = {}
        self._map: Map | None = None
        self._members: tuple[Host, ...] = ()  # of the last map: who is asked for the next
        self._turn = 0
        self._slots: dict[str, int] = {}  # by hash tag; there is one a shard

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        waiting: Sequence[int] = range(len(commands))
        for _ in range(ROUNDS_MAX):
            try:
                waiting = self._round(commands, waiting, replies)
            except BaseException:
                self._forget_map()
                raise
            if not waiting:
                break
            self._map = None
        return replies

    def mget(self, keys: Sequence[str]) -> list[bytes]:
        by_tag: dict[str, list[int]] = {}
        for at, key in enumerate(keys):
            by_tag.setdefault(_tag(key), []).append(at)
        groups = [ats[start : start + MGET_MAX] for ats in by_tag.values() for start in range(0, len(ats), MGET_MAX)]
        blobs = [b""] * len(keys)
        found = self.exchange([("MGET", *[keys[at] for at in group]) for group in groups])
        for group, reply in zip(groups, found, strict=True):
            if isinstance(reply, Exception):
                raise reply
            for at, blob in zip(group, reply, strict=True):
                blobs[at] = blob or b""
        return blobs

    def load(self, script: str) -> None:
        for node in self._masters():
            node.load(script)

    def scan(self, pattern: str) -> list[str]:
        return sorted({key for page in self.pages(pattern) for key in page})

    def pages(self, pattern: str) -> Iterator[list[str]]:
        """Fails in the end where a slot has another owner than in the beginning: its keys may have been missed."""
        begun = self._current().owners
        for node in self._masters():
            yield from node.pages(pattern)
        self._map = None
        if self._current().owners != begun:
            raise redis.exceptions.ConnectionError("slots moved while their keys were listed")

    def facts(self) -> Mapping[str, Mapping[str, str]]:
        known: dict[str, Mapping[str, str]] = {}
        for host in self._current().members:
            node = self._node(host)
            try:
                known |= node.facts()
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
                known[node.address] = {"away": str(error)}
        return known

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def _round(self, commands: Sequence[Command], waiting: Iterable[int], replies: list[Any]) -> list[int]:
        """Sends the commands at the places `waiting` and puts their replies; returns the places answered MOVED."""
        groups: dict[Host, list[int]] = {}
        for at in waiting:
            groups.setdefault(self._owner(commands[at]), []).append(at)
        for host, ats in groups.items():
            self._node(host).send([commands[at] for at in ats])
        moved = []
        for host, ats in groups.items():
            for at, reply in zip(ats, self._node(host).receive(len(ats)), strict=True):
                replies[at] = reply
                if isinstance(reply, redis.exceptions.MovedError):
                    moved.append(at)
                elif isinstance(reply, _MAP_CHANGES):
                    self._map = None
        return moved

    def _owner(self, command: Command) -> Host:
        tag = _tag(command[3] if command[0] == "EVALSHA" else command[1])
        number = self._slots.get(tag)
        if number is None:
            number = self._slots[tag] = slot(tag)
        owner = self._current().owners[number]
        if owner is None:
            raise redis.exceptions.ConnectionError(f"nobody in the cluster owns slot {number}")
        return owner

    def _masters(self) -> list[Node]:
        return [self._node(host) for host in self._current().masters]

    def _node(self, host: Host) -> Node:
        node = self._nodes.get(host)
        if node is None:
            node = self._nodes[host] = self._connect(host)
        return node

    def _current(self) -> Map:
        if self._map is None:
            self._map = self._read_map()
            self._members = self._map.members
            for host in self._nodes.keys() - set(self._map.members):
                self._nodes.pop(host).close()
        return self._map

    def _forget_map(self) -> None:
        """After a failure. Every connection is closed: a reply that is still under way answers nobody else."""
        self.close()
        self._map = None

    def _read_map(self) -> Map:
        """The map as the first of the known nodes tells it that answers; the turn to be asked goes round."""
        known = list(dict.fromkeys((*self._members, *self._seeds)))
        self._turn += 1
        first = self._turn % len(known)
        trouble: Exception | None = None
        for host in (known[first:] + known[:first])[:TRIED_MAX]:
            try:
                return slot_map(self._node(host).one("CLUSTER", "SLOTS"), asked=host)
            except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
                raise  # no other node would answer otherwise
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
                self._node(host).close()
                trouble = error
        raise trouble or redis.exceptions.ConnectionError("no node of the cluster is known")


# A slot being moved, or a cluster that is down, gets another map before long.
_MAP_CHANGES = (redis.exceptions.AskError, redis.exceptions.TryAgainError, redis.exceptions.ClusterDownError)


def slot_map(ranges: Sequence[Any], *, asked: Host) -> Map:
    """CLUSTER SLOTS, read. A node that does not know its own address has the one that was asked.

    >>> found = slot_map([[0, 8191, [b"", 7000, b"id"]], [8192, 16383, [b"10.0.0.2", 7001, b"id"]]], asked=("a", 1))
    >>> found.owners[0], found.owners[16383]
    (('a', 7000), ('10.0.0.2', 7001))
    """
    owners: list[Host | None] = [None] * SLOTS
    masters: dict[Host, None] = {}
    members: dict[Host, None] = {}
    for first, last, *nodes in ranges:
        hosts = [((name or b"").decode() or asked[0], int(port)) for name, port, *_ in nodes]
        masters[hosts[0]] = None
        members |= dict.fromkeys(hosts)
        owners[first : last + 1] = [hosts[0]] * (last + 1 - first)
    return Map(owners, tuple(masters), tuple(members))


def _tag(key: str) -> str:
    """What decides a key's slot: all keys of the store begin with their `{tag}`."""
    return key[1 : key.index("}")]
