"""A worker that falls silent starts itself again under its pid, and answers everything; one that waits does not."""

import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from pipeline.embedded import free_port
from tests.integration.worlds import World, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()
WATCHDOG_MS = 2_000


def start(world, *program):
    world.config.write_text(world.config.read_text().replace("[worker]", f"[worker]\nwatchdog_ms = {WATCHDOG_MS}"))
    with (world.directory / "worker-0.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", *program, "--config", str(world.config), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    world.workers.append(worker)
    world.wait_for_log("reading", times=16, within_s=60)
    return worker


def restarted(world, cause):
    """Whether the metrics count a restart for `cause`; of two that are true, a busy machine finds either first."""
    try:
        return re.search(rf'headrace_restarts_total{{cause="({cause})"}} [1-9]', world.metrics())
    except OSError:  # starting
        return None


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("silent consumer", "stalled"), ("blocked loop", "loop blocked"), ("blocked consumer", "consumer dead|stalled")],
)
def test_a_worker_that_falls_silent_starts_itself_again_and_answers_everything(servers, tmp_path, kind, cause):
    world = World(servers.bootstrap, servers.redis_url, tmp_path, f"stall{os.getpid()}x{next(NAMES)}", free_port())
    try:
        now = tmp_path / "now"
        worker = start(world, "tests.integration.stalling_worker", kind, str(now))
        world.publish("user_actions", traffic(200, seed="before"))
        world.wait_until_answered()
        now.touch()
        world.publish("user_actions", traffic(200, seed="after"))
        world.wait_for_log("starting again", within_s=60)
        world.wait_until_answered(within_s=90)
        assert worker.poll() is None
        wait(lambda: restarted(world, cause), 60, world.logs)
        assert world.digest() == world.replayed_digest()
    finally:
        world.stop()


def test_a_worker_whose_redis_is_away_for_long_waits(own_servers, tmp_path):
    own = own_servers()
    world = World(own.bootstrap, own.redis_url, tmp_path, f"wait{os.getpid()}", free_port())
    try:
        worker = start(world, "pipeline")
        world.publish("user_actions", traffic(100, seed="before"))
        world.wait_until_answered()
        own.kill_redis()
        world.publish("user_actions", traffic(100, seed="after"))
        wait(lambda: "headrace_paused{" in world.metrics(), 30, world.logs)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(4 * WATCHDOG_MS / 1000)
        own.restart_redis()
        world.wait_until_answered(within_s=60)
        assert worker.poll() is None
        assert "starting again" not in world.logs()
    finally:
        world.stop()
