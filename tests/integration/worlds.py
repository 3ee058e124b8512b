"""A world for one test: topics of its own, a worker's settings, workers as processes, and what came out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from features import schema
from features.digest import digest
from features.schema import Recommendation
from features.store.port import Part
from features.store.redis import RedisStore
from features.store.redis_generations import Generations
from features.store.redis_wire import Wire
from pipeline.config import Kafka, Settings, load
from pipeline.kafka.reading import Reader
from pipeline.kafka.slices import LogRecord
from pipeline.kafka.topics import create, load_topics
from pipeline.reading import Reading, read
from pipeline.redis_login import wire
from recommender.replay import Replayer
from tests.integration.artefacts import write_version

TOML = """
user_retention_days = 90
[kafka]
bootstrap = "{bootstrap}"
group = "{name}"
topic_prefix = "{prefix}"
fetch_wait_ms = 10
commit_interval_ms = 250
[redis]
url = "{redis_url}"
app = "{name}"
beat_ms = 300
[recommend]
candidates_max = 50
[overload]
deadline_ms = 86_400_000
[model]
directory = "{directory}/models"
[worker]
web_port = 0
metrics_port = {metrics_port}
log_format = "console"
data_dir = "{directory}/var"
[[actions]]
name = "view"
[[actions]]
name = "buy"
weight = 5.0
purchase = true
trigger = false
"""


@dataclass
class World:
    """Ends its workers; the servers are shared."""

    bootstrap: str
    redis_url: str
    directory: Path
    name: str
    metrics_port: int = 0
    workers: list[subprocess.Popen] = field(default_factory=list)
    sent: dict[str, dict[tuple[int, int], LogRecord]] = field(default_factory=dict)

    def __post_init__(self):
        self.prefix = f"{self.name}."
        self.config = self.directory / "worker.toml"
        self.config.write_text(TOML.format(**vars(self)))
        self.settings: Settings = load(self.config, {})
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        assert set(create(admin, load_topics(prefix=self.prefix)).values()) == {"created"}
        self.producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                "message.max.bytes": 16_777_216,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
            }
        )

    def configure(self, more: str) -> None:
        """Adds to the settings of workers to come."""
        self.config.write_text(self.config.read_text() + more)
        self.settings = load(self.config, {})

    def serve_model(self, version: str = "v1") -> None:
        """A small ranker of random rows, which serves as soon as a worker has read of it."""
        write_version(self.settings, version)
        record = {"model": "ranker", "version": version, "ts_ms": now_ms()}
        self.publish("model_control", [("ranker", json.dumps(record).encode())])

    # --- workers

    def start(self) -> subprocess.Popen:
        log = (self.directory / f"worker-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "--config", str(self.config), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        log.close()
        self.workers.append(worker)
        return worker

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("worker-*.log")))

    def wait_for_log(self, text: str, *, within_s: float = 60, times: int = 1) -> None:
        wait(lambda: self.logs().count(text) >= times, within_s, lambda: f"no {text!r} in\n{self.logs()}")

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as page:
            return page.read().decode()

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        self.producer.flush(5)

    # --- in

    def publish(self, topic: str, records: Iterable[tuple[str | None, bytes | None]], *, partition: int = -1) -> None:
        """Sends (key, value) records; where each lies in the log is noted in `sent`."""
        noted = self.sent.setdefault(topic, {})

        def report(error, message):
            assert error is None, error
            at = message.partition(), message.offset()
            noted[at] = LogRecord(message.offset(), message.timestamp()[1], message.key(), message.value())

        for key, value in records:
            while True:
                try:
                    self.producer.produce(
                        self.prefix + topic,
                        value,
                        key,
                        on_delivery=report,
                        **({"partition": partition} if partition >= 0 else {}),
                    )
                    break
                except BufferError:
                    self.producer.poll(0.1)
            self.producer.poll(0)
        assert self.producer.flush(20) == 0

    def recreate(self, topic: str) -> None:
        """Deletes a topic and creates it again under the same name."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        admin.delete_topics([self.prefix + topic])[self.prefix + topic].result(10)
        declared = [each for each in load_topics(prefix=self.prefix) if each.name == self.prefix + topic]
        assert set(create(admin, declared).values()) == {"created"}

    # --- out

    def messages(self, topic: str) -> list[Message]:
        """Everything in an output topic now."""
        with Reader(Kafka(bootstrap=self.bootstrap)) as reader:
            return list(reader.existing(self.prefix + topic))

    def recommendations(self) -> list[Recommendation]:
        return [
            msgspec.json.decode(message.value(), type=Recommendation)
            for message in self.messages(schema.RECOMMENDATIONS)
        ]

    def dead(self) -> dict[tuple[str, int, int], dict[str, bytes]]:
        """{(source topic, partition, offset): headers and value}."""
        letters = {}
        for message in self.messages(schema.DEAD_LETTERS):
            headers = dict(message.headers())
            at = headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])
            letters[at] = {**headers, "value": message.value(), "key": message.key()}
        return letters

    def unanswered(self) -> set[tuple[str, int, int]]:
        """(user, partition, offset) of triggering actions without an answer at the same or a later offset."""
        newest: dict[tuple[str, int], int] = {}
        for answer in self.recommendations():
            if answer.trigger is not None and answer.request_id is None:
                at = answer.user_id, answer.trigger.partition
                newest[at] = max(newest.get(at, -1), answer.trigger.offset)
        open_ones = set()
        for (partition, offset), record in self.sent.get(schema.USER_ACTIONS, {}).items():
            for ask in self.read(schema.USER_ACTIONS, partition, record).asks:
                if newest.get((ask.record.user_id, partition), -1) < offset:
                    open_ones.add((ask.record.user_id, partition, offset))
        return open_ones

    def wait_until_answered(self, *, within_s: float = 90) -> None:
        wait(
            lambda: not self.unanswered(),
            within_s,
            lambda: f"{sorted(self.unanswered())[:5]} unanswered\n{self.logs()[-4000:]}",
        )

    def read(self, topic: str, partition: int, record: LogRecord) -> Reading:
        """The record as a worker reads it."""
        actions = {action.name: action for action in self.settings.actions}
        return read(topic, Part(topic, partition), [record], actions=actions, answer_from=0)

    # --- state

    def store(self) -> RedisStore:
        return RedisStore(
            self.redis_url, app=self.name, shards=self.settings.redis.shards, timeout_ms=self.settings.redis.timeout_ms
        )

    def opened(self) -> RedisStore:
        """The workers' store, open."""
        store = self.store()
        store.open(self.settings.domain)
        return store

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        """To the workers' Redis, be it one server or a cluster."""
        made = wire(self.settings.redis)
        yield made
        made.close()

    def keys(self, generation: int | None = None) -> list[str]:
        """What Redis holds of this world, or of one generation of its state."""
        with self.wire() as redis:
            return redis.scan(f"*:{self.name}:{generation}:*" if generation else f"*:{self.name}:*")

    def meta(self) -> dict[str, str]:
        """What `meta` says."""
        with self.wire() as redis:
            return dict(Generations(redis, app=self.name).look().meta)

    def empty_redis(self) -> None:
        """Everything of this world is gone."""
        keys = self.keys()
        with self.wire() as redis:
            redis.exchange([("UNLINK", key) for key in keys])

    def counts(self) -> dict[str, int]:
        store = self.opened()
        counts = {key.replace(self.prefix, ""): value for key, value in store.counts().items()}
        store.close()
        return counts

    def digest(self) -> str:
        store = self.store()
        layout = store.open(self.settings.domain)
        found = digest(store, layout, self.settings.domain)
        store.close()
        return found

    def replayed_digest(self) -> str:
        """The digest of everything sent, applied in memory, one partition after the other."""
        replayer = Replayer(self.settings.domain)
        for topic in (schema.ITEMS, schema.IMPRESSIONS, schema.USER_ACTIONS):
            for (partition, _), record in sorted(self.sent.get(topic, {}).items()):
                (fact,) = self.read(topic, partition, record).facts
                replayer.feed(topic, fact.record)
        replayer.settle()
        return replayer.digest()


def wait(done: Callable[[], bool], within_s: float, why: Callable[[], str]) -> None:
    until = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < until, why()
        time.sleep(0.1)


def action(event: str, user: str, item: str, *, name: str = "view", ts_ms: int | None = None) -> tuple[str, bytes]:
    """(key, value) of a user action, now unless told."""
    record = {"event_id": event, "user_id": user, "item_id": item, "action": name, "ts_ms": ts_ms or now_ms()}
    return user, json.dumps(record).encode()


def traffic(count: int, *, seed: str = "e", users: int = 40, items: int = 60) -> list[tuple[str, bytes]]:
    """Users who wander over neighbouring items; every seventh action buys."""
    start = now_ms() - count * 10
    return [
        action(
            f"{seed}{n}",
            f"u{n * 7 % users}",
            f"i{(n * 7 % users + n // users) % items}",
            name="buy" if n % 7 == 0 else "view",
            ts_ms=start + n * 10,
        )
        for n in range(count)
    ]


def now_ms() -> int:
    return time.time_ns() // 1_000_000
