"""Versions in a world's registry, made in a moment: real boosters over the world's own features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline import models
from pipeline.config import Settings
from recommender.model.artefact import save
from recommender.model.fitting import fit_ranker
from recommender.model.rows import TrainingRows
from recommender.model.training import manifest_of
from recommender.model.training_settings import TrainingSettings

LISTS, SIZE = 60, 10


def write_version(settings: Settings, version: str, *, seed: int = 1, first_ts_ms: int = 0) -> Path:
    """Trains on random rows: another seed is another model. Its window is 60 ms long."""
    features, random = models.columns(settings), np.random.default_rng(seed)
    matrix = random.normal(size=(LISTS * SIZE, len(features.names))).astype(np.float32)
    matrix[:, list(features.categorical)] = random.integers(0, 5, (len(matrix), len(features.categorical)))
    worth = (matrix @ random.normal(size=matrix.shape[1])).reshape(LISTS, SIZE)
    rows = TrainingRows(
        matrix,
        (worth == worth.max(axis=1, keepdims=True)).ravel().astype(np.int32),
        np.arange(len(matrix), dtype=np.uint64),
        np.full(LISTS, SIZE, np.int64),
        first_ts_ms + np.arange(LISTS, dtype=np.int64),
        np.arange(LISTS, dtype=np.uint64),
        tuple(f"q{number}" for number in range(LISTS)),
    )
    small = TrainingSettings(trees_max=20, search=0, patience=20)
    fitted = fit_ranker(rows, features, settings=small)
    manifest = manifest_of(fitted, rows, features, version=version)
    return save(models.folder(settings) / version, fitted.model, manifest)
