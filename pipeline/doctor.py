"""What the doctor looks at: broker, topics, log identity, Redis, state, model, lag, clock. It only reads.

A check says `ok`, `note` (works, but you may want to know) or `wrong`, and what is not ok comes with its mend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from features.schema import INPUT_TOPICS
from features.store.port import Part, StateForeign, StoreAway, StoreRefused
from pipeline import models
from pipeline.config import ConfigError, Settings
from pipeline.doctor_redis import RedisSide
from pipeline.finding import Finding
from pipeline.kafka.access import RIGHTS, missing_rights, refusal
from pipeline.kafka.clients import confluent
from pipeline.kafka.log_identity import identities
from pipeline.kafka.reading import Reader
from pipeline.kafka.topics import check, load_topics
from pipeline.model_control import named, shadow_of
from recommender.model.artefact import ModelRefused
from recommender.model.registry import open_version

LAG_NOTED = 1_000
ANSWER_S = 5.0
CLOCK = "message.timestamp.type = CreateTime"
CLOCK_MEND = (
    "kafka-configs --alter --entity-type topics --entity-name TOPIC --add-config message.timestamp.type=LogAppendTime"
)
MODEL_MEND = "`headrace models list` says more; `models rollback`, or train one with these settings"


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; one that cannot be made says why, and the others go on."""
    with RedisSide(settings) as state:
        yield from _examined(settings, state)


def _examined(settings: Settings, state: RedisSide) -> Iterator[Finding]:
    admin = AdminClient(confluent(settings.kafka))
    yield from _guarded("configuration", lambda: configuration(settings))
    yield from _guarded("redis", state.servers)
    yield from _guarded("permissions", state.permissions)
    yield from _guarded("state", state.state)
    answers = list(_guarded("broker", lambda: broker(admin, settings)))
    yield from answers
    of_the_broker: dict[str, Callable[[], Iterator[Finding]]] = {
        "rights": lambda: rights(settings),
        "topics": lambda: topics(admin, settings),
        "log identity": lambda: state.binding(identities(admin, _inputs(settings))),
        "lag": lambda: lag(settings, state),
        "model": lambda: model(settings),
    }
    for name, look in of_the_broker.items():
        if any(finding.status == "wrong" for finding in answers):  # each would wait out its own time limit
            yield Finding(name, "wrong", "not examined: the broker does not answer", "mend the broker first")
        else:
            yield from _guarded(name, look)
    yield from _guarded("clock", state.clock)


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
    """Whether the topics are as declared. What differs in configuration only is a note: the worker runs all the same;
    but where inputs carry the producers' clocks, a wrong one spoils windows.
    """
    found = check(admin, load_topics(prefix=settings.kafka.topic_prefix))
    for name, lines in found.items():
        if not lines:
            continue
        said = f"{name}: {'; '.join(lines)}"
        if any("missing" in line for line in lines):
            yield Finding("topics", "wrong", said, "`headrace topics create`")
        elif name in _inputs(settings) and any(CLOCK in line for line in lines):
            yield Finding("topics", "wrong", said, CLOCK_MEND)
        else:
            yield Finding("topics", "note", said, "deploy/topics.toml says why it matters")
    if same := sum(not lines for lines in found.values()):
        yield Finding("topics", "ok", f"{same} of {len(found)} are as deploy/topics.toml declares them")


def lag(settings: Settings, state: RedisSide) -> Iterator[Finding]:
    """How far the workers are behind, and whether state and log still overlap."""
    behind = 0
    with Reader(settings.kafka, group=settings.kafka.group) as reader:
        for topic in _inputs(settings):
            ranges = reader.ranges(topic)
            committed = reader.committed(topic, list(ranges))
            for partition, held in ranges.items():
                at = committed.get(partition)
                behind += max(0, held.end - (held.start if at is None else at))
                yield from state.overlap(Part(topic, partition), held)
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


def _inputs(settings: Settings) -> list[str]:
    return [settings.kafka.topic_prefix + topic for topic in INPUT_TOPICS]


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; what keeps it from looking is a finding too."""
    try:
        yield from look()
    except KafkaException as error:
        yield Finding(name, "wrong", f"the broker: {error.args[0].str()}", "is kafka.bootstrap right, is it up?")
    except TimeoutError:
        yield Finding(name, "wrong", "the broker: no answer to one of the questions", "ask again; is all of it up?")
    except StoreAway as error:
        yield Finding(name, "wrong", f"Redis: {error}", "is redis.url right (rediss:// for TLS), is it up?")
    except (ConfigError, StateForeign, StoreRefused) as error:
        yield Finding(name, "wrong", str(error), "see the message")
