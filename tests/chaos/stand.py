"""Where a run happens: servers, topics and workers of its own, as processes that end with this one, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from features.schema import INPUT_TOPICS
from pipeline import child
from pipeline.config import Kafka, Model, Recommend, Redis, Settings, Worker
from pipeline.demo.settings import toml
from pipeline.kafka.topics import create, load_topics
from tests.chaos.proxy import Proxy
from tests.chaos.servers import BrokerServer, RedisServer, start_broker, start_redis
from tests.chaos.traffic import ACTIONS, ATTRIBUTES, Shape
from tests.second_broker import SecondBroker

APP = "chaos"
PREFIX = "chaos."
SESSION_MS = 3_000  # Apache Kafka counts a dead worker as a member for so long; 100 kills at its 6 s are 10 minutes
QUICK_DEATHS_MAX = 8  # a worker that ends by itself so often in a row, each within QUICK_S of its start, cannot live
QUICK_S = 15.0
BROKERS = ("apache", "embedded")
REDISES = ("embedded", "redis7", "cluster")


class StandBroken(RuntimeError):
    """The run cannot go on: a worker that cannot live, a server that ended by itself; the message has its last lines."""


def _same(settings: Settings) -> Settings:
    return settings


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario wants of the stand. `settings` is laid over the worker's own; `prepare` is called when the servers
    run, before there are topics and workers. `backlog_max` bounds the
    records that are published but not applied, `lead_max` those beyond the point where the next fault falls.
    """

    workers: int = 1
    settings: Callable[[Settings], Settings] = _same
    prepare: Callable[[Stand], None] | None = None
    brokers: tuple[str, ...] = BROKERS
    redises: tuple[str, ...] = REDISES
    broker_properties: Mapping[str, str] = field(default_factory=dict)  # Apache Kafka's server.properties
    producer: Mapping[str, object] = field(default_factory=dict)  # the traffic's, in librdkafka's words
    shape: Shape = field(default_factory=Shape)
    partitions: int = 4
    replication: int = 1
    backlog_max: int = 20_000
    lacks: Callable[[], str] = lambda: ""  # what this machine lacks for it, in words
    lead_max: int = 6_000


@dataclass(slots=True)
class Slot:
    """A place for a worker. `wanted`: it is started again as soon as it is down."""

    name: str
    log: Path
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    starts: int = 0
    read_to: int = 0  # of the log, by `news`
    quick_deaths: int = 0


class Stand:
    """Owns everything that a run starts. Main thread only (see `pipeline.child`)."""

    def __init__(
        self, directory: Path, *, setup: Setup, broker: str = "apache", redis: str = "embedded", unfenced: bool = False
    ) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.setup, self.unfenced = setup, unfenced
        self.slots: list[Slot] = []
        self.environ: dict[str, str] = {}  # what workers get beside our own
        self.proxies: dict[str, Proxy] = {}  # by the line that they stand in: `redis`, `broker`
        self.second_broker: SecondBroker | None = None  # of a scenario with two
        self.own_deaths: Counter[str] = Counter()  # of workers, by code: nobody here killed them
        self._closers: list[Callable[[], None]] = []
        self._lines: list[str] = []
        try:
            self.redis: RedisServer = start_redis(redis, self.directory / "redis")
            self._closers.append(self.redis.stop)
            self.broker_properties = {"group.min.session.timeout.ms": "1000", **setup.broker_properties}
            self.broker: BrokerServer = start_broker(
                broker, self.directory / "broker", properties=self.broker_properties
            )
            self._closers.append(self.broker.stop)
            self.bootstrap_of_workers, self.redis_of_workers = self.broker.bootstrap, self.redis.url
            if setup.prepare is not None:
                setup.prepare(self)
            self.settings = self._settings()
            self.create_topics()
        except BaseException:
            self.close()
            raise

    # --- the beginning and the end

    def _settings(self) -> Settings:
        """A worker's settings. What we ourselves use goes past the proxies: `direct`."""
        settings = Settings(
            kafka=Kafka(
                bootstrap=self.bootstrap_of_workers,
                group="chaos",
                topic_prefix=PREFIX,
                session_timeout_ms=SESSION_MS,
                heartbeat_ms=500,
                commit_interval_ms=250,
                fetch_wait_ms=10 if self.broker.kind == "embedded" else 100,
            ),
            redis=Redis(url=self.redis_of_workers, app=APP, beat_ms=300),
            recommend=Recommend(candidates_max=30, k=5, served_sample=0.0),
            model=Model(directory=str(self.directory / "models")),
            worker=Worker(data_dir=str(self.directory / "var"), web_port=0, metrics_port=0, log_format="console"),
            actions=ACTIONS,
            attributes=ATTRIBUTES,
        )
        return self.setup.settings(settings)

    @property
    def direct(self) -> Settings:
        """The settings with the servers' own addresses: for the traffic, the truth and the verdict."""
        kafka = replace(self.settings.kafka, bootstrap=self.broker.bootstrap)
        return replace(self.settings, kafka=kafka, redis=replace(self.settings.redis, url=self.redis.url))

    def create_topics(self) -> None:
        """The declared topics under PREFIX; inputs with the setup's number of partitions."""
        inputs = {PREFIX + name for name in INPUT_TOPICS}
        topics = [
            replace(topic, partitions=self.setup.partitions) if topic.name in inputs else topic
            for topic in load_topics(prefix=PREFIX)
        ]
        outcome = create(self.admin(), topics, replication=self.setup.replication)
        if wrong := {name: said for name, said in outcome.items() if said != "created"}:
            raise StandBroken(f"topics could not be created: {wrong}")

    def admin(self) -> AdminClient:
        """An admin client, past the proxies."""
        return AdminClient({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})

    def on_close(self, closer: Callable[[], None]) -> None:
        """Something that `prepare` started and that is to end with the stand (before the servers do)."""
        self._closers.append(closer)

    def close(self) -> None:
        """Ends everything; safe to call twice."""
        for slot in self.slots:
            slot.wanted = False
            self._end(slot)
        while self._closers:
            self._closers.pop()()

    # --- workers

    def add_worker(self) -> Slot:
        """One more worker, started."""
        name = f"worker-{len(self.slots)}"
        slot = Slot(name, self.directory / f"{name}.log")
        self.slots.append(slot)
        self.start_worker(slot)
        return slot

    def start_worker(self, slot: Slot) -> None:
        """Starts the slot's worker."""
        config = self.directory / "worker.toml"
        fresh = config.with_suffix(".new")
        fresh.write_text(toml(self.settings))
        fresh.replace(config)  # in one moment: another worker may be reading it
        module = ["tests.chaos.unfenced"] if self.unfenced else ["pipeline"]
        argv = [sys.executable, "-m", *module, "--config", str(config), "worker"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environ = kept | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", **self.environ}
        slot.process = child.start(argv, log=slot.log, environ=environ)
        slot.started_s = time.monotonic()
        slot.starts += 1
        slot.wanted = True

    def kill_worker(self, slot: Slot) -> None:
        """Kill -9; `keep` starts it again."""
        if slot.process is not None:
            slot.process.kill()
            slot.process.wait()
            slot.process = None

    def stop_worker(self, slot: Slot, *, timeout_s: float = 20.0) -> None:
        """SIGTERM, and for good: it leaves its group in order."""
        slot.wanted = False
        if slot.process is not None:
            child.stop(slot.process, timeout_s=timeout_s)
            slot.process = None

    def keep(self) -> None:
        """Starts workers that are down and wanted. Raises `StandBroken` for what cannot live."""
        self.broker.check()
        if self.second_broker is not None:
            self.second_broker.check()
        self.redis.check()
        for slot in self.slots:
            if slot.process is not None and (code := slot.process.poll()) is not None:
                self._bury(slot, code)
            if slot.wanted and slot.process is None:
                self.start_worker(slot)

    def _bury(self, slot: Slot, code: int) -> None:
        slot.process = None
        self.own_deaths[f"code {code}"] += 1
        quick = time.monotonic() - slot.started_s < QUICK_S
        slot.quick_deaths = slot.quick_deaths + 1 if quick else 0
        if slot.quick_deaths >= QUICK_DEATHS_MAX:
            raise StandBroken(
                f"{slot.name} ended {slot.quick_deaths} times in a row\n{child.tail_of(slot.log, lines=25)}"
            )

    @staticmethod
    def _end(slot: Slot) -> None:
        if slot.process is not None:
            with suppress(ProcessLookupError):
                slot.process.kill()
            slot.process.wait()
            slot.process = None

    # --- processes in general

    @property
    def pids(self) -> dict[str, int]:
        """Every process by name: `worker-0` ..., `broker`, `second-broker`, `redis` (a cluster: `redis-0` ...)."""
        workers = {slot.name: slot.process.pid for slot in self.slots if slot.process is not None}
        second = {"second-broker": self.second_broker.pid} if self.second_broker is not None else {}
        return workers | {"broker": self.broker.pid} | second | self.redis.pids

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process by name; one that is not there gets none."""
        if (pid := self.pids.get(name)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # --- logs

    def news(self) -> list[str]:
        """The lines that the workers have logged since the last call."""
        fresh: list[str] = []
        for slot in self.slots:
            with suppress(FileNotFoundError), slot.log.open("rb") as file:
                file.seek(slot.read_to)
                text = file.read()
                whole = text.rfind(b"\n") + 1
                slot.read_to += whole
                fresh += text[:whole].decode(errors="replace").splitlines()
        return fresh

    def last_words(self, *, lines: int = 12) -> str:
        """The ends of all workers' logs, for whoever asks what is stuck."""
        return "\n".join(f"--- {slot.name}\n{child.tail_of(slot.log, lines=lines)}" for slot in self.slots)

    def note(self, name: str, content: object) -> None:
        """Keeps something beside the logs, as JSON."""
        (self.directory / name).write_text(json.dumps(content, indent=1, default=str))
