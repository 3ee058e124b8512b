"""A steady rate for an hour on Apache Kafka: `make soak ARGS="--minutes 60 --rate 100"`.

A fixed population: users' logs fill up (256 events each: 57 000 more in all) and the state stops growing; what grows
after that is a leak, so the warm-up that slopes leave out should last that long (19 minutes at 50/s). Prints by
tenths of the run latency, the worker's share of a core and a yardstick of the host's speed; slopes of memory and open
files after the warm-up. The ladder is on, as shipped: `levels` tells whether the machine kept up. A small ranker, 50
candidates.
Exit 0 only if every trigger was answered, the state counted every event once and, in half an hour or more, neither the
worker's nor Redis's memory or open files grew beyond the bounds; latency is for the reader to judge.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis
from rich.progress import Progress

from pipeline.embedded import free_port
from tests.benchmarks.pacing import Pacer
from tests.integration.worlds import World, traffic
from tests.servers import Servers
from tests.soak.watch import Watched, grew, slope_per_hour, yardstick_ms

LOOKS = 360
USERS, ITEMS = 300, 500
FIRST = 20_000  # events before the steady part: a quarter of what the logs take
TENTHS = 10
JUDGED_MINUTES = 30.0  # a slope of less is that of noise


@click.command()
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--rate", default=100.0, show_default=True, help="Triggers a second.")
@click.option("--warm-up", "warm_up", default=0.25, show_default=True, help="Share of the run that slopes leave out.")
@click.option("--growth-max", default=5.0, show_default=True, help="MB an hour after the warm-up that fail the run.")
@click.option("--json", "as_json", is_flag=True)
def main(minutes: float, rate: float, warm_up: float, growth_max: float, as_json: bool) -> None:
    """Runs it and prints the figures."""
    with tempfile.TemporaryDirectory(prefix="headrace-soak-") as folder:
        directory = Path(folder)
        servers = Servers(directory / "servers", kind="apache")
        world = World(servers.bootstrap, servers.redis_url, directory, "soak", free_port())
        patient, shipped = "deadline_ms = 86_400_000", "deadline_ms = 1_000"
        text = world.config.read_text()
        assert patient in text
        world.config.write_text(text.replace(patient, shipped))
        try:
            figures = run(world, servers, seconds=minutes * 60, rate=rate, warm_up=warm_up)
        finally:
            world.stop()
            servers.stop()
    click.echo(json.dumps(figures, indent=None if as_json else 2))
    grown = grew(figures, mb_per_hour_max=growth_max) if minutes >= JUDGED_MINUTES else []
    for line in grown:
        click.echo(line, err=True)
    exact = figures["unanswered"] == 0 and figures["counted"] == figures["published"]
    sys.exit(0 if exact and not grown else 1)


def run(world: World, servers: Servers, *, seconds: float, rate: float, warm_up: float) -> dict[str, Any]:
    """The whole run on started servers; the figures."""
    world.serve_model()
    world.publish("user_actions", traffic(FIRST, users=USERS, items=ITEMS))
    worker = world.start()
    world.wait_until_answered(within_s=180)
    processes = [
        Watched("worker", worker.pid),
        *(Watched(name, pid) for name, pid in servers.pids.items()),
    ]
    memory: list[tuple[float, float]] = []
    yardstick: list[float] = []
    client = redis.Redis.from_url(world.redis_url)
    pacer = Pacer(world, per_s=rate, users=USERS, items=ITEMS)
    begun_s = time.monotonic()
    with Progress() as progress:
        bar = progress.add_task("soak", total=seconds)

        def tell(passed_s: float) -> None:
            for process in processes:
                process.look(passed_s)
            yardstick.append(yardstick_ms())
            memory.append((passed_s, client.info("memory")["used_memory"] / 2**20))
            progress.update(bar, completed=passed_s)

        pacer.run(seconds, every_s=seconds / LOOKS, tell=tell)
    pacer.settle()
    pacer.close()
    from_s = seconds * warm_up
    figures: dict[str, Any] = {
        "seconds": round(time.monotonic() - begun_s, 1),
        "published": FIRST + pacer.sent,
        "counted": world.counts()["applied:user_actions"],
        "unanswered": pacer.waiting,
        "levels": pacer.levels,
        "latency_ms": latencies(pacer, begun_s=begun_s, seconds=seconds),
        "worker_cores": cores(processes[0]),
        "yardstick_ms": medians(yardstick, digits=2),
        "redis_used_mb": slopes(memory, from_s),
    }
    for process in processes:
        resident_mb = [(look.at_s, look.resident_mb) for look in process.looks]
        figures[f"{process.name}_resident_mb"] = slopes(resident_mb, from_s)
        figures[f"{process.name}_files"] = slopes([(look.at_s, look.files) for look in process.looks], from_s)
    return figures


def latencies(pacer: Pacer, *, begun_s: float, seconds: float) -> list[dict[str, float]]:
    """p50 and p99 of each tenth of the run."""
    at_s = np.array([each.sent_s - begun_s for each in pacer.answered])
    latency_ms = np.array([each.latency_ms for each in pacer.answered])
    tenth = np.clip((at_s / seconds * TENTHS).astype(int), 0, TENTHS - 1)
    return [
        {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
        for number in range(TENTHS)
        if (tenth == number).any()
        for p50, p99 in [np.percentile(latency_ms[tenth == number], [50, 99])]
    ]


def slopes(readings: list[tuple[float, float]], from_s: float) -> dict[str, Any]:
    """First, last and greatest reading after `from_s`, the slopes an hour; and medians of tenths of the whole run: growth
    without end is a line in them, an allocator that keeps its largest moment a step.
    """
    at_s, values = np.array([each for each in readings if each[0] >= from_s], np.float64).T
    per_hour, from_ends = slope_per_hour(at_s, values)
    told = {"first": values[0], "last": values[-1], "most": values.max(), "per_hour": per_hour, "from_ends": from_ends}
    return {
        **{name: round(float(value), 2) for name, value in told.items()},
        "by_tenth": medians([each for _, each in readings], digits=1),
    }


def medians(readings: list[float], *, digits: int) -> list[float]:
    """The median of each tenth of the readings."""
    return [round(float(np.median(tenth)), digits) for tenth in np.array_split(readings, TENTHS)]


def cores(process: Watched) -> list[float]:
    """The share of one core that a process took in each tenth of the run."""
    tenths = np.array_split(np.array([(look.at_s, look.cpu_s) for look in process.looks]), TENTHS)
    return [round(float(np.diff(cpu_s)[0] / np.diff(at_s)[0]), 2) for at_s, cpu_s in (t[[0, -1]].T for t in tenths)]


if __name__ == "__main__":
    main()
