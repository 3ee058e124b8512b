"""All scenarios by name. A module of this package registers its own with `scenario`; MODULES lists the modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from random import Random
from typing import Any

from tests.chaos.faults import Fault
from tests.chaos.stand import Setup
from tests.chaos.traffic import Post

MODULES = ("workers", "servers", "brokers", "storms", "network", "producers", "topics", "clock", "models")
SCENARIOS: dict[str, Scenario] = {}
Rewrite = Callable[[Random, Iterator[Post]], Iterator[Post]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to whom. `plan(random, events)`: the faults, from `random` alone. `drive` in place of `run.play`,
    `judge` in place of `verdict.judge`, with their signatures. `rewrite(random, posts)`: the traffic as another producer
    would send it. `whole_log`: the topics still hold their first records at the end.
    """

    name: str
    about: str
    plan: Callable[[Random, int], Sequence[Fault]]
    setup: Setup = field(default_factory=Setup)
    rewrite: Rewrite | None = None
    whole_log: bool = True
    drive: Callable[..., None] | None = None
    judge: Callable[..., Any] | None = None


def scenario(made: Scenario) -> Scenario:
    """Registers a scenario."""
    SCENARIOS[made.name] = made
    return made


def load() -> dict[str, Scenario]:
    """All of them, in the order of MODULES."""
    for module in MODULES:
        import_module(f"tests.chaos.scenarios.{module}")
    return SCENARIOS


def points(random: Random, events: int, count: int) -> list[int]:
    """`count` moments, in records applied: spread over the run, each somewhere in its own stretch.

    >>> points(Random(1), 1000, 4) == sorted(points(Random(1), 1000, 4))
    True
    """
    stretch = events * 0.95 / count
    return [int((at + random.random()) * stretch) for at in range(count)]
