"""What a model's columns are worth to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recommender.model.manifest import Importance


def importances(booster: Any, trees: int) -> tuple[Importance, ...]:
    """The columns that the first `trees` trees use, the greatest gain first."""
    gains = booster.feature_importance("gain", iteration=trees)
    splits = booster.feature_importance("split", iteration=trees)
    order = np.argsort(-gains, kind="stable")
    names = booster.feature_name()
    return tuple(
        Importance(names[column], float(gains[column]), int(splits[column])) for column in order if splits[column]
    )
