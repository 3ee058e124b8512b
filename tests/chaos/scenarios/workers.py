"""What happens to workers: killed, joined by others, frozen until their partitions are somebody else's."""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random

from tests.chaos.faults import Fault, fault
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.stand import Setup, Stand

EVENTS_PER_KILL = 2_000
PLACED = "reading "  # a worker says so for each partition that it has placed
ZOMBIE_MS = (4_500, 9_000)  # beyond the session's 3 s: the partitions move
AWAKE_MS = (1_000, 7_000)  # until the next one freezes: some wake up into their next sleep, most join again


@fault
def kill_worker(stand: Stand, *, worker: int) -> None:
    """Kill -9; the stand starts it again at once."""
    stand.kill_worker(stand.slots[worker])


@fault
def freeze(stand: Stand, *, name: str) -> Callable[[], None]:
    """SIGSTOP, then SIGCONT."""
    stand.signal(name, signal.SIGSTOP)
    return lambda: stand.signal(name, signal.SIGCONT)


@fault
def leave(stand: Stand, *, worker: int) -> Callable[[], None]:
    """SIGTERM: the worker leaves in order; then it joins again."""
    stand.stop_worker(stand.slots[worker])
    return lambda: stand.start_worker(stand.slots[worker])


def kills(random: Random, events: int, *, workers: int = 1) -> list[Fault]:
    """One kill in 2 000 events: at a moment of its own, right after a placement, or while the worker starts."""
    plan = []
    for after in points(random, events, max(3, events // EVENTS_PER_KILL)):
        kind, delay_ms = random.random(), random.randrange(400)
        worker = random.randrange(workers)
        if kind < 0.6:
            plan.append(Fault("kill_worker", after, {"worker": worker}, delay_ms=delay_ms))
        elif kind < 0.85:
            plan.append(Fault("kill_worker", after, {"worker": worker}))
            plan.append(Fault("kill_worker", after, {"worker": worker}, line=PLACED, delay_ms=delay_ms))
        else:
            plan.append(Fault("kill_worker", after, {"worker": worker}))
            plan.append(Fault("kill_worker", after, {"worker": worker}, delay_ms=random.randrange(4_000)))
    return plan


def _rebalance(workers: int) -> Callable[[Random, int], list[Fault]]:
    """Joins, leaves and kills; the last worker comes and goes every few seconds."""

    def plan(random: Random, events: int) -> list[Fault]:
        faults = []
        for after in points(random, events, max(4, events // 2_500)):
            lasts_ms, dice = random.randrange(500, 6_000), random.random()
            if dice < 0.5:
                faults.append(Fault("leave", after, {"worker": workers - 1}, lasts_ms=lasts_ms))
            elif dice < 0.7:
                faults.append(Fault("leave", after, {"worker": random.randrange(workers)}, lasts_ms=lasts_ms))
            else:
                faults.append(
                    Fault("kill_worker", after, {"worker": random.randrange(workers)}, delay_ms=lasts_ms // 4)
                )
        return faults

    return plan


def _zombies(random: Random, events: int) -> list[Fault]:
    """Either worker freezes until the other has its partitions, and wakes up with its hands full."""
    return [
        Fault(
            "freeze",
            after,
            {"name": f"worker-{random.randrange(2)}"},
            delay_ms=random.randrange(*AWAKE_MS),
            lasts_ms=random.randrange(*ZOMBIE_MS),
        )
        for after in points(random, events, max(3, events // 10_000))
    ]


scenario(Scenario("kill_worker", "kill -9 of the only worker at random points, one in 2 000 events", kills))
scenario(Scenario("rebalance", "two workers: one comes and goes, both are killed", _rebalance(2), Setup(workers=2)))
scenario(Scenario("rebalance3", "three workers that come, go and are killed", _rebalance(3), Setup(workers=3)))
scenario(
    Scenario("zombie", "frozen until the partitions are the other worker's, then woken", _zombies, Setup(workers=2))
)
