"""A worker for one command alone: topics under a prefix of their own, a state of its own, one worker process over both.

Every topic has one partition, caches are never stale, and no action triggers an answer, only requests do: so whoever
publishes knows what the worker has seen (`settle`), and what an answer is about (`ask`).
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from features.digest import digest
from features.schema import (
    RECOMMENDATIONS,
    REQUESTS,
    SERVED_FEATURES,
    InputRecord,
    Item,
    Recommendation,
    RecommendationRequest,
)
from features.store.port import PHASES, Part
from features.store.redis import RedisStore
from pipeline import child
from pipeline.config import SECRETS, ConfigError, Kafka, Overload, Redis, Settings, Worker
from pipeline.demo.settings import toml
from pipeline.kafka.clients import confluent
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.topics import create, load_topics
from pipeline.redis_login import login, wire
from recommender.served import Unpacked, unpack

WAIT_S = 60.0  # a worker that does nothing for so long does nothing at all; it starts in 3 s
POLL_S = 0.005
BEAT_MS = 20  # moves the marks of shards that had nothing to do: what `settle` waits for
COMMIT_MS = 100
FETCH_WAIT_MS = 10  # Tansu sits out the whole wait
NEVER_MS = 86_400_000  # deadline and latency budget: this worker is asked for equality, not for speed
STOP_S = 10.0


class WorkerFailed(ConfigError):
    """The worker ended, or did not do what it was given; the message has the end of its log."""


class Answer(NamedTuple):
    """What came out for a request: the recommendation, and its rows as logged."""

    recommendation: Recommendation
    served: Unpacked


def private(settings: Settings, *, kafka: Kafka, redis: Redis, directory: Path) -> Settings:
    """The settings of such a worker on these servers: names that nobody else has, files below `directory`."""
    name = f"lockstep-{uuid.uuid4().hex[:8]}"
    recommend = replace(settings.recommend, freshness_ms=0, reasons=0, served_sample=0.0)
    model = replace(settings.model, directory=str(directory / "models"), poll_ms=BEAT_MS, budget_ms=NEVER_MS)
    return replace(
        settings,
        kafka=replace(
            kafka,
            group=kafka.group + name,
            topic_prefix=f"{kafka.topic_prefix}{name}.",
            fetch_wait_ms=FETCH_WAIT_MS,
            commit_interval_ms=COMMIT_MS,
        ),
        redis=replace(redis, app=name, beat_ms=BEAT_MS),
        recommend=recommend,
        overload=Overload(deadline_ms=NEVER_MS),
        model=replace(model, cascade_trees=0),
        worker=Worker(data_dir=str(directory / "var"), web_port=0, metrics_port=0, log_format="console"),
        actions=tuple(replace(action, trigger=False) for action in settings.actions),
    )


class PrivateWorker:
    """See the module; a context manager that ends the worker and takes topics and state away. Main thread only."""

    def __init__(self, settings: Settings, *, directory: Path) -> None:
        """`settings` as `private` makes them."""
        self._settings, self._directory = settings, directory
        self._sent: Counter[str] = Counter()
        self._applied: Counter[str] = Counter()
        self._store = RedisStore(
            settings.redis.url,
            app=settings.redis.app,
            shards=settings.redis.shards,
            timeout_ms=settings.redis.timeout_ms,
            login=login(settings.redis),
        )
        self._layout = self._store.open(settings.domain)  # before there are topics: a user with less rights is refused
        self._log = directory / "worker.log"
        try:
            self._create_topics()
            self._delivery = Delivery(settings.kafka, linger_ms=0)
            self._consumer = self._reader()
            config = directory / "worker.toml"
            config.write_text(toml(settings))
            argv = [sys.executable, "-m", "pipeline.cli", "--config", str(config), "worker"]
            self._process = child.start(argv, log=self._log, environ=_environ(os.environ))
        except BaseException:
            self._store.close()
            self._take_away()
            raise

    def __enter__(self) -> PrivateWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        child.stop(self._process, timeout_s=STOP_S)
        self._consumer.close()
        self._store.close()
        self._take_away()

    def publish(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Sends records to an input topic (its name in the contract), in order."""
        for record in records:
            key = record.item_id if isinstance(record, Item) else record.user_id
            value = msgspec.json.encode(record)
            self._delivery.send(topic, self._name(topic), key=key.encode(), value=value)
        self._sent[topic] += len(records)

    def settle(self) -> None:
        """Returns when the worker has applied everything that was published. Raises `WorkerFailed`."""
        self._flush()
        for topic, sent in self._sent.items():
            if self._applied[topic] < sent:
                self._wait(lambda topic=topic, sent=sent: self._mark(topic) >= sent - 1, f"{topic} is not applied")  # type: ignore[misc]
                self._applied[topic] = sent

    def ask(self, request: RecommendationRequest) -> Answer:
        """The worker's answer to a request, and the rows behind it. Raises `WorkerFailed`."""
        offset = self._sent[REQUESTS]
        self.publish(REQUESTS, [request])
        self._flush()
        answers: dict[str, Recommendation] = {}
        rows: dict[str, Unpacked] = {}

        def come() -> bool:
            for message in self._consumer.consume(100, timeout=POLL_S):
                if error := message.error():
                    raise KafkaException(error)
                if message.topic() == self._name(SERVED_FEATURES):
                    unpacked = unpack(message.value() or b"")
                    rows[unpacked.served.rec_id] = unpacked
                    continue
                answer = msgspec.json.decode(message.value() or b"", type=Recommendation)
                if answer.trigger and answer.trigger.offset == offset:
                    answers[answer.rec_id] = answer
            return bool(answers) and rows.keys() >= answers.keys()

        self._wait(come, f"no answer to {request.request_id}")
        rec_id, answer = answers.popitem()
        return Answer(answer, rows[rec_id])

    def digest(self) -> str:
        """64 hex digits of the state; call it settled."""
        return digest(self._store, self._layout, self._settings.domain)

    def _mark(self, topic: str) -> int:
        part = Part(self._name(topic), 0)
        return min(int(self._store.marks(phase, part).min()) for phase in PHASES)

    def _name(self, topic: str) -> str:
        return self._settings.kafka.topic_prefix + topic

    def _flush(self) -> None:
        self._delivery.flush()
        if self._delivery.failed:
            reasons = [reason for book in self._delivery.books.values() for reason in book.reasons] or ["no answer"]
            raise WorkerFailed(f"the broker did not take {self._delivery.failed} records: {reasons[0]}")

    def _wait(self, done: Callable[[], bool], why: str) -> None:
        until_s = time.monotonic() + WAIT_S
        while not done():
            code = self._process.poll()
            if code is not None or time.monotonic() > until_s:
                state = f"the worker ended with code {code}" if code is not None else f"nothing for {WAIT_S:.0f} s"
                raise WorkerFailed(f"{why}: {state}\n{child.tail_of(self._log)}")
            time.sleep(POLL_S)

    def _create_topics(self) -> None:
        topics = [replace(topic, partitions=1) for topic in load_topics(prefix=self._settings.kafka.topic_prefix)]
        outcome = create(AdminClient(confluent(self._settings.kafka)), topics)
        if wrong := {name: said for name, said in outcome.items() if said != "created"}:
            raise WorkerFailed(f"topics could not be created: {wrong}")

    def _reader(self) -> Consumer:
        consumer = Consumer(
            {
                **confluent(self._settings.kafka),
                "group.id": f"{self._settings.kafka.group}-answers",  # asked for, never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "fetch.max.bytes": self._settings.kafka.fetch_max_bytes,
            }
        )
        consumer.assign([TopicPartition(self._name(topic), 0, 0) for topic in (RECOMMENDATIONS, SERVED_FEATURES)])
        return consumer

    def _take_away(self) -> None:
        """Topics and keys: the servers may be somebody else's."""
        admin = AdminClient(confluent(self._settings.kafka))
        names = [topic.name for topic in load_topics(prefix=self._settings.kafka.topic_prefix)]
        for gone in admin.delete_topics(names).values():
            gone.exception(STOP_S)
        servers = wire(self._settings.redis)
        for page in servers.pages(f"*:{self._settings.redis.app}:*"):
            servers.exchange([("UNLINK", key) for key in page])
        servers.close()


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Without HEADRACE_ settings but for secrets: the worker obeys its own file alone."""
    secrets = {name: environ[name] for name in SECRETS.values() if name in environ}
    return child.without_settings(environ) | secrets | {"OMP_NUM_THREADS": "1"}
