"""Chaos in little, with fixed seeds, on the broker and the Redis that HEADRACE_TEST_BROKER and HEADRACE_TEST_REDIS name;
and the proof that the suite can fail. `make chaos` has the long form.
"""

from pathlib import Path
from random import Random

import pytest

from pipeline.embedded import EmbeddedError
from tests.chaos.faults import KINDS
from tests.chaos.run import Result, run
from tests.chaos.scenarios import load
from tests.conftest import unavailable
from tests.redis_servers import REDIS
from tests.servers import BROKER

SCENARIOS = load()
EVENTS = 4_000

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


def play(
    name: str, directory: Path, *, seed: int, redis: str = REDIS, events: int = EVENTS, unfenced: bool = False
) -> Result:
    scenario = SCENARIOS[name]
    if BROKER not in scenario.setup.brokers:
        pytest.skip(f"{name} needs one of {', '.join(scenario.setup.brokers)}, not {BROKER}")
    try:
        return run(
            scenario, seed=seed, events=events, broker=BROKER, redis=redis, directory=directory, unfenced=unfenced
        )
    except EmbeddedError as error:
        unavailable(str(error))
        raise


@pytest.mark.parametrize(
    ("name", "seed", "redis"),
    [
        ("rebalance", 5, REDIS),
        ("cut_aof_and_kill", 5, REDIS),
        ("kill_broker", 5, REDIS),
        ("storm", 5, "redis7"),
        ("cluster", 5, "cluster"),
    ],
)
def test_nothing_is_lost_doubled_or_left_unanswered(name, seed, redis, tmp_path):
    result = play(name, tmp_path, seed=seed, redis=redis)
    assert result.clean, result
    assert result.records == EVENTS
    assert result.faults >= 2


def test_without_the_fence_the_suite_fails(tmp_path):
    result = play("kill_worker", tmp_path, seed=5, unfenced=True)
    assert not result.error, result.error
    assert not result.clean
    assert result.lost + result.doubled > 0


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_one_seed_gives_one_plan_of_known_faults(name):
    first, again, other = (list(SCENARIOS[name].plan(Random(seed), 20_000)) for seed in ("a", "a", "b"))
    assert first == again
    assert first != other or not first
    assert {fault.kind for fault in first} <= KINDS.keys()
    assert [fault.after for fault in first] == sorted(fault.after for fault in first)
