"""Trains a LambdaMART ranker from labelled rows and saves it as an artefact.

LambdaMART (Burges 2010) as LightGBM has it. Deterministic: the same rows give the same bytes on the same machine.
The number of trees comes from the last part of the window by time; the saved model is then fitted on all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from features.scene import Floats
from recommender.evaluation.metrics import by_query, mrr, ndcg
from recommender.model.artefact import FeatureNames, save
from recommender.model.manifest import Manifest, Window, golden
from recommender.model.rows import TrainingRows

QUERIES_MIN = 20
GOLDEN_ROWS = 96
GRADES_MAX = 30

Parameters = Mapping[str, Any]

# Chosen on validation slices of two sets of shown lists (24 and 25 items, 140 and 207 features): few features a tree
# and heavy leaves gained .003 and .005 NDCG@10 over LightGBM's usual .6, 50 and 5.
PARAMETERS: Parameters = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "lambdarank_truncation_level": 20,
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "bagging_by_query": True,
    "lambda_l2": 20.0,
    "max_cat_threshold": 16,
    "cat_smooth": 20.0,
    "label_gain": [float(grade) for grade in range(GRADES_MAX + 1)],
    "deterministic": True,
    "force_row_wise": True,
    "seed": 20_240_229,
    "verbosity": -1,
}


class NotTrainable(ValueError):
    """The rows cannot make a ranker; says what is missing."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the model lies, and its manifest."""

    path: Path
    manifest: Manifest


def train(
    rows: TrainingRows,
    catalog: FeatureNames,
    *,
    directory: Path,
    version: str,
    trees_max: int = 200,
    validation_share: float = 0.2,
    patience: int = 30,
    num_threads: int = 1,
    parameters: Parameters | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Trains and saves `directory/version` (`directory` is `<models>/<name>`; versions sort by their name).

    The newest `validation_share` of the queries chooses the number of trees (at most `trees_max`, early stop after
    `patience` rounds without gain) and gives the manifest's metrics. `parameters` go over `PARAMETERS`.
    `progress(round, ndcg@10)` is called after each round of the first fit. Raises `NotTrainable` in plain words.
    """
    _check(rows, catalog)
    rows = rows.scattered()
    chosen = {**PARAMETERS, **(parameters or {}), "num_threads": num_threads}
    cut = max(1, min(len(rows) - 1, round(len(rows) * (1 - validation_share))))
    held_out = rows.slice(cut, len(rows))
    first = _fit(rows.slice(0, cut), catalog, chosen, trees_max, held_out, patience, progress)
    trees = max(1, first.best_iteration)
    booster = _fit(rows, catalog, chosen, trees)
    model = booster.model_to_string(num_iteration=trees)
    manifest = Manifest(
        version=version,
        sha256="",
        lightgbm=lightgbm.__version__,
        objective="lambdarank",
        feature_names=list(catalog.names),
        features_hash=catalog.fingerprint,
        categorical=list(catalog.categorical),
        num_trees=trees,
        num_leaves=int(chosen["num_leaves"]),
        window=Window(int(rows.ts_ms[0]), int(rows.ts_ms[-1]), len(rows)),
        golden=_golden(model, rows.matrix, catalog),
        metrics=_metrics(first, trees, held_out),
        parameters=chosen,
    )
    return Trained(save(directory / version, model, manifest), manifest)


def _check(rows: TrainingRows, catalog: FeatureNames) -> None:
    dropped = "".join(f"; {count} {why}" for why, count in rows.dropped.items())
    if len(rows) == 0 or not (rows.grades > 0).any():
        raise NotTrainable(f"no list with a label: 0 of {len(rows)} queries can be learned from{dropped}")
    if len(rows) < QUERIES_MIN:
        raise NotTrainable(f"{len(rows)} lists with a label, at least {QUERIES_MIN} are needed{dropped}")
    if rows.matrix.shape[1] != len(catalog.names):
        raise NotTrainable(f"rows of {rows.matrix.shape[1]} features, the catalogue has {len(catalog.names)}")
    if (np.diff(rows.ts_ms) < 0).any():
        raise NotTrainable("the queries are not in time order")


def _dataset(rows: TrainingRows, catalog: FeatureNames, reference: Any = None) -> Any:
    return lightgbm.Dataset(
        rows.matrix,
        rows.grades,
        group=rows.groups,
        feature_name=list(catalog.names),
        categorical_feature=list(catalog.categorical),
        reference=reference,
        params={"verbosity": -1},
    )


def _fit(
    rows: TrainingRows,
    catalog: FeatureNames,
    parameters: Parameters,
    trees: int,
    held_out: TrainingRows | None = None,
    patience: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Any:
    """A booster of `trees` trees; with `held_out` it stops early by NDCG@10 there."""
    dataset = _dataset(rows, catalog)
    if held_out is None:
        return lightgbm.train(dict(parameters), dataset, num_boost_round=trees)
    callbacks: list[Any] = [lightgbm.early_stopping(patience, first_metric_only=True, verbose=False, min_delta=1e-4)]
    if progress is not None:
        callbacks.append(lambda env: progress(env.iteration + 1, env.evaluation_result_list[0][2]))
    return lightgbm.train(
        dict(parameters),
        dataset,
        num_boost_round=trees,
        valid_sets=[_dataset(held_out, catalog, dataset)],
        callbacks=callbacks,
    )


def _metrics(booster: Any, trees: int, held_out: TrainingRows) -> dict[str, float]:
    """Tie-fair figures of the first fit on the part of the window it did not see."""
    scores = booster.predict(held_out.matrix, num_iteration=trees, raw_score=True, num_threads=1)
    return {
        "ndcg@10": float(by_query(ndcg, scores, held_out.grades, held_out.groups).mean()),
        "mrr": float(by_query(mrr, scores, held_out.grades, held_out.groups).mean()),
        "queries": float(len(held_out)),
    }


def _golden(model: str, matrix: Floats, catalog: FeatureNames) -> Any:
    """Rows spread over the window and hostile ones (all absent, huge, unseen categories), scored by the saved text."""
    picked = matrix[np.linspace(0, len(matrix) - 1, GOLDEN_ROWS).astype(np.int64)]
    hostile = np.zeros((4, matrix.shape[1]), np.float32)
    hostile[0], hostile[1], hostile[2] = np.nan, np.float32(1e30), np.float32(-1e30)
    hostile[1:, list(catalog.categorical)] = 9_999
    rows = np.ascontiguousarray(np.concatenate([picked, hostile]), np.float32)
    booster = lightgbm.Booster(model_str=model)
    return golden(rows, np.asarray(booster.predict(rows, raw_score=True, num_threads=1), np.float64))
