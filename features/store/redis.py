"""The store in Redis or Valkey (>= 7.0): three scripts, few big commands, every write under a fence.

One phase of a micro-batch is one pipeline with one script call a shard. redis-py's own retries are off: it would send
a whole pipeline again after a lost reply. A call that was applied unnoticed shows in its mark, and `features/state.py`
goes on from there. Scripts derive their keys from KEYS[1], whose hash tag they share: one slot, and a third of the
bytes. Whatever says "not now" (no connection, loading, full, read-only, failed save) becomes `StoreAway` with the cause.

Commands of the steady state go over one connection of the client, kept for good: its pool and pipelines cost 45 us a
command and 120 us a pipeline of 16, which is a third of a small micro-batch.

For a cluster, subclass and override `_connect`, `_exchange`, `_mget` and `_scan_keys`: everything else touches one slot
a command.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.domain import Domain
from features.ids import hash64
from features.item_ops import value_name
from features.store import layout as names
from features.store.port import (
    ANEW,
    PHASES,
    Beat,
    ItemCall,
    Layout,
    Part,
    Phase,
    Reply,
    StateForeign,
    StoreAway,
    UserCall,
)

MISSING = -2
MGET_MAX = 2_000
SCAN_COUNT = 5_000
_NOT_NOW = ("OOM", "READONLY", "LOADING", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS")
_OP = struct.Struct(">c16sI")
_NO_KEY = "0" * 16


class Script:
    """A script and its name in the server's cache."""

    def __init__(self, file: str) -> None:
        self.text = (files("features.store") / file).read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


APPLY_USERS = Script("apply_users.lua")
APPLY_ITEMS = Script("apply_items.lua")
BEAT = Script("beat.lua")

Call = tuple[str, Sequence[Any]]  # KEYS[1], ARGV


class RedisStore:
    """`FeatureStore` over one Redis. `url`: redis://, rediss:// or unix://. Not for use by two threads at once."""

    def __init__(
        self,
        url: str,
        *,
        app: str = "headrace",
        shards: int = 16,
        timeout_ms: int = 2_000,
        generation: int | None = None,
        password: str | None = None,
    ) -> None:
        self._app = app
        self._count = shards
        self._generation = generation
        self._prefixes: tuple[str, ...] = names.prefixes(app, generation or 1, shards)
        self._redis = self._connect(url, timeout_ms / 1000, password)
        self._connection: Any = None
        self._settled: dict[str, str] = {}  # what was opened and bound: fields of `meta`
        self._user_ttl_s = self._item_ttl_s = 0
        self._columns = 0
        self._weights = b""

    def _connect(self, url: str, timeout_s: float, password: str | None) -> Any:
        secret = {"password": password} if password else {}
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # replies as `read_top` takes them
            **secret,
        )

    def begun(self) -> bool:
        with _answering():
            return bool(self._redis.exists(names.meta_key(self._app)))

    def open(self, domain: Domain) -> Layout:
        with _answering():
            meta = self._settle_meta(domain)
        generation = self._generation or 1
        self._settled.update(names.fixed_by(meta, generation))
        self._prefixes = names.prefixes(self._app, generation, self._count)
        self._user_ttl_s = names.ttl_s(domain.user_retention_ms)
        self._item_ttl_s = names.ttl_s(domain.item_retention_ms)
        self._columns = len(domain.columns)
        weights = names.weights(domain)
        self._weights = struct.pack(f">{len(weights)}d", *weights)
        return names.layout_of(domain, meta, shards=self._count, generation=generation)

    def _settle_meta(self, domain: Domain) -> dict[str, str]:
        """Every field is written once, by whoever is first: workers may start together."""
        key = names.meta_key(self._app)
        meta = self._meta()
        if self._generation is None:
            self._generation = int(meta.get("generation", "1"))
        generation = self._generation
        names.check_meta(meta, shards=self._count, generation=generation, columns=domain.columns)
        fixed = {"format": names.FORMAT, "shards": str(self._count), "generation": str(generation)}
        for field, value in {**fixed, f"columns:{generation}": names.columns_text(domain.columns)}.items():
            self._redis.hsetnx(key, field, value)
        meta = self._meta()
        names.check_meta(meta, shards=self._count, generation=generation, columns=domain.columns)
        for action in domain.actions:
            while action.name not in (codes := names.codes_of(meta, generation)):
                self._redis.hsetnx(key, f"action:{generation}:{names.free_code(codes)}", action.name)
                meta = self._meta()
        return meta

    def _meta(self) -> dict[str, str]:
        raw = self._redis.hgetall(names.meta_key(self._app))
        return {field.decode(): value.decode() for field, value in raw.items()}

    def bind_log(self, topic: str, identity: str) -> None:
        field = f"log:{self._generation or 1}:{topic}"
        with _answering():
            self._redis.hsetnx(names.meta_key(self._app), field, identity)
            known = self._redis.hget(names.meta_key(self._app), field).decode()
        if known != identity:
            raise StateForeign(f"the state was built from another log of {topic}: {known}, not {identity}; {ANEW}")
        self._settled[field] = identity

    def _restore_meta(self) -> None:
        """Puts back what Redis lost of `meta`; before any mark, so that a mark never stands without its layout."""
        if not self._settled:
            return
        with _answering():
            lost = names.lost_fields(self._settled, self._meta())
            if not lost:
                return
            for field, value in {**lost, "generation": str(self._generation or 1)}.items():
                self._redis.hsetnx(names.meta_key(self._app), field, value)
            names.lost_fields(self._settled, self._meta())  # another may have been faster

    def marks(self, phase: Phase, part: Part) -> NDArray[np.int64]:
        self._restore_meta()
        field = names.mark_field(phase, part)
        replies = self._pipeline([("HGET", f"{prefix}hwm", field) for prefix in self._prefixes])
        return np.array([MISSING if reply is None else int(reply) for reply in replies], np.int64)

    def begin(self, part: Part, start: int) -> None:
        self._restore_meta()
        commands: list[tuple[Any, ...]] = [
            ("HSETNX", f"{prefix}hwm", names.mark_field(phase, part), start - 1)
            for prefix in self._prefixes
            for phase in PHASES
        ]
        # `start` last: a part whose marks are not all there yet has not begun
        self._pipeline(commands)
        self._pipeline([("HSETNX", names.meta_key(self._app), self._start_field(part), start)])

    def started_at(self, part: Part) -> int | None:
        (start,) = self._pipeline([("HGET", names.meta_key(self._app), self._start_field(part))])
        return None if start is None else int(start)

    def _start_field(self, part: Part) -> str:
        return f"start:{self._generation or 1}:{part.topic}:{part.partition}"

    def commit_users(self, part: Part, calls: Sequence[UserCall]) -> list[Reply]:
        field = names.mark_field("u", part)
        return [
            _reply(reply) for reply in self._scripts(APPLY_USERS, [self._users_call(field, call) for call in calls])
        ]

    def _users_call(self, field: str, call: UserCall) -> Call:
        args: list[Any] = [field, call.prev, call.last, self._user_ttl_s, len(call.counts)]
        for counter, count in call.counts.items():
            args += (counter, count)
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
        args = [field, call.prev, call.last, self._item_ttl_s, self._columns, self._weights, b"".join(packed)]
        return f"{self._prefixes[call.shard]}hwm", args

    def beat(self, beats: Mapping[int, Sequence[Beat]]) -> list[tuple[int, Beat, int]]:
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
        with _answering():
            pipe = self._redis.pipeline(transaction=False)
            for prefix in self._prefixes:
                pipe.hgetall(f"{prefix}counts")
            replies = pipe.execute()
        for reply in replies:
            for counter, count in reply.items():
                total[counter.decode()] = total.get(counter.decode(), 0) + int(count)
        return total

    def read_users(self, users: Sequence[int]) -> list[bytes]:
        return self._read("u", users)

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

    def scan(self, kind: Literal["u", "i", "r", "g"]) -> Sequence[tuple[str, bytes]]:
        if kind == "g":
            ring = self.read_global()
            return [("", ring)] if ring else []
        generation = self._generation or 1
        keys = self._scan_keys(f"*:{self._app}:{generation}:{kind}:*")
        return [(key.rpartition(":")[2], blob) for key, blob in zip(keys, self._mget(keys), strict=True) if blob]

    def ping(self) -> Mapping[str, str]:
        with _answering():
            info = self._redis.info()
        wanted = ("redis_version", "valkey_version", "server_name", "maxmemory_policy", "maxmemory", "used_memory",
                  "aof_enabled", "aof_last_write_status", "rdb_last_bgsave_status", "role")  # fmt: skip
        return {name: str(info[name]) for name in wanted if name in info}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        self._redis.close()

    def _read(self, kind: str, keys: Sequence[int]) -> list[bytes]:
        prefixes, count = self._prefixes, self._count
        return self._mget([f"{prefixes[key % count]}{kind}:{key:016x}" for key in map(int, keys)])

    def _mget(self, keys: Sequence[str]) -> list[bytes]:
        """The values of many keys, b"" for absent ones."""
        blobs: list[bytes] = []
        for start in range(0, len(keys), MGET_MAX):
            (found,) = self._pipeline([("MGET", *keys[start : start + MGET_MAX])])
            blobs += [blob or b"" for blob in found]
        return blobs

    def _scan_keys(self, pattern: str) -> list[str]:
        with _answering():
            return sorted({key.decode() for key in self._redis.scan_iter(match=pattern, count=SCAN_COUNT)})

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with _answering():
            return _good(self._exchange(commands))

    def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to commands sent at once; where the server gave an error, it stands in the reply's place."""
        if self._connection is None:
            self._connection = self._redis.connection_pool.make_connection()
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [_received(self._connection) for _ in commands]

    def _scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """One pipeline of script calls. A server that does not know the script gets it and those calls again."""
        with _answering():
            replies = self._send(script, calls)
            unknown = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
            if unknown:
                self._load(script)
                for at, reply in zip(unknown, self._send(script, [calls[at] for at in unknown]), strict=True):
                    replies[at] = reply
            return _good(replies)

    def _send(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        return self._exchange([("EVALSHA", script.sha, 1, key, *args) for key, args in calls])

    def _load(self, script: Script) -> None:
        self._redis.script_load(script.text)


def _reply(raw: Sequence[Any]) -> Reply:
    losers = tuple(int(user, 16) for user in raw[2]) if len(raw) > 2 else ()
    return Reply(applied=bool(raw[0]), mark=int(raw[1]), losers=losers)


def _received(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


def _good(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


@contextmanager
def _answering() -> Iterator[None]:
    """Turns what means "not now" into `StoreAway`; what is wrong for good passes through."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise StoreAway(f"{type(error).__name__}: {error}") from error
    except redis.exceptions.ResponseError as error:
        text = str(error)
        kinds = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError)
        if isinstance(error, kinds) or text.startswith(_NOT_NOW):
            raise StoreAway(f"{type(error).__name__}: {text}") from error
        raise
