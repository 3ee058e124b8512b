"""From settings and catalogue to LightGBM's parameters, within the latency budget."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any

from recommender.model.artefact import BUDGET_ROWS, FeatureNames
from recommender.model.training_settings import TrainingSettings

Parameters = Mapping[str, Any]

GRADES_MAX = 30
TREE_ROW_NS = 95.0  # one row through one tree of 31 leaves on one thread: 75 to 95 ns measured, the dearest counts

# Chosen on validation slices of two sets of shown lists (24 and 25 items, 140 and 207 features): few features a tree
# and heavy leaves gained .003 and .005 NDCG@10 over .6, 50 and 5; 15 leaves did as well as 31 on the lists that came
# next (+.002 +- .001, +.002 +- .002), at .7 of the cost.
PARAMETERS: Parameters = {
    "objective": "lambdarank",
    "metric": "None",  # ours, fair to ties, judges each round
    "lambdarank_truncation_level": 20,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,  # of rows: by query, LightGBM 4.7.0 adds the left-out rows' scores to wrong rows, row 0 before all
    "lambda_l2": 20.0,
    "max_cat_threshold": 16,
    "cat_smooth": 20.0,
    "label_gain": [float(grade) for grade in range(GRADES_MAX + 1)],
    "feature_pre_filter": False,  # the search changes min_data_in_leaf on rows that are binned once
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class NotTrainable(ValueError):
    """The rows or the settings cannot make a ranker; says what is missing."""


def parameters_of(settings: TrainingSettings, catalog: FeatureNames) -> Parameters:
    """LightGBM's parameters under `settings`. Raises `NotTrainable` for constraints that fit no column."""
    chosen = {
        **PARAMETERS,
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "num_threads": settings.threads,
    }
    if settings.monotone:
        chosen["monotone_constraints"] = monotone(settings.monotone, catalog)
        chosen["monotone_constraints_method"] = "intermediate"
    if settings.position_bias:
        chosen["lambdarank_position_bias_regularization"] = settings.position_bias_regularization
    return chosen


def monotone(patterns: Mapping[str, int], catalog: FeatureNames) -> list[int]:
    """-1, 0 or 1 for each column; columns that hold codes stay free, since no order means anything there.

    Raises `NotTrainable` naming a pattern that constrains nothing, or a column that two patterns pull both ways.
    """
    found = [0] * len(catalog.names)
    for pattern, sign in patterns.items():
        columns = [index for index, name in enumerate(catalog.names) if fnmatchcase(name, pattern)]
        if not columns:
            raise NotTrainable(f"monotone: no feature is named like {pattern!r}")
        ordered = [index for index in columns if index not in catalog.categorical]
        if not ordered:
            raise NotTrainable(f"monotone: {pattern!r} names only codes, which have no order")
        for index in ordered:
            if found[index] == -sign:
                raise NotTrainable(f"monotone: {catalog.names[index]} is asked to rise and to fall")
            found[index] = sign
    return found


def trees_within(budget_ms: float, leaves: int) -> int:
    """How many trees score `BUDGET_ROWS` rows within the budget; a tree's cost goes with the root of its leaves.

    Measured: 63 leaves cost .9 to 1.4 times what 31 do. At least one tree.

    >>> trees_within(20, 31), trees_within(20, 63), trees_within(20, 15)
    (421, 295, 605)
    """
    tree_ms = TREE_ROW_NS * BUDGET_ROWS * sqrt(leaves / 31) / 1e6
    return max(1, int(budget_ms / tree_ms))


def trees_room(settings: TrainingSettings, parameters: Parameters) -> int:
    """The most trees that settings and latency budget allow for trees of these leaves."""
    return min(settings.trees_max, trees_within(settings.budget_ms, int(parameters["num_leaves"])))
