"""The store in Redis or Valkey (>= 7.0), one server or a cluster: three scripts, few big commands, writes under a fence.

One phase of a micro-batch is one pipeline with one script call a shard. A call that was applied unnoticed shows in its
mark, and `features/state.py` goes on from there. Whatever says "not now" (no connection, loading, full, read-only,
failed save) becomes `StoreAway` with the cause. Every command touches one slot: all keys of a shard share its tag.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.ids import hash64
from features.item_ops import value_name
from features.store import layout as names
from features.store import sweeps
from features.store.port import PHASES, Beat, ItemCall, Layout, Part, Phase, Reply, StoreRefused, UserCall
from features.store.redis_dial import NOBODY, Login, dial
from features.store.redis_generations import Generations
from features.store.redis_meta import Meta
from features.store.redis_permissions import lacking
from features.store.redis_replies import answering, good, pages
from features.store.redis_scripts import APPLY_ITEMS, APPLY_USERS, BEAT, SWEEP, SWEPT, Call, Script, run
from features.store.redis_tombstones import carry
from features.tombstone import name as tombstone_name

MISSING = -2
SCANNED = 1_000  # values read at once: 6 MB of full user logs
_OP = struct.Struct(">c16sI")
_NO_KEY = "0" * 16


class RedisStore:
    """`FeatureStore` over Redis. `url`: see `redis_url`. Not for use by two threads at once."""

    def __init__(
        self,
        url: str,
        *,
        app: str = "headrace",
        shards: int = 16,
        timeout_ms: int = 2_000,
        generation: int | None = None,
        login: Login = NOBODY,
    ) -> None:
        self._app = app
        self._count = shards
        self._prefixes: tuple[str, ...] = names.prefixes(app, generation or 1, shards)
        self._wire = dial(url, timeout_s=timeout_ms / 1000, login=login)
        self._meta = Meta(self._wire, app=app, shards=shards, generation=generation)
        self._user_ttl_s = self._item_ttl_s = 0
        self._columns = 0
        self._weights = b""
        self._salt = b""
        self._permitted = False

    def begun(self) -> bool:
        return self._meta.begun()

    def open(self, domain: Domain) -> Layout:
        meta = self._meta.settle(domain)
        self._prefixes = names.prefixes(self._app, self._meta.generation, self._count)
        self._salt = names.salt_of(meta)
        self._user_ttl_s = names.ttl_s(domain.user_retention_ms)
        self._item_ttl_s = names.ttl_s(domain.item_retention_ms)
        self._columns = len(domain.columns)
        weights = names.weights(domain)
        self._weights = struct.pack(f">{len(weights)}d", *weights)
        return names.layout_of(domain, meta, shards=self._count, generation=self._meta.generation)

    def bind_log(self, topic: str, identity: str) -> None:
        self._meta.bind_log(topic, identity)

    def marks(self, phase: Phase, part: Part) -> NDArray[np.int64]:
        self._meta.restore()
        field = names.mark_field(phase, part)
        replies = self._pipeline([("HGET", f"{prefix}hwm", field) for prefix in self._prefixes])
        return np.array([MISSING if reply is None else int(reply) for reply in replies], np.int64)

    def begin(self, part: Part, start: int) -> None:
        self._meta.restore()
        self._pipeline(
            [
                ("HSETNX", f"{prefix}hwm", names.mark_field(phase, part), start - 1)
                for prefix in self._prefixes
                for phase in PHASES
            ]
        )
        self._meta.remember_start(part, start)  # last: a part whose marks are not all there yet has not begun

    def started_at(self, part: Part) -> int | None:
        return self._meta.start_of(part)

    def commit_users(self, part: Part, calls: Sequence[UserCall]) -> list[Reply]:
        field = names.mark_field("u", part)
        return [
            _reply(reply) for reply in self._scripts(APPLY_USERS, [self._users_call(field, call) for call in calls])
        ]

    def _users_call(self, field: str, call: UserCall) -> Call:
        args: list[Any] = [field, call.prev, call.last, self._user_ttl_s, call.epoch]
        args += (len(call.counts), len(call.tombstones))
        for counter, count in call.counts.items():
            args += (counter, count)
        for user, tombstone in call.tombstones:
            args += (tombstone_name(user, self._salt), tombstone)
        for user, version, blob in call.puts:
            args += (b"%016x" % user, version, blob)
        return f"{self._prefixes[call.shard]}hwm", args

    def commit_items(self, part: Part, calls: Sequence[ItemCall]) -> list[Reply]:
        field = names.mark_field("i", part)
        return [
            _reply(reply) for reply in self._scripts(APPLY_ITEMS, [self._items_call(field, call) for call in calls])
        ]

    def _items_call(self, field: str, call: ItemCall) -> Call:
        packed: list[bytes] = []
        for kind, key, body in call.ops:
            packed.append(_OP.pack(kind.encode(), (key or _NO_KEY).encode(), len(body)))
            packed.append(body)
        fence = field, call.prev, call.last
        args = [*fence, self._item_ttl_s, self._columns, self._weights, b"".join(packed), call.epoch]
        return f"{self._prefixes[call.shard]}hwm", args

    def beat(self, beats: Mapping[int, Sequence[Beat]]) -> list[tuple[int, Beat, int]]:
        self._meta.check()
        shards = [shard for shard, wanted in beats.items() if wanted]
        calls: list[Call] = [
            (
                f"{self._prefixes[shard]}hwm",
                [
                    each
                    for beat in beats[shard]
                    for each in (names.mark_field(beat.phase, beat.part), beat.prev, beat.last)
                ],
            )
            for shard in shards
        ]
        missed = []
        for shard, reply in zip(shards, self._scripts(BEAT, calls), strict=True):
            for index, mark in zip(reply[::2], reply[1::2], strict=True):
                missed.append((shard, beats[shard][index], int(mark)))
        return missed

    def counts(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for reply in self._pipeline([("HGETALL", f"{prefix}counts") for prefix in self._prefixes]):
            for counter, count in zip(reply[::2], reply[1::2], strict=True):
                total[counter.decode()] = total.get(counter.decode(), 0) + int(count)
        return total

    def users(self) -> Iterator[list[int]]:
        for page in pages(self._wire, f"*:{self._app}:{self._meta.generation}:u:*"):
            yield [int(key[-16:], 16) for key in page]

    def read_users(self, users: Sequence[int]) -> list[bytes]:
        return self._read("u", users)

    def read_tombstones(self, users: Sequence[int]) -> list[bytes]:
        prefixes, count, salt = self._prefixes, self._count, self._salt
        return self._mget([f"{prefixes[user % count]}f:{tombstone_name(user, salt)}" for user in users])

    def to_sweep(self) -> dict[int, dict[int, bytes]]:
        replies = self._pipeline([("HGETALL", f"{prefix}sweep") for prefix in self._prefixes])
        return {
            shard: {
                int(user, 16): body
                for user, body in zip(reply[: 2 * names.SWEPT_MAX : 2], reply[1 : 2 * names.SWEPT_MAX : 2], strict=True)
            }
            for shard, reply in enumerate(replies)
            if reply
        }

    def sweep(self, due: Mapping[int, Mapping[int, bytes]]) -> Iterator[int]:
        yield self._swept({shard: sweeps.listed(users) for shard, users in due.items()}, due)
        tags = {prefix: shard for shard, prefix in enumerate(self._prefixes) if shard in due}
        for page in pages(self._wire, f"*:{self._app}:{self._meta.generation}:s:*"):
            yield self._swept(sweeps.by_shard(page, tags), due)
        self._scripts(SWEPT, [(f"{self._prefixes[shard]}hwm", sweeps.done(users)) for shard, users in due.items()])

    def _swept(self, items: Mapping[int, Sequence[str]], due: Mapping[int, Mapping[int, bytes]]) -> int:
        """Removes what is due from the session lists of these items, by shard."""
        calls = [
            (f"{self._prefixes[shard]}hwm", [*sweeps.wanted(due[shard]), *listed])
            for shard, listed in items.items()
            if listed
        ]
        return sum(self._scripts(SWEEP, calls)) if calls else 0

    def read_rings(self, items: Sequence[int]) -> list[bytes]:
        return self._read("i", items)

    def read_records(self, items: Sequence[int]) -> list[bytes]:
        return self._read("r", items)

    def read_sample(self) -> list[bytes]:
        listed = self._pipeline([("ZRANGE", f"{prefix}sample", 0, -1) for prefix in self._prefixes])
        records = self._mget(
            [
                f"{prefix}r:{item.decode()}"
                for prefix, items in zip(self._prefixes, listed, strict=True)
                for item in items
            ]
        )
        return [record for record in records if record]

    def read_co_visited(self, items: Sequence[int]) -> list[bytes]:
        return self._read("v", items)

    def read_sessions(self, items: Sequence[int]) -> list[bytes]:
        return self._read("s", items)

    def read_value_rings(self, values: Sequence[tuple[str, str]]) -> list[bytes]:
        return self._read("c", [hash64(value_name(*value)) for value in values])

    def read_global(self) -> bytes:
        (ring,) = self._mget([f"{self._prefixes[0]}g"])
        return ring

    def read_top(self, name: str, k: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        key = names.top_key(name)
        replies = self._pipeline([("ZRANGE", prefix + key, 0, k - 1, "REV", "WITHSCORES") for prefix in self._prefixes])
        found = [
            (float(score), int(item, 16))
            for reply in replies
            for item, score in zip(reply[::2], reply[1::2], strict=True)
        ]
        found.sort(reverse=True)
        return (
            np.array([item for _, item in found[:k]], np.uint64),
            np.array([score for score, _ in found[:k]], np.float64),
        )

    def scan(self, kind: Literal["u", "i", "r", "g"]) -> Iterator[tuple[str, bytes]]:
        if kind == "g":
            if ring := self.read_global():
                yield "", ring
            return
        with answering():
            keys = self._wire.scan(f"*:{self._app}:{self._meta.generation}:{kind}:*")
        keys.sort(key=_name)
        for at in range(0, len(keys), SCANNED):
            page = keys[at : at + SCANNED]
            yield from ((_name(key), blob) for key, blob in zip(page, self._mget(page), strict=True) if blob)

    def ping(self) -> Mapping[str, str]:
        with answering():
            servers = self._wire.facts()
        wanted = ("redis_version", "valkey_version", "server_name", "maxmemory_policy", "maxmemory", "used_memory",
                  "aof_enabled", "aof_last_write_status", "rdb_last_bgsave_status", "role")  # fmt: skip
        return {f"{address} {name}": info[name] for address, info in servers.items() for name in wanted if name in info}

    def generations(self) -> Generations:
        """The generations of this app, over this store's wire."""
        return Generations(self._wire, app=self._app)

    def carry(self, source: int, *, before_ms: int) -> Iterator[int]:
        """Adds the tombstones of generation `source` to this one's, page by page: how many lie there. `CARRIED` has to
        have begun here. Those of nulls since `before_ms` are left out. To begin again is always safe.
        """
        meta = self._meta.read()
        others = names.prefixes(self._app, source, int(meta.get(f"shards:{source}", "0")))
        for page in pages(self._wire, f"*:{self._app}:{source}:f:*"):
            with answering():
                count = carry(self._wire, page, source=others, target=self._prefixes, before_ms=before_ms)
            yield count

    def close(self) -> None:
        self._wire.close()

    def _read(self, kind: str, keys: Sequence[int]) -> list[bytes]:
        prefixes, count = self._prefixes, self._count
        return self._mget([f"{prefixes[key % count]}{kind}:{key:016x}" for key in map(int, keys)])

    def _mget(self, keys: Sequence[str]) -> list[bytes]:
        with answering():
            return self._wire.mget(keys)

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with answering():
            return good(self._wire.exchange(commands))

    def _scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        with answering():
            if not self._permitted:
                self._check_permissions()
            return run(self._wire, script, calls)

    def _check_permissions(self) -> None:
        """Before the first write: a script that lacks one in the middle would write half of a call."""
        if lacked := lacking(self._wire, self._prefixes):
            raise StoreRefused(f"Redis's user may not {', '.join(lacked)} on this app's keys (deploy/redis/users.acl)")
        self._permitted = True


def _name(key: str) -> str:
    return key.rpartition(":")[2]


def _reply(raw: Sequence[Any]) -> Reply:
    losers = tuple(int(user, 16) for user in raw[2]) if len(raw) > 2 else ()
    epoch = int(raw[3]) if len(raw) > 3 else None
    return Reply(applied=bool(raw[0]), mark=int(raw[1]), losers=losers, epoch=epoch)
