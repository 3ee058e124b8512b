"""What the doctor looks at in Redis: the servers, the state and its generations, the clock. It only reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from features.schema import REQUESTS
from features.store import layout as names
from features.store.port import ANEW, PHASES, Part, StateForeign, StoreRefused
from features.store.redis_generations import Generations, Standing
from features.store.redis_permissions import lacking
from features.store.redis_replies import answering, good
from pipeline.config import Settings
from pipeline.finding import Finding
from pipeline.kafka.reading import Range
from pipeline.redis_login import wire

REDIS_VERSION_MIN = (7, 0)
VALKEY_WHOLE_FROM = (9, 1, 2)  # takes a torn script off its append-only file; Redis 7.0.15 was seen to leave half of it
MEMORY_SHARE_MAX = 0.85
CLOCK_SKEW_MS_MAX = 1_000
BEYOND_NOTED = 1_000
ANSWER_MS = 5_000


class RedisSide:
    """Owns a connection; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wire = wire(settings.redis, timeout_ms=ANSWER_MS)
        self._generations = Generations(self._wire, app=settings.redis.app)

    def __enter__(self) -> RedisSide:
        return self

    def __exit__(self, *exc: object) -> None:
        self._wire.close()

    def servers(self) -> Iterator[Finding]:
        """Version, role, eviction policy, memory, persistence; of a cluster those of every node."""
        with answering():
            facts = self._wire.facts()
        for address, info in facts.items():
            yield from _server(f"{address}: " if len(facts) > 1 else "", info, clustered=len(facts) > 1)

    def permissions(self) -> Iterator[Finding]:
        """Whether this user may do what a worker needs, on the nodes of every shard."""
        asked = self._settings.redis
        try:
            with answering():
                lacked = lacking(self._wire, names.prefixes(asked.app, 1, asked.shards))
        except StoreRefused as refusal:
            words = f"{refusal}: enough to look, not for a worker"
            yield Finding("permissions", "note", words, "a worker's user as in deploy/redis/users.acl")
            return
        if lacked:
            words = f"Redis's user may not {', '.join(lacked)} on this app's keys: a worker stops"
            yield Finding("permissions", "wrong", words, "deploy/redis/users.acl has what a worker needs")
        else:
            yield Finding("permissions", "ok", "Redis's user may do all that a worker needs")

    def state(self) -> Iterator[Finding]:
        """Whether the state is one that these settings can go on with, and what rebuilds have left."""
        standing = self._generations.look()
        if "generation" not in standing.meta and standing.building is None:
            yield Finding("state", "note", "no state yet: the first worker begins it", "nothing to do")
            return
        yield from self._serving(standing)
        yield from self._building(standing)
        yield from _rebuilds(standing)

    def binding(self, logs: Mapping[str, str]) -> Iterator[Finding]:
        """Whether the state was built from these very logs, {topic: identity}."""
        meta = self._generations.look().meta
        generation = names.serving(meta)
        wrong = False
        for topic, found in logs.items():
            known = meta.get(f"log:{generation}:{topic}", found)
            if known != found:
                wrong = True
                yield Finding("log identity", "wrong", f"{topic} is {found}, the state was built from {known}", ANEW)
        if not wrong:
            yield Finding("log identity", "ok", "the state and the topics belong together")

    def overlap(self, part: Part, held: Range) -> Iterator[Finding]:
        """A state that is beyond the log's end, or before its start, cannot go on."""
        marks = self._marks(part)
        if not marks:
            return
        lowest, highest = min(marks), max(marks)
        where = f"{part.topic}-{part.partition}"
        if highest >= held.end + BEYOND_NOTED:  # a broker may tell an end that is a batch old
            yield Finding("lag", "wrong", f"{where}: the state is at {highest}, the log ends at {held.end}", ANEW)
        asks_only = part.topic == self._settings.kafka.topic_prefix + REQUESTS
        if lowest + 1 < held.start and not asks_only:
            yield Finding("lag", "wrong", f"{where}: the state is at {lowest}, the log begins at {held.start}", ANEW)

    def clock(self) -> Iterator[Finding]:
        """Whether this machine and Redis agree about the time."""
        with answering():
            before_s = time.time()
            facts = self._wire.facts()
        here_s = (before_s + time.time()) / 2
        told = [int(info["server_time_usec"]) for info in facts.values() if "server_time_usec" in info]
        skew_ms = max((stamp / 1e3 - here_s * 1e3 for stamp in told), key=abs, default=0.0)
        if abs(skew_ms) > CLOCK_SKEW_MS_MAX:
            yield Finding("clock", "wrong", f"Redis's clock is {skew_ms:+.0f} ms off", "NTP on both machines")
        else:
            yield Finding("clock", "ok", f"{skew_ms:+.0f} ms between here and Redis")

    def _serving(self, standing: Standing) -> Iterator[Finding]:
        meta, generation = standing.meta, standing.serving
        shards, columns = self._settings.redis.shards, self._settings.domain.columns
        try:
            names.check_meta(meta, shards=shards, generation=generation, columns=columns)
        except StateForeign as error:
            yield Finding("state", "wrong", str(error), f"the former settings; else {ANEW}")
            return
        needed = ("generation", *(f"{kind}:{generation}" for kind in ("format", "shards", "columns")))
        absent = [field for field in needed if field not in meta]
        if self._settings.actions and not names.codes_of(meta, generation):
            absent.append("action codes")
        if absent:
            lost = f"meta incomplete, without {', '.join(absent)}: a worker that runs now restores it"
            yield Finding("state", "wrong", lost, f"if it stays: {ANEW}")
            return
        if torn := self._torn(generation, shards):
            yield Finding("state", "wrong", f"{torn} shards hold half a script: they count too much", ANEW)
            return
        yield Finding("state", "ok", f"generation {generation}, {shards} shards, columns {', '.join(columns)}")

    def _building(self, standing: Standing) -> Iterator[Finding]:
        """Whether a rebuild can go on with what is being built."""
        number = standing.building
        if number is not None and (torn := self._torn(number, int(standing.meta.get(f"shards:{number}", 0)))):
            words = f"{torn} shards of generation {number}, which is being built, hold half a script"
            yield Finding("state", "wrong", words, "`headrace rebuild --anew`")

    def _torn(self, generation: int, shards: int) -> int:
        """In how many shards a script began that did not end (see `features/store/redis_scripts.py`)."""
        return sum(begun != ended for begun, ended in self._of_shards(generation, shards, "begun", "ended"))

    def _marks(self, part: Part) -> list[int]:
        generation = names.serving(self._generations.look().meta)
        fields = [names.mark_field(phase, part) for phase in PHASES]
        found = self._of_shards(generation, self._settings.redis.shards, *fields)
        return [int(mark) for pair in found for mark in pair if mark is not None]

    def _of_shards(self, generation: int, shards: int, *fields: str) -> list[list[bytes | None]]:
        """These fields of every shard's `hwm`."""
        prefixes = names.prefixes(self._settings.redis.app, generation, shards)
        with answering():
            return good(self._wire.exchange([("HMGET", f"{prefix}hwm", *fields) for prefix in prefixes]))


def _rebuilds(standing: Standing) -> Iterator[Finding]:
    """One at work, one that died, and what others left: it holds memory, and users who were forgotten since."""
    if standing.building is not None and standing.lease:
        owner, _, told = standing.lease.partition(" ")
        yield Finding(
            "state", "note", f"a rebuild fills generation {standing.building} ({owner}): {told}", "nothing to do"
        )
    elif standing.building is not None:
        yield Finding(
            "state",
            "note",
            f"a rebuild died while it filled generation {standing.building}, which still takes memory",
            "`headrace rebuild` goes on with it, `headrace rebuild --clean` removes it",
        )
    if standing.leftovers:
        left = ", ".join(map(str, standing.leftovers))
        yield Finding(
            "state",
            "note",
            f"generation {left} serves no more and still takes memory; who was forgotten since is still in it",
            "`headrace rebuild --clean` removes it",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _server(where: str, info: Mapping[str, str], *, clustered: bool) -> Iterator[Finding]:
    if "away" in info:
        yield Finding("redis", "wrong", f"{where}does not answer: {info['away']}", "is it up?")
        return
    valkey = "valkey_version" in info
    said = f"{where}{'Valkey' if valkey else 'Redis'} {info['valkey_version'] if valkey else info['redis_version']}"
    if _numbers(info["redis_version"]) < REDIS_VERSION_MIN:
        yield Finding("redis", "wrong", f"{said}: too old for the scripts", "Redis >= 7.0 or Valkey")
    if info["role"] != "master" and not clustered:
        yield Finding("redis", "wrong", f"{said} is a {info['role']}", "redis.url must name the primary")
    policy = info.get("maxmemory_policy", "noeviction")  # what a hosted Redis does not tell is taken for right
    if policy != "noeviction":
        evicts = f"{where}maxmemory-policy {policy}: evictions break exactness silently"
        yield Finding("redis", "wrong", evicts, "set it to noeviction")
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    if most and used > MEMORY_SHARE_MAX * most:
        full = f"{where}{used / most:.0%} of maxmemory: full pauses everything"
        yield Finding("redis", "wrong", full, "more maxmemory")
    if not int(info.get("aof_enabled", 1)):
        yield Finding("redis", "note", f"{where}no append-only file: a restart loses the state", "appendonly yes")
    elif info.get("aof_last_write_status", "ok") != "ok":
        broken = f"{where}the append-only file cannot be written"
        yield Finding("redis", "wrong", broken, "look at its disk and its log")
    elif not (valkey and _numbers(info["valkey_version"]) >= VALKEY_WHOLE_FROM):
        torn = (
            f"{where}unless aof-load-truncated is no, half a script that a power loss tore comes back two starts later"
        )
        yield Finding("redis", "note", torn, "set it to no; after a loss `redis-check-aof --fix` before the start")
    yield Finding("redis", "ok", f"{said}, {used / 2**20:.0f} MiB used of {f'{most / 2**20:.0f}' if most else 'all'}")
