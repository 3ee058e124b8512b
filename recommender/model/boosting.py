"""One LambdaMART fit (Burges 2010, as LightGBM has it), stopped where held-out lists gain no more.

Deterministic: the same rows and parameters give the same trees, whatever the threads. The judge of a round is our own
NDCG@10, fair to ties: LightGBM's takes equal scores in the order in which rows stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from recommender.evaluation.metrics import ndcg, standings
from recommender.model.artefact import FeatureNames
from recommender.model.parameters import Parameters
from recommender.model.rows import TrainingRows

Doubles = NDArray[np.float64]
GAIN_MIN = 1e-4  # a round must better the best by this much, or it counts as patience lost


class Round(NamedTuple):
    """NDCG@10 after `tree` trees: on the newest lists that were learned from, and on held-out ones."""

    tree: int
    train: float
    validation: float


class Grown(NamedTuple):
    """A fit that stopped by itself. trees: the best number; ndcg float64[Q]: of each held-out list with so many."""

    booster: Any
    trees: int
    rounds: tuple[Round, ...]
    ndcg: Doubles


class Binned:
    """Rows and held-out rows as LightGBM holds them, binned once for many fits."""

    def __init__(
        self, rows: TrainingRows, held_out: TrainingRows, catalog: FeatureNames, parameters: Parameters
    ) -> None:
        self._rows, self._held_out = rows, held_out
        self._train = _dataset(rows, catalog, parameters)
        self._valid = _dataset(held_out, catalog, parameters, reference=self._train)

    def grow(
        self,
        parameters: Parameters,
        *,
        trees_max: int,
        patience: int,
        init: Any = None,
        heard: Callable[[Round], None] | None = None,
    ) -> Grown:
        """Grows at most `trees_max` further trees and stops `patience` rounds after the best on the held-out lists."""
        rounds: list[Round] = []

        def listen(env: Any) -> None:
            (_, _, train, _), (_, _, validation, _) = (found[:4] for found in env.evaluation_result_list)
            rounds.append(Round(env.iteration + 1, train, validation))
            if heard is not None:
                heard(rounds[-1])

        booster = lightgbm.train(
            dict(parameters),
            self._train,
            num_boost_round=trees_max,
            valid_sets=[self._train, self._valid],
            valid_names=["training", "validation"],
            feval=self._judge(),
            init_model=init,
            callbacks=[listen, lightgbm.early_stopping(patience, verbose=False, min_delta=GAIN_MIN)],
        )
        trees = max(1, booster.best_iteration)
        return Grown(booster, trees, tuple(rounds), ndcg_at_10(predict(booster, self._held_out, trees), self._held_out))

    def _judge(self) -> Callable[[Doubles, Any], tuple[str, float, bool]]:
        """Our NDCG@10; of the learned lists as many of the newest as are held out, to cost no more than these."""
        held_out, lists = self._held_out, len(self._rows)
        newest = self._rows.slice(max(0, lists - len(held_out)), lists)

        def judge(scores: Doubles, dataset: Any) -> tuple[str, float, bool]:
            rows = held_out if dataset is self._valid else newest
            return "ndcg@10", float(ndcg_at_10(scores[-len(rows.items) :], rows).mean()), True

        return judge


def refit(
    rows: TrainingRows,
    catalog: FeatureNames,
    parameters: Parameters,
    *,
    trees: int,
    init: Any = None,
    heard: Callable[[int], None] | None = None,
) -> Any:
    """A booster with `trees` further trees, nothing held out. heard(trees so far)."""
    callbacks = [] if heard is None else [lambda env: heard(env.iteration + 1)]
    rows_binned = _dataset(rows, catalog, parameters)
    return lightgbm.train(dict(parameters), rows_binned, num_boost_round=trees, init_model=init, callbacks=callbacks)


def ndcg_at_10(scores: Doubles, rows: TrainingRows) -> Doubles:
    """float64[Q]: NDCG@10 of each list, fair to ties."""
    return ndcg(standings(scores, rows.grades, rows.groups), k=10)


def predict(booster: Any, rows: TrainingRows, trees: int) -> Doubles:
    """float64[N]: the raw scores of the first `trees` trees, as serving computes them."""
    found = booster.predict(rows.matrix, num_iteration=trees, raw_score=True, num_threads=1)
    return np.asarray(found, np.float64)


def text_of(booster: Any, trees: int) -> str:
    """The model as text, which does not tell how many threads made it: equal models are equal bytes."""
    return re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 1]", _text(booster, trees), flags=re.MULTILINE)


def _text(booster: Any, trees: int) -> str:
    return str(booster.model_to_string(num_iteration=trees))


def _dataset(rows: TrainingRows, catalog: FeatureNames, parameters: Parameters, *, reference: Any = None) -> Any:
    """With the places shown where the parameters ask for position debiasing; held-out rows need none."""
    debiased = "lambdarank_position_bias_regularization" in parameters and reference is None
    return lightgbm.Dataset(
        rows.matrix,
        rows.grades,
        group=rows.groups,
        feature_name=list(catalog.names),
        categorical_feature=list(catalog.categorical),
        reference=reference,
        position=rows.positions if debiased else None,
        params=dict(parameters),
        free_raw_data=False,
    )
