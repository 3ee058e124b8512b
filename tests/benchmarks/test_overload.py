"""Ten times what a worker sustains: `HEADRACE_TEST_BROKER=apache make bench ARGS="-k overload"`.

HEADRACE_TEST_FLOOD_S=15 for a shorter flood. The embedded broker gets slower with its log: after 250 000 records they
came to a worker with nothing to do seconds late, so what is told of the time after the flood is told of Apache Kafka.

First the rate is measured at which full answers keep up, on this machine now. Then a producer in a process of its own
sends half of it, ten times it, and half of it again. Printed: what was answered how, over time; latency of what was
read younger than the deadline; memory; how long until all is full again. Checked: every trigger answered, the state
equal to that of a replay, the worker alive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from features.schema import RECOMMENDATIONS, USER_ACTIONS, Recommendation
from pipeline.embedded import free_port
from pipeline.kafka.reading import Reader
from pipeline.kafka.slices import LogRecord
from recommender.effort import RUNGS
from tests.benchmarks import flood
from tests.benchmarks.test_worker import applied, report
from tests.integration.conftest import servers  # noqa: F401
from tests.integration.worlds import World, traffic, wait
from tests.soak.watch import Watched

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
NAMES = count()
FLOOD_S = float(os.environ.get("HEADRACE_TEST_FLOOD_S", "60"))
CALM_S, AFTER_S = 5.0, 30.0
KNOWN = 150_000  # actions before: logs are as long as the flood will make them
MEASURED_S, MORE_PER_S = 12.0, 600.0  # more than a worker answers on two cores, so that it never waits for a question
DEADLINE_MS = 1_000
TIMES = 10
LINES = 16
_ANSWER = msgspec.json.Decoder(Recommendation)


class Seen(NamedTuple):
    """What is kept of an answer."""

    ts_ms: int
    effort: str
    age_ms: int
    latency_ms: float


class Phase(NamedTuple):
    """What the producer says of one."""

    begin_ms: int
    end_ms: int
    sent: int


@pytest.fixture
def world(servers, tmp_path):  # noqa: F811
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"flood{os.getpid()}x{next(NAMES)}", free_port())
    made.config.write_text(made.config.read_text().replace("candidates_max = 50", "candidates_max = 200"))
    made.serve_model()
    yield made
    made.stop()


def answers(world: World) -> Iterator[Recommendation]:
    """Every recommendation on the topic, one at a time: a minute's worth is hundreds of MB."""
    with Reader(world.settings.kafka) as reader:
        for message in reader.existing(world.prefix + RECOMMENDATIONS):
            yield _ANSWER.decode(message.value())


def sustainable_per_s(world: World) -> float:
    """Full answers a second of one worker while a producer sends more triggers: broker and producer take their share of
    the machine, as they do later, and the users' logs are long already.
    """
    quiet = [
        (key, value.replace(b'"view"', b'"buy"')) for key, value in traffic(KNOWN, users=flood.USERS, items=flood.ITEMS)
    ]
    world.publish(USER_ACTIONS, quiet)
    world.start()
    wait(lambda: applied(world, KNOWN), 120, world.logs)
    with producer(world, [(MEASURED_S, MORE_PER_S)]) as sender:
        (phase,) = phases_of(sender)
    known(world)
    world.wait_until_answered(within_s=300)
    at_ms = np.array([answer.ts_ms for answer in answers(world)])
    world.stop()
    begin_ms, end_ms = phase.begin_ms + MEASURED_S / 4 * 1_000, phase.end_ms
    per_s = float(((at_ms > begin_ms) & (at_ms <= end_ms)).sum()) / (end_ms - begin_ms) * 1_000
    assert per_s < 0.9 * MORE_PER_S, "it kept up: send more"
    return per_s


def producer(world: World, phases: Sequence[tuple[float, float]]) -> subprocess.Popen[str]:
    """`flood.py` at work: (seconds, rate) after (seconds, rate)."""
    told = [f"{seconds}x{rate}" for seconds, rate in phases]
    argv = [sys.executable, "-m", "tests.benchmarks.flood", world.bootstrap, world.prefix + USER_ACTIONS, *told]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def phases_of(sender: subprocess.Popen[str]) -> list[Phase]:
    """What it says at its end."""
    assert sender.stdout is not None
    told = [Phase(**json.loads(line)) for line in sender.stdout]
    assert sender.wait(60) == 0
    return told


def flooded(world: World, per_s: float) -> tuple[list[Phase], Watched]:
    """The phases as sent, and the worker's memory meanwhile."""
    text = world.config.read_text().replace("deadline_ms = 86_400_000", f"deadline_ms = {DEADLINE_MS}")
    world.config.write_text(text)
    read = world.logs().count("[pipeline.kafka.driver] hold_to")
    worker = world.start()
    world.wait_for_log("[pipeline.kafka.driver] hold_to", times=2 * read, within_s=120)
    watched = Watched("worker", worker.pid)
    with producer(world, [(CALM_S, per_s / 2), (FLOOD_S, per_s * TIMES), (AFTER_S, per_s / 2)]) as sender:
        while sender.poll() is None:
            watched.look(time.monotonic())
            time.sleep(0.5)
        told = phases_of(sender)
    assert worker.poll() is None, world.logs()[-4000:]
    known(world)
    world.wait_until_answered(within_s=300)
    watched.look(time.monotonic())
    return told, watched


def known(world: World) -> None:
    """Notes everything that lies on the topic as sent."""
    noted = world.sent[USER_ACTIONS]
    with Reader(world.settings.kafka) as reader:
        for message in reader.existing(world.prefix + USER_ACTIONS):
            at = message.partition(), message.offset()
            noted[at] = LogRecord(message.offset(), message.timestamp()[1], message.key(), message.value())


def effort_of(answer: Recommendation) -> str:
    """By its cause."""
    causes = (answer.cause or "").split("; ")
    return next((effort.name for effort in RUNGS if effort.cause and effort.cause in causes), answer.level)


def timeline(seen: list[Seen], begin_ms: int) -> str:
    """LINES lines: seconds since the begin, answers by effort, age when read and latency (medians)."""
    step_ms = (seen[-1].ts_ms - begin_ms) / LINES
    lines = []
    for number in range(LINES):
        within = [each for each in seen if int((each.ts_ms - begin_ms) // step_ms) == number]
        efforts = Counter(each.effort for each in within)
        told = " ".join(f"{effort.name} {efforts[effort.name]:6}" for effort in RUNGS[::-1] if effort.name != "plain")
        age, latency = (np.median([each[place] for each in within]) if within else 0 for place in (2, 3))
        lines.append(f"  {number * step_ms / 1000:5.1f} s  {told}  age {age:6.0f} ms  latency {latency:6.0f} ms")
    return "\n".join(lines)


def test_overload(benchmark, world, capsys):
    per_s = sustainable_per_s(world)
    phases, watched = benchmark.pedantic(flooded, args=(world, per_s), rounds=1)
    begin_ms, flood_ms = phases[0].begin_ms, phases[1]
    seen = [
        Seen(each.ts_ms, effort_of(each), each.event_age_ms, each.latency_ms)
        for each in answers(world)
        if each.ts_ms >= begin_ms
    ]
    seen.sort()
    young = np.array([each.latency_ms for each in seen if each.age_ms < DEADLINE_MS])
    after = [each for each in seen if each.ts_ms > flood_ms.end_ms]
    full = [each.ts_ms for each in after if each.effort == "full"]
    assert full, "no answer is full again"
    resident = [look.resident_mb for look in watched.looks]
    figures = {
        "sustainable/s": per_s,
        "flood/s": flood_ms.sent / (flood_ms.end_ms - flood_ms.begin_ms) * 1_000,
        "triggers": sum(phase.sent for phase in phases),
        "answers": len(seen),
        "young": len(young),
        **{f"their latency p{q} ms": float(np.percentile(young, q)) for q in (50, 99, 100)},
        "of them over the deadline": float((young > DEADLINE_MS).sum()),
        "age when read p99 ms": float(np.percentile([each.age_ms for each in seen], 99)),
        "full again after s": (full[0] - flood_ms.end_ms) / 1_000,
        "then full %": 100 * len(full) / sum(each.ts_ms >= full[0] for each in after),
        "worker MB before": resident[0],
        "peak MB": max(resident),
        "after MB": resident[-1],
    }
    report(benchmark, capsys, f"overload, {TIMES} times for {FLOOD_S:g} s", figures)
    with capsys.disabled():
        print(timeline(seen, begin_ms))
    assert world.unanswered() == set()
    assert world.digest() == world.replayed_digest()
