"""What the worker costs on the embedded servers: `make bench ARGS="-k worker"` prints the figures, CPU beside wall.

Rates depend on the machine and on who else runs on it; CPU per event is what to compare. Latency on the embedded broker
holds its fetch wait (10 ms here): it says nothing of Apache Kafka.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from pipeline.embedded import free_port
from tests.benchmarks.pacing import Pacer
from tests.integration.conftest import redis, servers  # noqa: F401
from tests.integration.worlds import World, traffic, wait

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
NAMES = count()
USERS, ITEMS = 3_000, 2_000
INGESTED, ANSWERED = 60_000, 10_000
PACE_PER_S, PACED_S = 200, 20


@pytest.fixture
def world(servers, tmp_path):  # noqa: F811
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"bench{os.getpid()}x{next(NAMES)}", free_port())
    yield made
    made.stop()


def cpu_s(pid: int) -> float:
    """User and system seconds of a live process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most resident memory a live process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def redis_cpu_s(world: World) -> float:
    with Redis.from_url(world.redis_url) as client:
        info = client.info("cpu")
    return info["used_cpu_user"] + info["used_cpu_sys"]


def report(benchmark, capsys, title: str, figures: dict[str, float]) -> None:
    benchmark.extra_info.update(figures)
    with capsys.disabled():
        print(f"\n{title}: " + ", ".join(f"{name} {value:,.1f}" for name, value in figures.items()))


def drain(world: World, events: int, done: Callable[[], bool]) -> dict[str, float]:
    """A started worker works off a backlog: from its first applied event to the last."""
    worker = world.start()
    wait(lambda: sum(world.counts().values()) > 0, 30, world.logs)
    begun_s, first = time.monotonic(), sum(world.counts().values())
    cpu, redis_cpu = cpu_s(worker.pid), redis_cpu_s(world)
    wait(done, 200, world.logs)
    wall_s, left = time.monotonic() - begun_s, events - first
    return {
        "events/s": left / wall_s,
        "worker CPU us/event": (cpu_s(worker.pid) - cpu) / left * 1e6,
        "Redis CPU us/event": (redis_cpu_s(world) - redis_cpu) / left * 1e6,
        "worker peak MB": peak_mb(worker.pid),
    }


def applied(world: World, events: int) -> bool:
    return world.counts().get("applied:user_actions", 0) == events


def test_worker_ingest_without_recommendations(benchmark, world, capsys):
    quiet = [(key, value.replace(b'"view"', b'"buy"')) for key, value in traffic(INGESTED, users=USERS, items=ITEMS)]
    world.publish("user_actions", quiet)
    figures = benchmark.pedantic(drain, args=(world, INGESTED, lambda: applied(world, INGESTED)), rounds=1)
    report(benchmark, capsys, "ingest", figures)


def test_worker_with_recommendations(benchmark, world, capsys):
    world.publish("user_actions", traffic(ANSWERED, users=USERS, items=ITEMS))
    figures = benchmark.pedantic(drain, args=(world, ANSWERED, lambda: not world.unanswered()), rounds=1)
    report(benchmark, capsys, "with recommendations", {**figures, "answers": len(world.recommendations())})


def test_worker_latency_at_200_events_a_second(benchmark, world, capsys):
    text = world.config.read_text().replace("candidates_max = 50", "candidates_max = 200")  # as shipped, and the ladder
    world.config.write_text(text.replace("deadline_ms = 86_400_000", "deadline_ms = 1_000"))
    world.serve_model()
    world.publish("user_actions", traffic(2_000, users=USERS, items=ITEMS))
    worker = world.start()
    world.wait_until_answered(within_s=60)
    cpu = cpu_s(worker.pid)
    pacer = benchmark.pedantic(paced, args=(world,), rounds=1)
    latencies_ms = [each.latency_ms for each in pacer.answered]
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    full = 100 * pacer.levels.get("full", 0) / sum(pacer.levels.values())
    busy = (cpu_s(worker.pid) - cpu) / PACED_S * 100
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    asked = {"n": len(latencies_ms), "full %": full}
    figures = {"p50 ms": p50, "p99 ms": p99, **asked, "worker CPU %": busy, "own MB": own}
    report(benchmark, capsys, f"latency at {PACE_PER_S}/s", figures)


def paced(world: World) -> Pacer:
    """With the latency of every event: from the moment it was due to the receipt of an answer that covers it."""
    pacer = Pacer(world, per_s=PACE_PER_S, users=USERS, items=ITEMS)
    pacer.run(PACED_S)
    pacer.settle()
    pacer.close()
    assert not pacer.waiting, f"{pacer.waiting} events without an answer"
    return pacer
