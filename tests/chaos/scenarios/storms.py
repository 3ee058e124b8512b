"""Several things at once: what no single fault shows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.chaos.faults import Fault
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.stand import Setup
from tests.chaos.traffic import Shape

# Three users do half of everything: their logs are cut to the newest 256 within a few thousand records.
HOT = Shape(heavy=0.5, repeats=0.06, late=0.1)


def _storm(blows: tuple[str, ...]) -> Callable[[Random, int], list[Fault]]:
    """One blow upon another: of those that strike workers, half fall before the one before has ended."""

    def plan(random: Random, events: int) -> list[Fault]:
        return [_blow(random, random.choice(blows), after) for after in points(random, events, max(5, events // 2_500))]

    return plan


def _blow(random: Random, blow: str, after: int) -> Fault:
    node, draw, worker = random.randrange(1 << 30), random.randrange(1 << 30), random.randrange(2)
    kind, args = {
        "kill_worker": ("kill_worker", {"worker": worker}),
        "leave": ("leave", {"worker": worker}),
        "freeze": ("freeze", {"name": f"worker-{worker}"}),
        "freeze_redis": ("freeze", {"name": "redis"}),
        "kill_redis": ("kill_redis", {"node": node}),
        "cut_aof": ("cut_aof", {"node": node, "draw": draw}),
        "kill_broker": ("kill_broker", {}),
    }[blow]
    together = blow in ("kill_worker", "freeze") and random.random() < 0.5
    lasts_ms = 0 if blow == "kill_worker" else random.randrange(300, 6_000)
    return Fault(kind, after, args, delay_ms=random.randrange(1_500), lasts_ms=lasts_ms, together=together)


EVERYTHING = ("kill_worker", "kill_worker", "leave", "freeze", "freeze_redis", "kill_redis", "cut_aof", "cut_aof")
scenario(
    Scenario(
        "storm",
        "two workers and Redis: killed, cut, frozen, left, one upon another",
        _storm(EVERYTHING),
        Setup(workers=2),
    )
)
scenario(
    Scenario(
        "storm_and_broker",
        "the same, and the broker is killed too",
        _storm((*EVERYTHING, "kill_broker")),
        Setup(workers=2, brokers=("apache",)),
    )
)
scenario(
    Scenario(
        "hot_users",
        "three users do half of everything, their logs overflow; kills, cuts and a second worker",
        _storm(("kill_worker", "cut_aof", "kill_redis", "leave")),
        Setup(workers=2, shape=HOT),
    )
)
