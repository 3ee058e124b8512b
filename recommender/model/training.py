"""Fits a ranker and puts it into the registry as an artefact: model, manifest, and a picture where one can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import msgspec
import numpy as np

from features.scene import Floats
from recommender.model.artefact import FeatureNames, load, read_manifest, save
from recommender.model.fitting import Fitted, Turn, fit_ranker
from recommender.model.manifest import Golden, Manifest, Window, golden
from recommender.model.parameters import NotTrainable
from recommender.model.picture import MISSING, PICTURE_FILE, can_draw, report_png
from recommender.model.rows import TrainingRows
from recommender.model.search import TUNED
from recommender.model.training_settings import TrainingSettings

GOLDEN_ROWS = 96
IMPORTANCES_MAX = 50  # of the manifest


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the model lies, its manifest, the fit it came from, and what the operator should know."""

    path: Path
    manifest: Manifest
    fitted: Fitted
    notes: tuple[str, ...]


def train(
    rows: TrainingRows,
    catalog: FeatureNames,
    *,
    directory: Path,
    version: str,
    settings: TrainingSettings,
    init: str | None = None,
    progress: Callable[[Turn], None] | None = None,
) -> Trained:
    """Trains and saves `directory/version` (`directory` is `<models>/<name>`; versions sort by their name).

    init: a version beside it that is grown on by rows newer than its window, with the settings it was made with.
    Raises `NotTrainable` in plain words, `ModelRefused` for an `init` that may not serve these columns either.
    """
    before = None if init is None else read_manifest(directory / init)
    if before is None:
        fitted = fit_ranker(rows, catalog, settings=settings, progress=progress)
    else:
        _check_newer(rows, before)
        booster = load(directory / before.version, catalog).booster
        tuned = {name: before.parameters[name] for name in TUNED if name in before.parameters}
        alone = msgspec.structs.replace(settings, search=0)
        fitted = fit_ranker(rows, catalog, settings=alone, init=booster, tuned=tuned, progress=progress)
    manifest = manifest_of(fitted, rows, catalog, version=version, before=before)
    files, notes = _picture(fitted, version)
    path = save(directory / version, fitted.model, manifest, files=files)
    return Trained(path, manifest, fitted, (*fitted.notes, *notes))


def manifest_of(
    fitted: Fitted, rows: TrainingRows, catalog: FeatureNames, *, version: str, before: Manifest | None = None
) -> Manifest:
    """What stands beside the model; its window is that of the rows, and of the version it was grown on."""
    return Manifest(
        version=version,
        sha256="",
        lightgbm=lightgbm.__version__,
        objective="lambdarank",
        feature_names=list(catalog.names),
        features_hash=catalog.fingerprint,
        categorical=list(catalog.categorical),
        num_trees=fitted.trees,
        num_leaves=int(fitted.parameters["num_leaves"]),
        window=_window(rows, before),
        golden=_golden(fitted.model, rows.matrix, catalog),
        metrics=fitted.metrics,
        parameters=dict(fitted.parameters),
        tried=list(fitted.tried),
        importances=list(fitted.importances[:IMPORTANCES_MAX]),
        init=before.version if before else None,
    )


def _picture(fitted: Fitted, version: str) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The picture as a file of the artefact, or why there is none."""
    if not can_draw():
        return {}, (MISSING,)
    lists = int(fitted.metrics["queries"])
    title = f"{version}: {fitted.trees} trees, {len(fitted.importances)} columns used"
    drawn = report_png(fitted.rounds, fitted.importances, trees=fitted.trees, lists=lists, title=title)
    return {PICTURE_FILE: drawn}, ()


def _check_newer(rows: TrainingRows, before: Manifest) -> None:
    known = int((rows.ts_ms <= before.window.last_ts_ms).sum())
    if known:
        raise NotTrainable(f"{known} of {len(rows)} lists are not newer than the window of {before.version}")


def _window(rows: TrainingRows, before: Manifest | None) -> Window:
    first, last, queries = int(rows.ts_ms[0]), int(rows.ts_ms[-1]), len(rows)
    if before is None:
        return Window(first, last, queries)
    return Window(before.window.first_ts_ms, last, before.window.queries + queries)


def _golden(model: str, matrix: Floats, catalog: FeatureNames) -> Golden:
    """Rows spread over the window and hostile ones (all absent, huge, unseen categories), scored by the saved text."""
    picked = matrix[np.linspace(0, len(matrix) - 1, GOLDEN_ROWS).astype(np.int64)]
    hostile = np.zeros((4, matrix.shape[1]), np.float32)
    hostile[0], hostile[1], hostile[2] = np.nan, np.float32(1e30), np.float32(-1e30)
    hostile[1:, list(catalog.categorical)] = 9_999
    rows = np.ascontiguousarray(np.concatenate([picked, hostile]), np.float32)
    booster = lightgbm.Booster(model_str=model)
    return golden(rows, np.asarray(booster.predict(rows, raw_score=True, num_threads=1), np.float64))
