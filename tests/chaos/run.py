"""One run: prepare, play, settle, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from confluent_kafka import KafkaException

from pipeline.kafka.reading import Reader
from tests.chaos.dataset import DataSet
from tests.chaos.faults import TICK_S, Fault, Player
from tests.chaos.scenarios import Scenario
from tests.chaos.sender import Sender
from tests.chaos.stand import PREFIX, Stand, StandBroken
from tests.chaos.traffic import STEP_MS, Post, Traffic
from tests.chaos.truth import the_truth
from tests.chaos.verdict import Verdict, judge
from tests.chaos.watch import Watch

STILL_S = 150.0  # no mark has moved for so long though nothing is broken: it stands still
SETTLE_S = 90.0
LOOK_S = 0.5

Told = Callable[[str, int, int], None]  # what is going on, applied, faults struck


@dataclass(slots=True)
class Result:
    """A row of the table. `error`: why there is no verdict. `own_deaths`: workers that ended though nobody killed them."""

    scenario: str
    seed: int
    events: int
    broker: str
    redis: str
    records: int = 0
    faults: int = 0
    starts: int = 0
    lost: int = 0
    doubled: int = 0
    unanswered: int = 0
    letters_missing: int = 0
    digest_equal: bool = False
    answers: int = 0
    repeats: int = 0
    levels: dict[str, int] = field(default_factory=dict)
    recovery_p50_s: float | None = None
    recovery_max_s: float | None = None
    seconds: float = 0.0
    own_deaths: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    error: str = ""
    directory: str = ""

    @property
    def clean(self) -> bool:
        """Whether there is a verdict and it is spotless."""
        counts = self.lost + self.doubled + self.unanswered + self.letters_missing
        return not self.error and self.digest_equal and not counts and not self.said


def run(
    scenario: Scenario,
    *,
    seed: int,
    events: int,
    broker: str,
    redis: str,
    directory: Path,
    unfenced: bool = False,
    dataset: DataSet | None = None,
    tell: Told = lambda *_: None,
) -> Result:
    """Runs a scenario in `directory`, which is kept, on its own traffic or a data set's. What goes wrong stands in the
    result, nothing is raised but an interrupt; every process is ended.
    """
    if dataset is not None:
        scenario, events = dataset.under(scenario), dataset.events
    result = Result(scenario.name, seed, events, broker, redis, directory=str(directory))
    began_s = time.monotonic()
    plan = scenario.plan(Random(f"{seed}/{scenario.name}"), events)
    try:
        stand = Stand(directory, setup=scenario.setup, broker=broker, redis=redis, unfenced=unfenced)
        try:
            stand.note("plan.json", [asdict(fault) for fault in plan])
            _go(scenario, stand, plan, result, tell, dataset)
        finally:
            result.starts = sum(slot.starts for slot in stand.slots)
            result.own_deaths = dict(stand.own_deaths)
            stand.close()
    except Exception as error:
        result.error = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - began_s
    return result


def _go(
    scenario: Scenario, stand: Stand, plan: Sequence[Fault], result: Result, tell: Told, dataset: DataSet | None
) -> None:
    posts = dataset.records() if dataset is not None else _made(scenario, result)
    sender = Sender(stand.broker.bootstrap, posts, prefix=PREFIX, settings=scenario.setup.producer)
    watch = Watch(stand.direct, partitions=scenario.setup.partitions)
    try:
        for _ in range(scenario.setup.workers):
            stand.add_worker()
        (scenario.drive or play)(stand, sender, watch, plan, result, tell)
        tell("settling", watch.applied, result.faults)
        settle(stand, sender, watch)
        tell("judging", watch.applied, result.faults)
        truth = the_truth(stand.direct, whole=scenario.whole_log)
        result.records = truth.records
        _book(result, (scenario.judge or judge)(stand.direct, truth), watch)
        acknowledged = sum(sender.ends.values())
        if scenario.whole_log and truth.records < acknowledged:
            result.said.append(f"the broker has {truth.records} of {acknowledged} records that it acknowledged")
    finally:
        sender.close()
        watch.close()


def _made(scenario: Scenario, result: Result) -> Iterator[Post]:
    base_ms = time.time_ns() // 1_000_000 - result.events * STEP_MS
    posts = Traffic(result.seed, result.events, base_ms, scenario.setup.shape).records()
    return posts if scenario.rewrite is None else scenario.rewrite(Random(f"{result.seed}/rewrite"), posts)


def play(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    """Traffic flows and faults strike until both are through. Raises `StandBroken` when everything stands still."""
    player = Player(stand, plan, watch)
    try:
        while not (player.done and sender.done):
            sender.pump(room=_room(stand, sender, watch, player))
            watch.look()
            player.tick()
            stand.keep()
            _keep_going(stand, sender, watch, player)
            result.faults = player.struck
            tell("playing", watch.applied, player.struck)
            time.sleep(TICK_S)
    finally:
        player.finish()


def _room(stand: Stand, sender: Sender, watch: Watch, player: Player) -> int:
    """How many records may be sent now: the traffic waits for its faults, so that each finds some on its way."""
    up_to = watch.applied + stand.setup.backlog_max
    if player.next_after is not None:
        up_to = min(up_to, player.next_after + stand.setup.lead_max)
    return up_to - sender.sent


def _keep_going(stand: Stand, sender: Sender, watch: Watch, player: Player) -> None:
    still_s = time.monotonic() - watch.moved_s
    if still_s > STILL_S and player.is_calm:
        raise StandBroken(
            f"nothing has moved for {still_s:.0f} s: {sender.sent} sent, {sender.taken} in the log, {watch.applied} "
            f"applied, {player.struck} faults\n{stand.last_words()}"
        )


def settle(stand: Stand, sender: Sender, watch: Watch) -> None:
    """Returns when everything in the log is applied and committed: answered, by the workers' own account."""
    began_s = time.monotonic()
    while behind := _behind(stand, sender, watch):
        watch.look()
        stand.keep()
        stand.news()
        if time.monotonic() - max(began_s, watch.moved_s) > SETTLE_S:
            raise StandBroken(f"not settled after {SETTLE_S:.0f} s: {behind}\n{stand.last_words()}")
        time.sleep(LOOK_S)
    watch.all_applied()


def _behind(stand: Stand, sender: Sender, watch: Watch) -> dict[str, str]:
    watch.look(at_once=True)
    behind = {
        f"{part.topic}-{part.partition}": f"applied up to {watch.positions[part]} of {end}"
        for part in watch.parts
        if watch.positions[part] < (end := sender.ends.get((part.topic, part.partition), 0))
    }
    if behind:
        return behind
    try:
        return _uncommitted(stand, sender)
    except KafkaException as error:
        return {"broker": str(error)}


def _uncommitted(stand: Stand, sender: Sender) -> dict[str, str]:
    behind = {}
    with Reader(stand.direct.kafka, group=stand.settings.kafka.group) as reader:
        for topic in {topic for topic, _ in sender.ends}:
            ends = {partition: end for (name, partition), end in sender.ends.items() if name == topic}
            committed = reader.committed(topic, sorted(ends))
            for partition, end in ends.items():
                if committed.get(partition, 0) < end:
                    behind[f"{topic}-{partition}"] = f"committed {committed.get(partition)} of {end}"
    return behind


def _book(result: Result, verdict: Verdict, watch: Watch) -> None:
    recoveries = sorted(watch.recoveries_s)
    if recoveries:
        result.recovery_p50_s, result.recovery_max_s = recoveries[len(recoveries) // 2], recoveries[-1]
    result.lost, result.doubled = verdict.lost, verdict.doubled
    result.unanswered, result.letters_missing = len(verdict.unanswered), verdict.letters_missing
    result.digest_equal, result.said = verdict.digest_equal, verdict.said()
    result.answers, result.repeats, result.levels = verdict.answers, verdict.repeats, verdict.levels
