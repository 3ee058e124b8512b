"""A small search over settings, judged on the newest lists: from the given ones in single steps, each kept if it pays.

Bounded: at most `steps` fits beside the first, each with early stopping and no more trees than the latency budget has
room for. A step pays when the mean of its lists' NDCG@10 is better by more than one standard error of the paired
difference: what is less is the slice's luck, and the settings that were measured on other data stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from recommender.model.boosting import Binned, Doubles, Grown, Round
from recommender.model.manifest import Tried
from recommender.model.parameters import Parameters, trees_room
from recommender.model.training_settings import TrainingSettings

LEAVES_MIN, LEAVES_MAX = 4, 255
TUNED = ("num_leaves", "learning_rate", "min_data_in_leaf", "feature_fraction", "max_depth")

Change = Callable[[Parameters], Mapping[str, Any]]


# First what a small log wants, then a large one: on logs like those that the defaults were measured on none paid.
STEPS: tuple[Change, ...] = (
    lambda now: {"min_data_in_leaf": max(1, now["min_data_in_leaf"] // 4)},
    lambda now: {"num_leaves": min(LEAVES_MAX, now["num_leaves"] * 2)},
    lambda now: {"learning_rate": now["learning_rate"] * 0.5},
    lambda now: {"feature_fraction": min(1.0, now["feature_fraction"] * 2)},
    lambda now: {"min_data_in_leaf": max(1, now["min_data_in_leaf"] // 4)},
    lambda now: {"num_leaves": min(LEAVES_MAX, now["num_leaves"] * 2)},
    lambda _: {"max_depth": 4},
    lambda now: {"min_data_in_leaf": now["min_data_in_leaf"] * 4},
    lambda now: {"num_leaves": max(LEAVES_MIN, now["num_leaves"] // 2)},
)


class Chosen(NamedTuple):
    """The best setting, its fit, and all that were tried, in order."""

    parameters: Parameters
    grown: Grown
    tried: tuple[Tried, ...]


def choose(
    rows: Binned,
    parameters: Parameters,
    settings: TrainingSettings,
    *,
    init: Any = None,
    heard: Callable[[int, Round], None] | None = None,
) -> Chosen:
    """Fits `parameters`, then at most `settings.search` steps from the best so far. heard(number of the fit, round)."""
    begun = 0 if init is None else int(init.current_iteration())

    def fit(there: Parameters, number: int) -> Grown:
        return rows.grow(
            there,
            trees_max=max(1, trees_room(settings, there) - begun),
            patience=settings.patience,
            init=init,
            heard=None if heard is None else lambda turn: heard(number, turn),
        )

    best = fit(parameters, 0)
    tried = [Tried({}, best.trees, float(best.ndcg.mean()), 0.0, 0.0, True)]
    known = [dict(parameters)]
    for change in STEPS:
        changed = dict(change(parameters))
        there = {**parameters, **changed}
        if len(tried) > settings.search or there in known:
            continue
        grown = fit(there, len(tried))
        lead, error = paired(grown.ndcg, best.ndcg)
        kept = lead > error
        tried.append(Tried(changed, grown.trees, float(grown.ndcg.mean()), lead, error, kept))
        known.append(there)
        if kept:
            parameters, best = there, grown
    return Chosen(parameters, best, tuple(tried))


def paired(mine: Doubles, theirs: Doubles) -> tuple[float, float]:
    """(mean difference of two systems on the same lists, its standard error).

    >>> paired(np.array([1.0, 0.5]), np.array([0.5, 0.5]))
    (0.25, 0.25)
    """
    gain = mine - theirs
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
