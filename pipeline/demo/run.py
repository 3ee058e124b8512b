"""One demo from start to summary: servers, worker, traffic, training, view, and the reckoning at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from features.schema import RECOMMENDATIONS
from pipeline import child
from pipeline.config import ConfigError, Settings, forget_secrets, load
from pipeline.dataset import Writer
from pipeline.demo import completejourney, plan
from pipeline.demo.answers import Answers
from pipeline.demo.ledger import Ledger
from pipeline.demo.screen import Frame
from pipeline.demo.settings import placed, toml
from pipeline.demo.state_reader import StateReader
from pipeline.demo.stillness import Stillness
from pipeline.demo.summary import Summary, missing_of
from pipeline.demo.supervisor import Supervisor
from pipeline.demo.traffic import Traffic, producer
from pipeline.demo.trainer import Trainer
from pipeline.embedded import Servers, embedded, free_port
from pipeline.kafka.topics import create, load_topics

TICK_S = 0.1
RATE_SPAN_S = 2.0
VERSION = "demo"
# A ranker in seconds: each question costs 2 to 5 ms of CPU.
SMALL = ("--questions", "1500", "--trees", "60", "--search", "0")
STANDSTILL_S = 15.0  # a killed worker's partitions are free again after 6 to 9 s, its successor needs 3 s to join
SETTLE_S = 60.0  # without any progress; a dead worker's partitions are free again after 6 to 9 s


class DemoError(RuntimeError):
    """The demo cannot go on; the message says what an operator can do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    dataset: str | None = None
    seconds: float | None = None
    rate: float | None = None
    keep: Path | None = None
    seed: int = 7


def run(options: Options, show: Callable[[Frame], None], say: Callable[[str], None]) -> Summary:
    """Runs the demo, calling `show` about ten times a second and `say` for single lines; main thread only.

    Ctrl-C ends the traffic and leads to the summary, a second one ends at once (`KeyboardInterrupt`). Raises
    `EmbeddedError`, `DataSetError`, `WorkerGone`, `DemoError`.
    """
    with ExitStack() as stack:
        demo = Demo(options, show, say, stack)
        demo.stream()
        demo.settle()
        return demo.reckon()


class Demo:
    """Owns everything that runs; `stack` ends it in reverse order."""

    def __init__(
        self, options: Options, show: Callable[[Frame], None], say: Callable[[str], None], stack: ExitStack
    ) -> None:
        forget_secrets()
        self._options, self._show, self._say = options, show, say
        self._begun_s = time.monotonic()
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
        keep = stack.enter_context(_kept(options.keep)) if options.keep else None
        self._servers: Servers = stack.enter_context(embedded(self._directory / "servers"))
        self._servers_s = time.monotonic() - self._begun_s
        say(f"Kafka at {self._servers.bootstrap}, Redis at {self._servers.redis_url}")
        self._partitions = _create_topics(self._servers.bootstrap)
        self._plan = _plan(options, self._directory, say)
        config = self._write_config()
        if options.keep:  # `headrace replay` on the folder then takes the same meaning, and gives the same digest
            (options.keep / "worker.toml").write_text(self._plan.meaning)
        self._settings: Settings = load(config, {})
        environ = child.without_settings(os.environ) | {"OMP_NUM_THREADS": "1"}
        self.worker = Supervisor(_headrace(config, "worker"), log=self._directory / "worker.log", environ=environ)
        stack.callback(self.worker.stop)
        self.worker.start(time.monotonic())
        self.state = StateReader(self._settings)
        stack.callback(self.state.close)
        self.ledger = Ledger()
        self._answers = Answers(self._servers.bootstrap, self.ledger, partitions=self._partitions[RECOMMENDATIONS])
        stack.callback(self._answers.stop)
        self._answers.start()
        self._trainer = self._start_training(config)
        stack.callback(self._trainer.stop)
        self.traffic = Traffic(
            producer(self._servers.bootstrap),
            self.ledger,
            self._plan.phases(self._answers.inbox),
            backlog=lambda: self.traffic.sent - self.state.counts.done,
            settled=self._is_settled,
            keep=keep,
        )
        stack.callback(self._end_traffic)
        self._speeds: deque[tuple[float, int, int]] = deque()
        self._trouble = self._worker_trouble = ""
        self._still = Stillness(at_s=self._begun_s)

    def stream(self) -> None:
        """Traffic until it ends by itself, its time is over, or Ctrl-C."""
        self.traffic.start()
        with self._interruptible():
            while not self.traffic.done.is_set():
                self._tick()
                since_s = self.traffic.live_since_s
                if self._options.seconds and since_s and time.monotonic() - since_s >= self._options.seconds:
                    self.traffic.stop()
        self.traffic.stop()
        while not self.traffic.done.is_set():
            self._tick()
        self._streamed_s = time.monotonic() - (self.traffic.live_since_s or time.monotonic())
        self.traffic.join(1.0)

    def settle(self) -> None:
        """Waits until all that was published is applied everywhere and answered, or nothing moves for 60 s."""
        self.traffic.phase = "settling"
        still = Stillness(at_s=time.monotonic())
        with self._interruptible():
            while not (self._is_settled() and self._is_everywhere()):
                self._tick()
                moving = (self.state.counts.done, self.ledger.totals().answered, sum(self._hwm().values()))
                if still.look(moving, at_s=time.monotonic()) > SETTLE_S:
                    break
        self._settled_s = time.monotonic() - self._begun_s

    def reckon(self) -> Summary:
        """The figures, and what is missing."""
        pid, restarts = self.worker.pid, self.worker.restarts
        self.worker.stop()  # the digest wants nobody to write
        self.state.refresh()
        totals, counts, latency = self.ledger.totals(), self.state.counts, self.ledger.latency()
        figures = {
            "traffic": self._plan.name,
            "published": totals.published,
            "applied": counts.applied,
            "repeated": counts.repeated,
            "dead_lettered": counts.dead_lettered,
            "triggers": totals.triggers,
            "answered": totals.answered,
            "recommendations": totals.recommendations,
            "recommendation_repeats": totals.repeats + totals.older,
            "latency_ms": {"p50": _rounded(latency.p50), "p99": _rounded(latency.p99), "n": latency.n},
            "levels": totals.levels,
            "hit_rates": {kind: {"rate": _rounded(rate), "lists": n} for kind, (rate, n) in self._hit_rates().items()},
            "seconds": {
                "servers": _rounded(self._servers_s),
                "first_recommendation": self._since(self._answers.first_at_s),
                "first_full": self._since(self._answers.first_full_at_s),
                "streamed": _rounded(self._streamed_s),
                "in_all": _rounded(self._settled_s),
            },
            "worker": {"pid": pid, "restarts": restarts},
            "digest": self.state.digest(),
            "hwm": self._hwm(),
        }
        missing = missing_of(totals, counts, self.ledger.oldest_unanswered())
        if missing:  # the log goes with the temporary directory
            self._say(f"the worker's last lines:\n{self.worker.last_words(lines=20)}")
        return Summary(figures, missing)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if pid := self._servers.revive_redis():
            self._say(f"Redis ended and runs again on its append-only file, pid {pid}")
        self._servers.check()
        self._trainer.check()
        worker_trouble = self.worker.check(now_s)
        if worker_trouble and worker_trouble != self._worker_trouble:
            self._say(worker_trouble)
        self._worker_trouble = worker_trouble
        for error in (self.traffic.error, self._answers.error):
            if error is not None:
                raise DemoError(f"{type(error).__name__}: {error}") from error
        self.state.refresh()
        self._trouble = worker_trouble or self.state.trouble or self._standstill(now_s)
        self._show(self._frame(now_s))
        time.sleep(TICK_S)

    def _standstill(self, now_s: float) -> str:
        """What to say when records wait and nothing is done with them; empty as long as something moves."""
        totals, done = self.ledger.totals(), self.state.counts.done
        waiting = totals.unanswered > 0 or done < totals.published
        still_s = self._still.look((waiting, done, totals.answered, self.worker.pid), at_s=now_s)
        if not waiting or still_s < STANDSTILL_S:
            return ""
        return f"nothing applied or answered for {still_s:.0f} s; the worker's last line: {self.worker.last_words()}"

    def _frame(self, now_s: float) -> Frame:
        totals, counts = self.ledger.totals(), self.state.counts
        self._speeds.append((now_s, totals.published, totals.recommendations))
        while now_s - self._speeds[0][0] > RATE_SPAN_S:
            self._speeds.popleft()
        first_s, published, recommendations = self._speeds[0]
        span_s = max(now_s - first_s, TICK_S)
        return Frame(
            traffic=self._plan.name,
            phase=self.traffic.phase or "starting",
            elapsed_s=now_s - self._begun_s,
            totals=totals,
            latency=self.ledger.latency(recent=True),
            events_per_s=(totals.published - published) / span_s,
            recommendations_per_s=(totals.recommendations - recommendations) / span_s,
            applied=counts.done,
            dead_lettered=counts.dead_lettered,
            worker_pid=self.worker.pid,
            restarts=self.worker.restarts,
            model=self._model(),
            hit_rates=self._hit_rates(),
            newest=tuple(self._answers.newest),
            titles=self._plan.judge.titles,
            trouble=self._trouble,
        )

    def _model(self) -> str:
        newest = self._answers.newest
        if newest and newest[-1].level == "full":
            return newest[-1].model.version
        return self._trainer.status

    def _hit_rates(self) -> dict[str, tuple[float | None, int]]:
        shop = self._plan.shop
        if shop is None:
            return {}
        return {kind: (shop.shown[kind].hit_rate, shop.shown[kind].lists) for kind in ("recommended", "trending")}

    def _is_settled(self) -> bool:
        totals = self.ledger.totals()
        return totals.unanswered == 0 and self.state.counts.done >= totals.published

    def _is_everywhere(self) -> bool:
        """Whether all shards have both phases of everything: idle ones are moved by the worker's heartbeat."""
        hwm = self._hwm()
        return all(hwm[f"{topic}-{part}"] >= end for (topic, part), end in self.ledger.ends().items())

    def _hwm(self) -> dict[str, int]:
        return self.state.hwm(self.ledger.ends())

    def _write_config(self) -> Path:
        models = self._directory / "models"
        models.mkdir()
        (self._directory / "var").mkdir()
        path = self._directory / "worker.toml"
        settings = placed(
            self._plan.settings,
            bootstrap=self._servers.bootstrap,
            redis_url=self._servers.redis_url,
            models=models,
            data_dir=self._directory / "var",
            metrics_port=free_port(),
        )
        path.write_text(toml(settings))
        return path

    def _start_training(self, config: Path) -> Trainer:
        sample = self._directory / "sample"
        rows = sum(self._plan.sample(sample).values())
        self._say(f"training a small ranker from the first {rows} records")
        commands = (
            _headrace(config, "train", str(sample), "--version", VERSION, *SMALL),
            _headrace(config, "models", "promote", VERSION),
        )
        return Trainer(commands, log=self._directory / "train.log", say=self._say)

    def _end_traffic(self) -> None:
        self.traffic.stop()
        self.traffic.join(5.0)

    def _since(self, at_s: float | None) -> float | None:
        return None if at_s is None else _rounded(at_s - self._begun_s)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._say("ending: the traffic stops, what is on its way is waited for (Ctrl-C again: end at once)")


def _plan(options: Options, directory: Path, say: Callable[[str], None]) -> plan.Plan:
    if options.dataset is None:
        return plan.simulated(seed=options.seed, rate=options.rate)
    if options.dataset == completejourney.NAME and not Path(options.dataset).is_dir():
        say("converting the Complete Journey to a data set folder")
        return plan.complete_journey(directory / completejourney.NAME, rate=options.rate)
    return plan.dataset(Path(options.dataset), rate=options.rate)


def _create_topics(bootstrap: str) -> dict[str, int]:
    topics = load_topics()
    outcome = create(AdminClient({"bootstrap.servers": bootstrap, "log_level": 2}), topics)
    if wrong := {name: said for name, said in outcome.items() if said not in ("created", "exists")}:
        raise DemoError(f"topics could not be created: {wrong}")
    return {topic.name: topic.partitions for topic in topics}


def _kept(directory: Path) -> Writer:
    if (directory / "worker.toml").exists():
        raise ConfigError(f"{directory}: holds a worker.toml, and the demo would write its own there")
    return Writer(directory)


def _headrace(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "--config", str(config), *words]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
