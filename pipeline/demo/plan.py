"""What the demo is going to stream: a simulated shop, a data set folder, or the Complete Journey package.

A plan has the settings that fit the events, a sample (the first part of the traffic) to train the small ranker from,
and the phases that will be published.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from features.schema import REQUESTS, Recommendation
from pipeline.config import Settings, load
from pipeline.dataset import Row, read_as_is, write
from pipeline.demo import completejourney
from pipeline.demo.settings import SHOP
from pipeline.demo.shoppers import Shop
from pipeline.demo.traffic import Judge, Phase, Post, live, past, recorded
from pipeline.demo.world import World
from pipeline.initialise import initialise, settings_of

WARM_UP_RECORDS = 4_000
SAMPLE_ROWS = 20_000
SIMULATED_RATE = 200.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Ready to go: `meaning` is a TOML of what the events mean, `shop` is there when the traffic reacts."""

    name: str
    meaning: str
    settings: Settings
    judge: Judge
    shop: Shop | None
    sample: Callable[[Path], Mapping[str, int]]
    phases: Callable[[deque[Recommendation]], list[Phase]]


def simulated(*, seed: int, rate: float | None, warm_up: int = WARM_UP_RECORDS) -> Plan:
    """The seeded shop: two hours of its past at once, then live at `rate` records/s (None: 200)."""
    settings = settings_of(SHOP)
    judge = Judge(settings.domain)
    rng = np.random.default_rng(seed)
    pace = rate or SIMULATED_RATE
    # About one move a second for everybody in the shop, so that an answer can be there before the next list.
    shop = Shop(World(rng), rng, active=int(min(max(pace, 50), 500)))
    before: list[Post] = []

    def first_part() -> list[Post]:
        if not before:
            before.extend(past(shop, judge, records=warm_up, now_ms=wall_ms()))
        return before

    def phases(inbox: deque[Recommendation]) -> list[Phase]:
        return [
            Phase("the shop's past", first_part(), None, live=False),
            Phase("live", live(shop, judge, inbox, wall_ms), pace, live=True),
        ]

    def sample(directory: Path) -> Mapping[str, int]:
        return write(directory, ((post.topic, post.raw) for post in first_part() if post.topic != REQUESTS))

    return Plan("simulated shop", SHOP, settings, judge, shop, sample, phases)


def dataset(directory: Path, *, rate: float | None) -> Plan:
    """A data set folder in log order, as fast as the worker takes it or at `rate`.

    Its own worker.toml says what it means (`replay` and `train` go by it too), else `init` guesses. Raises
    `DataSetError` where the folder holds none, `ConfigError` for a broken worker.toml.
    """
    own = directory / "worker.toml"
    settings = load(own, {}) if own.is_file() else None
    meaning = own.read_text() if settings else initialise(directory)
    name = directory.resolve().name
    return _log(name, meaning, settings or settings_of(meaning), lambda: read_as_is(directory), rate)


def complete_journey(directory: Path, *, rate: float | None) -> Plan:
    """The pip package's purchases, converted to a folder below `directory` first (some ten seconds)."""
    write(directory, ((row.topic, row.raw) for row in completejourney.rows()))
    meaning = initialise(directory)
    return _log(completejourney.NAME, meaning, settings_of(meaning), lambda: read_as_is(directory), rate)


def _log(name: str, meaning: str, settings: Settings, rows: Callable[[], Iterator[Row]], rate: float | None) -> Plan:
    judge = Judge(settings.domain)

    def phases(inbox: deque[Recommendation]) -> list[Phase]:
        _ = inbox  # people of the past do not look at our recommendations
        return [Phase("streaming", recorded(rows(), judge, wall_ms), rate, live=True)]

    def sample(directory: Path) -> Mapping[str, int]:
        return write(directory, _bare(islice(rows(), SAMPLE_ROWS)))

    return Plan(name, meaning, settings, judge, None, sample, phases)


def _bare(rows: Iterable[Row]) -> Iterator[tuple[str, bytes]]:
    return ((row.topic, row.raw) for row in rows)


def wall_ms() -> int:
    """The wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
