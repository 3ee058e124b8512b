"""A worker's clock is wrong and jumps. The state follows from the log alone, so it must not care."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.chaos.faults import Fault, fault
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.stand import Setup, Stand

LIBRARIES = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
LIBRARY = next(LIBRARIES, None)
SKEW_S = 600


def _preload(stand: Stand) -> None:
    """Workers see the clock that a file names; waiting and measuring go by the true one."""
    skew = stand.directory / "skew"
    skew.write_text("+0\n")
    stand.environ |= {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(skew),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@fault
def skew(stand: Stand, *, seconds: int) -> Callable[[], None]:
    """All workers' clocks are so far off from now on."""
    file = stand.directory / "skew"
    file.write_text(f"{seconds:+d}s\n")
    return lambda: file.write_text("+0\n") and None


def _jumps(random: Random, events: int) -> list[Fault]:
    """To and fro, slowly and within a second, now and then with a kill."""
    plan = []
    for after in points(random, events, max(5, events // 4_000)):
        seconds = random.choice((-SKEW_S, SKEW_S, random.randrange(-SKEW_S, SKEW_S)))
        plan.append(Fault("skew", after, {"seconds": seconds}, lasts_ms=random.choice((300, 2_000, 5_000))))
        if random.random() < 0.4:
            plan.append(Fault("kill_worker", after, {"worker": 0}, delay_ms=random.randrange(400), together=True))
    return plan


scenario(
    Scenario(
        "clock_skew",
        "the worker's clock is 10 minutes ahead or behind and jumps",
        _jumps,
        Setup(prepare=_preload, lacks=lambda: "" if LIBRARY else "no libfaketime (Debian: apt-get install faketime)"),
    )
)
