"""What is watched: a process's memory, open files and CPU over time, the host's own speed beside them, and the slope of
what ought to be flat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILES_MORE_MAX = 5  # connections come and go
YARDSTICK_STEPS = 100_000  # some 5 ms: long against the clock's tick, little against a core


class Look(NamedTuple):
    """One reading: resident memory without shared pages in MB, open file descriptors, CPU seconds since the start."""

    at_s: float
    resident_mb: float
    files: int
    cpu_s: float


@dataclass(slots=True)
class Watched:
    """One process under watch."""

    name: str
    pid: int
    looks: list[Look] = field(default_factory=list)

    def look(self, at_s: float) -> None:
        """Takes a reading; raises `FileNotFoundError` when the process has gone."""
        process = Path(f"/proc/{self.pid}")
        lines = (process / "status").read_text().splitlines()
        resident_kb = int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
        user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        cpu_s = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        self.looks.append(Look(at_s, resident_kb / 1024, len(list((process / "fd").iterdir())), cpu_s))


def yardstick_ms() -> float:
    """CPU milliseconds that a fixed piece of work takes on this host at this moment: waiting for a core is not in it, a
    slower core is. A latency that moves with it says nothing of what was measured.
    """
    begun_s = time.thread_time()
    total = 0
    for step in range(YARDSTICK_STEPS):
        total += step & 7
    return (time.thread_time() - begun_s) * 1000


def slope_per_hour(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Theil-Sen's slope per hour, the median over all pairs (Sen 1968: a spike does not tilt it), and the same from
    the first to the last tenth's medians: where the two differ, the line is no line. At most ~1 000 readings.

    >>> slope_per_hour(np.array([0.0, 1800, 3600]), np.array([1.0, 2.0, 3.0]))
    (2.0, 2.0)
    """
    first, second = np.triu_indices(len(at_s), 1)
    steps = (values[second] - values[first]) / (at_s[second] - at_s[first])
    tenth = max(1, len(at_s) // 10)
    rise = np.median(values[-tenth:]) - np.median(values[:tenth])
    hours = (np.median(at_s[-tenth:]) - np.median(at_s[:tenth])) / 3600
    return float(np.median(steps) * 3600), float(rise / hours)


def grew(figures: Mapping[str, Any], *, mb_per_hour_max: float) -> list[str]:
    """What of the worker and of Redis grew beyond the bounds, in words. The broker's heap fills; it is not judged."""
    lines = []
    for name in ("worker", "redis"):
        memory, files = figures[f"{name}_resident_mb"], figures[f"{name}_files"]
        if memory["per_hour"] > mb_per_hour_max:
            lines.append(
                f"{name}: memory grew by {memory['per_hour']} MB an hour, at most {mb_per_hour_max} are allowed"
            )
        if files["last"] > files["first"] + FILES_MORE_MAX:
            lines.append(f"{name}: {files['first']:.0f} open files became {files['last']:.0f}")
    return lines
