"""The registry as the settings say: where its versions lie, what they are checked against, how one is opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from features.catalog import Catalog, catalog
from pipeline.config import Settings
from recommender.candidates import SOURCES
from recommender.model.artefact import load
from recommender.model.registry import Registry
from recommender.ranker import Cascade, LightGBMRanker


def folder(settings: Settings) -> Path:
    """Where the versions lie."""
    return Path(settings.model.directory) / settings.model.name


def columns(settings: Settings) -> Catalog:
    """The features that a version must have been trained on."""
    return catalog(settings.domain, sources=[source.name for source in SOURCES])


def opener(settings: Settings, *, timed: bool = True) -> Callable[[Path], LightGBMRanker]:
    """Opens a version's folder with every check; `timed`: the latency budget too, in time of the calling thread."""
    features, model = columns(settings), settings.model
    cascade = Cascade(model.cascade_trees, model.cascade_keep) if model.cascade_trees else None
    clock_s = time.thread_time if timed else None

    def open_model(path: Path) -> LightGBMRanker:
        return load(path, features, cascade=cascade, clock_s=clock_s, budget_ms=model.budget_ms)

    return open_model


def registry(settings: Settings) -> Registry:
    """The registry of a worker; nothing is loaded yet."""
    return Registry(folder(settings), opener(settings))
