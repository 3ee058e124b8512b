"""All state again from the topics, or first from a data set folder, into the next generation; then that one serves.

Workers answer on from the old generation meanwhile. The records are read and applied by the very rules of a worker
(`pipeline/reading.py`, `features/state.py`) under marks of their own, so a rebuild that died goes on where it stood,
and ends in the same digest. Items go first, up to their end as of now: an action should meet its item's attributes.
Then the other topics, again and again from where the last pass ended, until a pass brings next to nothing: what is left
the workers apply, by their start rule, when they have moved over.

A folder's records lie in parts of their own (`folder/<topic>`). A record that stands in the topics too is recognised by
its id, as any repeat: among the 256 newest events (64 impressions) of its user.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from features.digest import digest
from features.schema import INPUT_TOPICS, REQUESTS
from features.state import State
from features.store import layout as names
from features.store.layout import FORMAT
from features.store.port import Part, StateForeign, StateMoved
from features.store.redis import RedisStore
from features.store.redis_generations import LEASE_MS, Generations, Standing
from pipeline.app import open_store
from pipeline.carry import carry
from pipeline.config import ConfigError, Settings, require_actions
from pipeline.dataset import files
from pipeline.kafka.clients import confluent
from pipeline.kafka.log_identity import identities
from pipeline.kafka.topics import missing
from pipeline.lease import Lease
from pipeline.patience import patiently
from pipeline.refill import FOLDER, Far, Refill

Say = Callable[..., None]  # (what is done, share done from 0 to 1 or None)

GRACE_S = (
    10.0  # workers move over at their next heartbeat, within a second; an older Redis tail may still name the old one
)
GRACE_BEATS = 5
LEASE_LOOK_S = 0.5
RESTORE_S = 5.0  # workers that live put back what an emptied Redis lost of `meta` at their next heartbeat
MEMORY_LOOK_S = 2.0
MEMORY_SHARE_MAX = 0.9  # a full Redis holds the workers up


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done. `records` by topic (a folder's as folder/<topic>), those of this run; `removed`: keys."""

    came_from: int
    generation: int
    went_on: bool
    records: Counter[str]
    refused: int
    seconds: float
    digest: str  # of the generation as the flip left it; empty where it was not wanted
    removed: int
    lacking: tuple[str, ...]  # what the state before came from, and this one could not, in words


@dataclass(frozen=True, slots=True)
class Job:
    """A rebuild: what is filled from where: `topics` {name in the contract: topic}, `logs` {topic: identity}."""

    settings: Settings
    topics: Mapping[str, str]
    logs: Mapping[str, str]
    folder: Path | None
    serving: int
    generation: int
    begun_ms: int


def rebuild(
    settings: Settings,
    *,
    folder: Path | None = None,
    anew: bool = False,
    keep_old: bool = False,
    with_digest: bool = True,
    say: Say = lambda _, __=None: None,
) -> Rebuilt:
    """Builds the next generation of the state and lets it serve. See the module.

    anew: what a rebuild that died has left is thrown away. keep_old: the generation that served before stays in Redis.
    Raises `ConfigError` with the mend, `StateMoved` when another rebuild was faster or Redis lost the flip.
    """
    begun_s, begun_ms = time.monotonic(), _wall_ms()
    require_actions(settings)
    topics = {name: settings.kafka.topic_prefix + name for name in INPUT_TOPICS}
    logs = _identities(settings, list(topics.values()))
    built_for = fingerprint(settings, logs, folder)
    with _looking(settings) as generations:
        standing = _restored(generations, _free(generations, say), say)
        goes_on = not anew and standing.building is not None and standing.built_for == built_for
        generation = standing.building if goes_on and standing.building else standing.next
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        with Lease(settings, owner, standing, generation) as lease:
            if standing.building not in (None, generation):
                say(f"removing generation {standing.building}, which a rebuild left")
                _remove(generations, [standing.building], say)
            generations.remember(generation, built_for)
            job = Job(settings, topics, logs, folder, standing.serving, generation, begun_ms)
            try:
                refill, found = _fill(job, lease, with_digest=with_digest, say=say)
            except StateForeign as error:
                words = f"generation {generation}, which is being built: {error}; this one by `headrace rebuild --anew`"
                raise StateForeign(words) from error
            lease.check()
            if (now := _identities(settings, list(topics.values()))) != logs:
                changed = ", ".join(topic for topic in logs if now[topic] != logs[topic])
                raise ConfigError(f"{changed}: deleted and created again meanwhile: `headrace rebuild` once more")
            flip = partial(generations.flip, owner, instead_of=standing.serving, building=generation)
            patiently(flip, on_wait=say)
        seconds = time.monotonic() - begun_s
    grace_s = max(GRACE_S, GRACE_BEATS * settings.redis.beat_ms / 1000)
    _wait(grace_s, lambda left_s: say(f"generation {generation} serves; workers move over, {left_s:.0f} s"))
    gone = lacking(standing.meta, job, refill.begins)
    _check_flip(settings, instead_of=standing.serving, say=say)
    removed = clean(settings, keep_old=keep_old, say=say, before_ms=begun_ms)
    return Rebuilt(standing.serving, generation, goes_on, refill.records, refill.refused, seconds, found, removed, gone)


def lacking(meta: Mapping[str, str], job: Job, begins: Mapping[Part, int]) -> tuple[str, ...]:
    """In words, what the state that served came from and this one could not; `begins`: where the logs begin now."""
    found = []
    for part, began in names.starts(meta, job.serving).items():
        log = meta.get(f"log:{job.serving}:{part.topic}")
        if part.topic == job.topics[REQUESTS]:
            continue  # they ask, and change nothing
        if part.topic.startswith(FOLDER):
            found += [] if job.folder else [f"{part.topic}: the folder"]
        elif log not in (None, job.logs.get(part.topic)):
            found.append(f"{part.topic}-{part.partition}: all before the topic was created again")
        elif (begin := begins.get(part, began)) > began:
            found.append(f"{part.topic}-{part.partition}: offsets {began} to {begin - 1}")
    return tuple(found)


def clean(
    settings: Settings, *, keep_old: bool = False, say: Say = lambda _, __=None: None, before_ms: int | None = None
) -> int:
    """Deletes the keys of all generations that neither serve nor are filled by a rebuild at work; returns how many.

    What they remember of forgotten users is carried into the one that serves first, of nulls before `before_ms` (now).
    keep_old: that is all.
    """
    with _looking(settings) as generations:
        standing = patiently(generations.look, on_wait=say)
        gone = standing.leftovers
        sealed = 0
        for each in gone:
            if not keep_old:
                sealed += patiently(partial(generations.seal, each), on_wait=say)
            _carry_late(settings, each, say, before_ms=_wall_ms() if before_ms is None else before_ms)
        if keep_old:
            return 0
        if standing.building is not None and not standing.lease:
            with suppress(StateMoved):  # somebody has just gone on with it
                patiently(partial(generations.abandon, standing.building), on_wait=say)
                gone.append(standing.building)
        if gone:
            say(f"removing generation {', '.join(map(str, gone))}")
        return sealed + _remove(generations, gone, say)


def _check_flip(settings: Settings, *, instead_of: int, say: Say) -> None:
    """Raises `StateMoved` where a Redis that died right after the flip came back without it: nothing is removed then."""
    with _looking(settings) as generations:
        serving = patiently(generations.look, on_wait=say).serving
    if serving == instead_of:
        raise StateMoved(f"generation {serving} serves again: Redis lost the flip. `headrace rebuild` flips once more")


def _carry_late(settings: Settings, source: int, say: Say, *, before_ms: int) -> None:
    """What workers who had not moved over yet forgot after the rebuild looked."""
    store = open_store(settings)
    try:
        if store.begun():
            say(f"carrying what generation {source} remembers of forgotten users")
            state = State(store, settings.domain)
            patiently(partial(carry, store, state, source, before_ms=before_ms), on_wait=say)
    finally:
        store.close()


def _fill(job: Job, lease: Lease, *, with_digest: bool, say: Say) -> tuple[Refill, str]:
    """The filled generation's figures and its digest."""
    settings = job.settings
    store = open_store(settings, generation=job.generation)
    looked_s = 0.0

    def on_batch(far: Far) -> None:
        nonlocal looked_s
        lease.check()
        lease.tell(str(far))
        say(str(far), None if far.left is None else far.done / max(1, far.done + far.left))
        if time.monotonic() - looked_s > MEMORY_LOOK_S:
            _check_memory(store)
            looked_s = time.monotonic()

    try:
        state = State(store, settings.domain)
        for topic, identity in job.logs.items():
            store.bind_log(topic, identity)
        actions = {action.name: action for action in settings.domain.actions}
        refill = Refill(state, job.topics, actions, on_batch=on_batch, on_wait=say)
        refill.fill(settings.kafka, job.folder)
        say("carrying what is remembered of forgotten users")
        patiently(partial(carry, store, state, job.serving, before_ms=job.begun_ms, on_page=lease.check), on_wait=say)
        if not with_digest:
            return refill, ""
        say("the digest")
        return refill, patiently(lambda: digest(store, state.layout, settings.domain), on_wait=say)
    finally:
        store.close()


def fingerprint(settings: Settings, logs: Mapping[str, str], folder: Path | None) -> str:
    """16 hex over everything that a state follows from: format, shards, meaning of the events, logs, the folder."""
    held = (
        {topic: (path.stat().st_size, path.stat().st_mtime_ns) for topic, path in files(folder).items()}
        if folder
        else {}
    )
    facts = (FORMAT, settings.redis.shards, settings.domain, sorted(logs.items()), sorted(held.items()))
    return blake2b(msgspec.json.encode(facts), digest_size=8).hexdigest()


def _identities(settings: Settings, topics: list[str]) -> dict[str, str]:
    """Which logs these are. Also a rebuild from a folder needs them: the workers go on from the topics."""
    admin = AdminClient(confluent(settings.kafka))
    try:
        if lacking := missing(admin, topics):
            raise ConfigError(f"topics missing: {', '.join(lacking)}; `headrace topics create` makes them")
        return identities(admin, topics)
    except (KafkaException, TimeoutError) as error:
        why = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
        raise ConfigError(
            f"broker {settings.kafka.bootstrap}: {why}; a rebuild needs the topics, after a folder too"
        ) from None


@contextmanager
def _looking(settings: Settings) -> Iterator[Generations]:
    store = open_store(settings)
    try:
        yield store.generations()
    finally:
        store.close()


def _free(generations: Generations, say: Say) -> Standing:
    """How it stands once nobody holds the lease: one that died lets it go by itself. Raises `ConfigError` else."""
    told = generations.look().lease
    until_s = time.monotonic() + 2 * LEASE_MS / 1000
    while lease := (standing := generations.look()).lease:
        if lease != told or time.monotonic() > until_s:
            raise ConfigError(f"a rebuild is at work: {lease}")
        say(f"waiting whether the rebuild of {lease.split(' ')[0]} still lives")
        time.sleep(LEASE_LOOK_S)
    return standing


def _restored(generations: Generations, standing: Standing, say: Say) -> Standing:
    """How it stands once workers had time to put back what an emptied Redis lost.

    Whoever opens a state without a salt draws one, and they would go on with the one that they know.
    """
    until_s = time.monotonic() + RESTORE_S
    while "salt" not in standing.meta and time.monotonic() < until_s:
        say("no state yet: waiting whether workers put back what Redis lost")
        time.sleep(LEASE_LOOK_S)
        standing = patiently(generations.look, on_wait=say)
    return standing


def _remove(generations: Generations, which: Sequence[int | None], say: Say) -> int:
    return sum(patiently(partial(generations.remove, each), on_wait=say) for each in which if each is not None)


def _check_memory(store: RedisStore) -> None:
    """Two generations need room for two. Raises `ConfigError` before a full Redis would hold the workers up."""
    facts = store.ping()
    for name in facts:
        server, _, what = name.rpartition(" ")
        most = int(facts[name]) if what == "maxmemory" else 0
        used = int(facts.get(f"{server} used_memory", "0"))
        if most and used > MEMORY_SHARE_MAX * most:
            raise ConfigError(
                f"Redis {server} is {used / most:.0%} full, and a full one holds the workers up: more maxmemory, then "
                "`headrace rebuild` goes on; `headrace rebuild --clean` removes what it has built"
            )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _wait(seconds: float, tell: Callable[[float], None]) -> None:
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        tell(left_s)
        time.sleep(min(left_s, LEASE_LOOK_S))
