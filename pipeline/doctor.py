"""What the doctor looks at: broker, topics, log identity, Redis, state, model, lag, clock. It only reads.

A check says `ok`, `note` (works, but you may want to know) or `wrong`, and what is not ok comes with its mend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from features.schema import INPUT_TOPICS
from features.store import layout as names
from features.store.port import ANEW, PHASES, Part, StateForeign
from pipeline import models
from pipeline.config import ConfigError, Settings, secret
from pipeline.kafka.access import RIGHTS, missing_rights, refusal
from pipeline.kafka.clients import confluent
from pipeline.kafka.log_identity import identities
from pipeline.kafka.reading import Range, Reader
from pipeline.kafka.topics import check, load_topics
from pipeline.model_control import named, shadow_of
from recommender.model.artefact import ModelRefused
from recommender.model.registry import open_version

Status = Literal["ok", "note", "wrong"]
REDIS_VERSION_MIN = (7, 0)
MEMORY_SHARE_MAX = 0.85
CLOCK_SKEW_MS_MAX = 1_000
LAG_NOTED = 1_000
ANSWER_S = 5.0
MODEL_MEND = "`headrace models list` says more; `models rollback`, or train one with these settings"


class Finding(NamedTuple):
    """One line of the doctor's: what was looked at, how it is, what was seen, what to do."""

    check: str
    status: Status
    seen: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; one that cannot be made says why, and the others go on."""
    client = redis.Redis.from_url(
        settings.redis.url,
        password=_secret(settings),
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
    )
    admin = AdminClient(confluent(settings.kafka))
    yield from _guarded("configuration", lambda: configuration(settings))
    yield from _guarded("redis", lambda: server(client))
    yield from _guarded("state", lambda: layout(client, settings))
    answers = list(_guarded("broker", lambda: broker(admin, settings)))
    yield from answers
    of_the_broker: dict[str, Callable[[], Iterator[Finding]]] = {
        "rights": lambda: rights(settings),
        "topics": lambda: topics(admin, settings),
        "log identity": lambda: identity(admin, client, settings),
        "lag": lambda: lag(client, settings),
        "model": lambda: model(settings),
    }
    for name, look in of_the_broker.items():
        if any(finding.status == "wrong" for finding in answers):  # each would wait out its own time limit
            yield Finding(name, "wrong", "not examined: the broker does not answer", "mend the broker first")
        else:
            yield from _guarded(name, look)
    yield from _guarded("clock", lambda: clock(client))
    client.close()


def configuration(settings: Settings) -> Iterator[Finding]:
    """Whether the settings say what the events mean."""
    if not settings.actions:
        yield Finding(
            "configuration", "wrong", "no actions: every user action is a dead letter", "`headrace init DIR`, --config"
        )
        return
    words = f"{len(settings.actions)} actions, {len(settings.attributes)} attributes"
    if not any(action.trigger for action in settings.actions):
        yield Finding("configuration", "note", f"{words}, none is a trigger", "only requests are answered")
    else:
        yield Finding("configuration", "ok", words)


def broker(admin: AdminClient, settings: Settings) -> Iterator[Finding]:
    """Whether the broker answers."""
    if refused := refusal(settings.kafka, within_s=ANSWER_S):
        yield Finding("broker", "wrong", refused.said, "is kafka.bootstrap right, is it up?")
        return
    begun_s = time.monotonic()
    found = admin.list_topics(timeout=ANSWER_S)
    took_ms = (time.monotonic() - begun_s) * 1000
    yield Finding("broker", "ok", f"{settings.kafka.bootstrap}, {len(found.brokers)} brokers, {took_ms:.0f} ms")


def rights(settings: Settings) -> Iterator[Finding]:
    """Whether the broker allows what a worker does."""
    if lacking := missing_rights(settings.kafka):
        yield Finding("rights", "wrong", f"the broker does not allow {'; '.join(lacking)}", RIGHTS)
    else:
        yield Finding("rights", "ok", "a worker may read and write what it must")


def topics(admin: AdminClient, settings: Settings) -> Iterator[Finding]:
    """Whether the topics are as declared. What differs in configuration only is a note: the worker runs all the same."""
    found = check(admin, load_topics(prefix=settings.kafka.topic_prefix))
    for name, lines in found.items():
        if not lines:
            continue
        absent = any("missing" in line for line in lines)
        mend = "`headrace topics create`" if absent else "deploy/topics.toml says why it matters"
        yield Finding("topics", "wrong" if absent else "note", f"{name}: {'; '.join(lines)}", mend)
    if same := sum(not lines for lines in found.values()):
        yield Finding("topics", "ok", f"{same} of {len(found)} are as deploy/topics.toml declares them")


def server(client: redis.Redis) -> Iterator[Finding]:
    """Redis: version, role, eviction policy, memory, persistence."""
    info = client.info()
    valkey = "valkey_version" in info
    said = f"{'Valkey' if valkey else 'Redis'} {info['valkey_version'] if valkey else info['redis_version']}"
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < REDIS_VERSION_MIN:
        yield Finding("redis", "wrong", f"{said}: too old for the scripts", "Redis >= 7.0 or Valkey")
    if info["role"] != "master":
        yield Finding("redis", "wrong", f"{said} is a {info['role']}", "redis.url must name the primary")
    policy = info.get("maxmemory_policy", "noeviction")  # what a hosted Redis does not tell is taken for right
    if policy != "noeviction":
        yield Finding(
            "redis", "wrong", f"maxmemory-policy {policy}: evictions break exactness silently", "set it to noeviction"
        )
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    if most and used > MEMORY_SHARE_MAX * most:
        yield Finding("redis", "wrong", f"{used / most:.0%} of maxmemory: full pauses everything", "more maxmemory")
    if not int(info.get("aof_enabled", 1)):
        yield Finding("redis", "note", "no append-only file: a restart loses the state", "appendonly yes")
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Finding("redis", "wrong", "the append-only file cannot be written", "look at its disk and its log")
    yield Finding("redis", "ok", f"{said}, {used / 2**20:.0f} MiB used of {f'{most / 2**20:.0f}' if most else 'all'}")


def layout(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Whether the state in Redis is one that these settings can go on with."""
    meta = _meta(client, settings)
    if not meta:
        yield Finding("state", "note", "no state yet: the first worker begins it", "nothing to do")
        return
    columns = settings.domain.columns
    generation = names.serving(meta)
    try:
        names.check_meta(meta, shards=settings.redis.shards, generation=generation, columns=columns)
    except StateForeign as error:
        yield Finding("state", "wrong", str(error), f"the former settings; else {ANEW}")
        return
    needed = ("generation", *(f"{kind}:{generation}" for kind in ("format", "shards", "columns")))
    absent = [field for field in needed if field not in meta]
    if settings.actions and not names.codes_of(meta, generation):
        absent.append("action codes")
    if absent:
        yield Finding(
            "state",
            "wrong",
            f"meta incomplete, without {', '.join(absent)}: a worker that runs now restores it",
            f"if it stays: {ANEW}",
        )
        return
    shards = meta[f"shards:{generation}"]
    yield Finding("state", "ok", f"generation {generation}, {shards} shards, columns {', '.join(columns)}")


def identity(admin: AdminClient, client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Whether the state was built from these very topics."""
    meta = _meta(client, settings)
    generation = names.serving(meta)
    input_topics = [settings.kafka.topic_prefix + topic for topic in INPUT_TOPICS]
    wrong = False
    for topic, found in identities(admin, input_topics).items():
        known = meta.get(f"log:{generation}:{topic}", found)
        if known != found:
            wrong = True
            yield Finding("log identity", "wrong", f"{topic} is {found}, the state was built from {known}", ANEW)
    if not wrong:
        yield Finding("log identity", "ok", "the state and the topics belong together")


def lag(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """How far the workers are behind, and whether state and log still overlap."""
    behind = 0
    with Reader(settings.kafka, group=settings.kafka.group) as reader:
        for topic in (settings.kafka.topic_prefix + name for name in INPUT_TOPICS):
            ranges = reader.ranges(topic)
            committed = reader.committed(topic, list(ranges))
            for partition, held in ranges.items():
                at = committed.get(partition)
                behind += max(0, held.end - (held.start if at is None else at))
                yield from _overlap(client, settings, Part(topic, partition), held)
    if behind > LAG_NOTED:
        yield Finding("lag", "note", f"{behind} records are not answered yet", "more workers, up to one per partition")
    else:
        yield Finding("lag", "ok", f"{behind} records")


def model(settings: Settings) -> Iterator[Finding]:
    """Whether the version that model_control names can serve, and the shadow score."""
    control = named(settings.kafka)
    version, shadow = control.get(settings.model.name), control.get(shadow_of(settings.model.name))
    if version is None:
        mend = "`headrace train DIR --out MODELS`, then `headrace models promote VERSION`"
        yield Finding("model", "note", "model_control names none: answers are `partial`", mend)
    for role, each in (("serving", version), ("shadow", shadow)):
        if each is not None:
            yield _loads(settings, role, each)


def _loads(settings: Settings, role: str, version: str) -> Finding:
    try:
        ranker = open_version(models.folder(settings), version, models.opener(settings))
    except ModelRefused as refusal:
        return Finding("model", "wrong", f"{role}: {version} is refused: {refusal.reason}", MODEL_MEND)
    return Finding("model", "ok", f"{role}: {ranker.version}")


def clock(client: redis.Redis) -> Iterator[Finding]:
    """Whether this machine and Redis agree about the time."""
    before_s = time.time()
    seconds, micros = client.time()
    skew_ms = (seconds + micros / 1e6 - (before_s + time.time()) / 2) * 1000
    if abs(skew_ms) > CLOCK_SKEW_MS_MAX:
        yield Finding("clock", "wrong", f"Redis's clock is {skew_ms:+.0f} ms off", "NTP on both machines")
    else:
        yield Finding("clock", "ok", f"{skew_ms:+.0f} ms between here and Redis")


def _overlap(client: redis.Redis, settings: Settings, part: Part, held: Range) -> Iterator[Finding]:
    """A state that is beyond the log's end, or before its start, cannot go on."""
    marks = _marks(client, settings, part)
    if not marks:
        return
    lowest, highest = min(marks), max(marks)
    where = f"{part.topic}-{part.partition}"
    if highest >= held.end + LAG_NOTED:  # a broker may tell an end that is a batch old
        yield Finding("lag", "wrong", f"{where}: the state is at {highest}, the log ends at {held.end}", ANEW)
    if lowest + 1 < held.start:
        yield Finding("lag", "wrong", f"{where}: the state is at {lowest}, the log begins at {held.start}", ANEW)


def _marks(client: redis.Redis, settings: Settings, part: Part) -> list[int]:
    generation = names.serving(_meta(client, settings))
    pipe = client.pipeline(transaction=False)
    for prefix in names.prefixes(settings.redis.app, generation, settings.redis.shards):
        for phase in PHASES:
            pipe.hget(f"{prefix}hwm", names.mark_field(phase, part))
    return [int(mark) for mark in pipe.execute() if mark is not None]


def _meta(client: redis.Redis, settings: Settings) -> dict[str, str]:
    raw: Any = client.hgetall(names.meta_key(settings.redis.app))
    return {field.decode(): value.decode() for field, value in raw.items()}


def _secret(settings: Settings) -> str | None:
    return secret("redis.password", settings.redis.password_file) or None


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; what keeps it from looking is a finding too."""
    try:
        yield from look()
    except KafkaException as error:
        yield Finding(name, "wrong", f"the broker: {error.args[0].str()}", "is kafka.bootstrap right, is it up?")
    except redis.RedisError as error:
        yield Finding(name, "wrong", f"Redis: {error}", "is redis.url right, is it up?")
    except (ConfigError, StateForeign) as error:
        yield Finding(name, "wrong", str(error), "see the message")
