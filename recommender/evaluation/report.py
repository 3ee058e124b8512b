"""What an evaluation found, as one record: every system's figures with intervals, and the ranker's lead over each.

`msgspec.json.encode(report(...))` is the JSON of `headrace evaluate`; `pipeline/tables.py` makes it readable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes
from recommender.evaluation.exposure import coverage, exposure_gini, novelty_bits
from recommender.evaluation.intervals import RESAMPLES, Doubles, Estimate, mean_intervals

Fact = str | int | float | bool | None | list[str]


@dataclass(frozen=True, slots=True)
class Judged:
    """One system on all queries: `values` {metric: float64[Q]}, `shown`: the items of each query's first k places."""

    name: str
    values: Mapping[str, Doubles]
    shown: Sequence[Hashes]


class System(msgspec.Struct, frozen=True):
    """One row of the report. `differences` {metric: the first system minus this one}, paired; none for the first."""

    name: str
    metrics: dict[str, Estimate]
    differences: dict[str, Estimate]
    coverage: float
    novelty_bits: float | None
    exposure_gini: float


class Report(msgspec.Struct, frozen=True):
    """An evaluation: `facts` say what was done, to which data, by which settings; the ranker is the first system."""

    facts: dict[str, Fact]
    queries: int
    users: int
    systems: list[System]


def report(
    judged: Sequence[Judged],
    *,
    users: Hashes,
    catalogue: Hashes,
    popularity: tuple[Hashes, NDArray[np.int64]],
    seed: int,
    facts: Mapping[str, Fact],
    resamples: int = RESAMPLES,
) -> Report:
    """The report on systems that answered the same Q queries of users uint64[Q]; all have the first one's metrics.

    catalogue: the items that could have been shown; what a system showed beside them counts too. popularity: distinct
    items with their training events. All intervals see the same `resamples` draws of users by `seed`. ValueError where
    a system's values are not Q long.
    """
    names = list(judged[0].values)
    items = len(np.unique(np.concatenate([catalogue, *(each for system in judged for each in system.shown)])))
    for system in judged:
        if any(len(system.values[name]) != len(users) for name in names):
            raise ValueError(f"{system.name} has another number of queries than there are users: {len(users)}")
    columns = [np.stack([system.values[name] for name in names], axis=1) for system in judged]
    ahead = [columns[0] - each for each in columns[1:]]
    found = iter(
        mean_intervals(np.concatenate([*columns, *ahead], axis=1), users=users, seed=seed, resamples=resamples)
    )
    metrics = [{name: next(found) for name in names} for _ in judged]
    differences: list[dict[str, Estimate]] = [{}, *({name: next(found) for name in names} for _ in ahead)]
    return Report(
        facts=dict(facts),
        queries=len(users),
        users=len(np.unique(users)),
        systems=[
            System(
                name=system.name,
                metrics=own,
                differences=lead,
                coverage=coverage(system.shown, catalogue=items),
                novelty_bits=novelty_bits(system.shown, items=popularity[0], counts=popularity[1], catalogue=items),
                exposure_gini=exposure_gini(system.shown, catalogue=items),
            )
            for system, own, lead in zip(judged, metrics, differences, strict=True)
        ],
    )
