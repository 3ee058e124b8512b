"""The topic `model_control`: which version of a model serves, by its newest record; `<name>.shadow` names the shadow.

Every worker follows it with a plain consumer in a thread of its own: all partitions from the start, no group. The same
thread loads what was named, at once, off the hot path. Commands read the topic as it stands and write to it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing

import msgspec
import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from features.schema import MODEL_CONTROL, ModelControl, Refused, check_id
from pipeline import telemetry
from pipeline.config import ConfigError, Kafka
from pipeline.kafka.clients import SMALL_ANSWERS, confluent
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.reading import Reader
from pipeline.logs import get_logger
from recommender.model.artefact import ModelRefused, check_version
from recommender.model.registry import Registry, Seat
from recommender.recommend import NO_VERSION

log = get_logger(__name__)

POLL_S = 0.2
MESSAGES_MAX = 1_000
FETCH_WAIT_MS = 200  # the embedded broker sits out the whole wait: it adds itself to a swap
LOOK_EVERY_S = 30.0
ANSWER_S = 5.0
BACKOFF_S = (0.5, 5.0)
STOP_S = 2.0
REFUSED_TOLD_MAX = 20  # between two looks at the registry; all are counted


def shadow_of(model: str) -> str:
    """The name under which a model's shadow is spoken of.

    >>> shadow_of("ranker")
    'ranker.shadow'
    """
    return f"{model}.shadow"


def parse(key: bytes | None, value: bytes | None) -> tuple[str, str | None]:
    """(model, the version that was named, None for none) of a record. Raises `Refused` for one that breaks the contract.

    >>> parse(b"ranker", b'{"model": "ranker", "version": "v1", "ts_ms": 5}')
    ('ranker', 'v1')
    >>> parse(b"ranker", None)
    ('ranker', None)
    """
    name = _text("key", key)
    if value is None:
        return name, None
    try:
        record = msgspec.json.decode(value, type=ModelControl)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("$", str(error)) from None
    if record.model != name:
        raise Refused("model", f"the record's key is {name[:64]!r}, compaction goes by it")
    if record.version == NO_VERSION:
        return name, None
    try:
        check_version(record.version)
    except ModelRefused as refusal:
        raise Refused("version", refusal.reason) from None
    return name, record.version


def named(settings: Kafka) -> dict[str, str]:
    """{model: version} as the topic stands now. Raises `ConfigError` where it is missing, `KafkaException`."""
    found: dict[str, str | None] = {}
    with Reader(settings) as reader:
        for message in reader.existing(settings.topic_prefix + MODEL_CONTROL):
            try:
                found.update([parse(message.key(), message.value())])
            except Refused:
                continue  # workers count it and say so
    return {model: version for model, version in found.items() if version is not None}


def name_version(settings: Kafka, model: str, version: str | None, *, ts_ms: int) -> None:
    """Names the version of `model` that serves from now on, None: no version; returns when the broker has it.

    Raises `ConfigError` when the broker did not take it.
    """
    record = {"model": model, "version": version or NO_VERSION, "ts_ms": ts_ms}
    with Delivery(settings, linger_ms=0) as delivery:
        delivery.send(model, settings.topic_prefix + MODEL_CONTROL, key=model.encode(), value=orjson.dumps(record))
    if delivery.failed:
        why = next(iter(delivery.books[model].reasons), "no answer")
        raise ConfigError(f"the broker did not take the record for {model}: {why}; what served goes on")


class Follower:
    """Keeps a registry at what model_control names. `start` may be called again and again."""

    def __init__(self, settings: Kafka, registry: Registry, *, model: str, retry_s: float) -> None:
        """retry_s: how often what is not there, or was refused, is looked for again."""
        self._settings, self._registry, self._retry_s = settings, registry, retry_s
        self._topic = settings.topic_prefix + MODEL_CONTROL
        self._wants: dict[str, Callable[[str | None], None]] = {
            model: registry.want,
            shadow_of(model): registry.want_shadow,
        }
        self._seats: dict[str, Seat] = {"serving": registry.serving, "shadow": registry.shadowing}
        self._told: dict[str, tuple[str | None, str | None, int]] = {}
        self._trouble: str | None = None
        self._refused = 0  # records since the last look at the registry
        self._caught_up, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-control", daemon=True)

    def start(self) -> None:
        """Begins to follow, if it has not begun."""
        if not self._thread.is_alive() and not self._ending.is_set():
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Returns when what the topic names now serves or is refused, or the topic cannot be read; after `seconds` anyway."""
        self._caught_up.wait(seconds)

    def stop(self) -> None:
        """Ends the thread; one that is loading a model ends with the process."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        delay_s = BACKOFF_S[0]
        while not self._ending.is_set():
            try:
                with closing(Consumer(self._consumer_settings())) as consumer:
                    self._follow(consumer)
                delay_s = BACKOFF_S[0]
            except (KafkaException, ConfigError) as error:
                self._say(str(error.args[0].str() if isinstance(error, KafkaException) else error))
            except Exception:
                log.exception("model_control is read anew after an error")
            self._caught_up.set()  # nobody waits for what cannot be read
            self._ending.wait(delay_s)
            delay_s = min(delay_s * 2, BACKOFF_S[1])

    def _follow(self, consumer: Consumer) -> None:
        """Reads from the start and on, until told to end or until the topic has other partitions than before."""
        parts = self._partitions(consumer)
        consumer.assign([TopicPartition(self._topic, part, OFFSET_BEGINNING) for part in parts])
        behind, looked_s, refreshed_s, self._refused = set(parts), time.monotonic(), 0.0, 0
        newest: dict[str, str | None] = {}  # of a long history only the end is loaded
        while not self._ending.is_set():
            for message in self._waiting(consumer):
                if _is_end(message):
                    behind.discard(message.partition() or 0)
                else:
                    newest.update(self._read(message))
            now_s = time.monotonic()
            if not behind and (newest or now_s - refreshed_s >= self._retry_s):
                self._take(newest)
                newest, refreshed_s, self._refused = {}, now_s, 0
            if now_s - looked_s >= LOOK_EVERY_S:
                looked_s = now_s
                if self._partitions(consumer) != parts:
                    return

    def _waiting(self, consumer: Consumer) -> list[Message]:
        """What came in; waits a little for the first. `consume` with a timeout would wait for the whole batch."""
        first = consumer.poll(POLL_S)
        return [first, *consumer.consume(MESSAGES_MAX, timeout=0)] if first is not None else []

    def _partitions(self, consumer: Consumer) -> set[int]:
        found = consumer.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
        if found.error is not None or not found.partitions:
            raise ConfigError(f"{self._topic}: the broker has no such topic (`headrace topics create` makes it)")
        self._say(None)
        return set(found.partitions)

    def _read(self, message: Message) -> dict[str, str | None]:
        """What a record names, of the models that are ours."""
        try:
            model, version = parse(message.key(), message.value())
        except Refused as refused:
            telemetry.CONTROL_REFUSED.inc()
            self._refused += 1
            if self._refused <= REFUSED_TOLD_MAX:
                log.warning("a record on model_control is refused", offset=message.offset(), cause=str(refused))
            return {}
        return {model: version} if model in self._wants else {}

    def _take(self, newest: dict[str, str | None]) -> None:
        """Wishes what was named and sees to it, then says what changed."""
        for model, version in newest.items():
            self._wants[model](version)
        self._registry.refresh()
        self._caught_up.set()
        for role, seat in self._seats.items():
            self._tell(role, seat)

    def _tell(self, role: str, seat: Seat) -> None:
        before_version, before_cause, before_refused = self._told.get(role, (None, None, 0))
        telemetry.MODEL_REFUSED.labels(role).inc(seat.refused - before_refused)
        telemetry.MODEL_MISSING.labels(role).set(seat.version != seat.wish.version)
        if seat.version != before_version:
            telemetry.note_model(role, before_version, seat.version)
            log.info("another model", role=role, version=seat.version or NO_VERSION, before=before_version)
        if seat.cause != before_cause and seat.cause and seat.wish.version is not None:
            log.warning("the model that was named does not serve", role=role, cause=seat.cause, serving=seat.version)
        self._told[role] = (seat.version, seat.cause, seat.refused)

    def _say(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                log.warning("model_control cannot be read; what serves goes on", cause=trouble)
            else:
                log.info("model_control is read")

    def _consumer_settings(self) -> dict[str, object]:
        return {
            **confluent(self._settings),
            **SMALL_ANSWERS,
            "group.id": f"{self._settings.group}-models-{uuid.uuid4().hex[:8]}",  # asked for, never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
        }


def _is_end(message: Message) -> bool:
    """Whether it says that a partition's end was reached. Raises `KafkaException` for any other error."""
    error = message.error()
    if error is None:
        return False
    if error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)
    return True


def _text(field: str, raw: bytes | None) -> str:
    try:
        text = (raw or b"").decode()
    except UnicodeDecodeError as error:
        raise Refused(field, f"not valid UTF-8: {error.reason}") from None
    check_id(field, text)
    return text
