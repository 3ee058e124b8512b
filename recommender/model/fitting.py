"""From labelled rows to a ranker: settings and trees by the newest lists, then a fit on all. No file, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recommender.evaluation.metrics import mrr, standings
from recommender.model.artefact import FeatureNames
from recommender.model.boosting import Binned, Round, ndcg_at_10, predict, refit, text_of
from recommender.model.importance import importances
from recommender.model.manifest import Importance, Tried
from recommender.model.parameters import NotTrainable, Parameters, parameters_of, trees_room
from recommender.model.rows import TrainingRows
from recommender.model.search import STEPS, Chosen, choose
from recommender.model.training_settings import TrainingSettings

QUERIES_MIN = 20


class Turn(NamedTuple):
    """How far a fit is: `tree` of at most `trees_max` of setting `setting` of `settings` (0: the final fit)."""

    setting: int
    settings: int
    tree: int
    trees_max: int
    ndcg: float | None = None

    @property
    def share(self) -> float:
        """The share of the trees at hand that is done."""
        return min(1.0, self.tree / self.trees_max)

    def __str__(self) -> str:
        if self.ndcg is None:
            return f"final fit, tree {self.tree} of {self.trees_max}"
        return f"setting {self.setting} of {self.settings}, tree {self.tree}: NDCG@10 {self.ndcg:.4f}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A ranker as LightGBM's text, and how it came to be.

    trees: as many as the text has. rounds: NDCG@10 of the chosen setting after each tree. metrics: of that fit on the
    held-out lists. notes: what the operator should know.
    """

    model: str
    parameters: Parameters
    trees: int
    metrics: dict[str, float]
    rounds: tuple[Round, ...]
    tried: tuple[Tried, ...]
    importances: tuple[Importance, ...]
    notes: tuple[str, ...]


def fit_ranker(
    rows: TrainingRows,
    catalog: FeatureNames,
    *,
    settings: TrainingSettings,
    held_out: TrainingRows | None = None,
    init: Any = None,
    tuned: Mapping[str, Any] | None = None,
    progress: Callable[[Turn], None] | None = None,
) -> Fitted:
    """The newest `validation_share` of the queries chooses settings and trees; the ranker is then fitted on all rows.

    held_out: queries that choose in their place; `rows` then teach from first to last. init: a booster of the same
    columns that is grown on, up to `trees_max` in all. tuned: parameters that go over those of `settings`. progress is
    called after each tree. Raises `NotTrainable` in plain words.
    """
    check_rows(rows, catalog, settings)
    if held_out is not None and not len(held_out):
        raise NotTrainable("no list with a label among those that should choose the settings")
    parameters = {**parameters_of(settings, catalog), **(tuned or {})}
    begun = 0 if init is None else int(init.current_iteration())
    room = trees_room(settings, parameters)
    if begun >= room:
        raise NotTrainable(f"the model to grow on has {begun} of at most {room} trees: train from nothing")
    rows = rows.scattered()
    learned, judged = (rows, held_out.scattered()) if held_out is not None else _parted(rows, settings)
    chosen = choose(
        Binned(learned, judged, catalog, parameters),
        parameters,
        settings,
        init=init,
        heard=_listener(settings, room, progress),
    )
    trees, booster = chosen.grown.trees, chosen.grown.booster
    if held_out is None:
        final = None if progress is None else lambda tree: progress(Turn(0, fits_max(settings), tree, trees))
        booster = refit(rows, catalog, chosen.parameters, trees=trees - begun, init=init, heard=final)
    return Fitted(
        model=text_of(booster, trees),
        parameters=chosen.parameters,
        trees=trees,
        metrics=_metrics(chosen, judged, init),
        rounds=chosen.grown.rounds,
        tried=chosen.tried,
        importances=importances(booster, trees),
        notes=_notes(trees, trees_room(settings, chosen.parameters), begun),
    )


def check_rows(rows: TrainingRows, catalog: FeatureNames, settings: TrainingSettings) -> None:
    """Raises `NotTrainable` where nothing can be learned, and says why."""
    dropped = "".join(f"; {count} {why}" for why, count in rows.dropped.items())
    if len(rows) == 0 or not (rows.grades > 0).any():
        raise NotTrainable(f"no list with a label: 0 of {len(rows)} queries can be learned from{dropped}")
    if len(rows) < QUERIES_MIN:
        raise NotTrainable(f"{len(rows)} lists with a label, at least {QUERIES_MIN} are needed{dropped}")
    if rows.matrix.shape[1] != len(catalog.names):
        raise NotTrainable(f"rows of {rows.matrix.shape[1]} features, the catalogue has {len(catalog.names)}")
    if (np.diff(rows.ts_ms) < 0).any():
        raise NotTrainable("the queries are not in time order")
    if settings.position_bias and rows.positions is None:
        raise NotTrainable("position_bias: these rows do not know where they were shown, only shown lists do")


def fits_max(settings: TrainingSettings) -> int:
    """How many settings are tried at most."""
    return 1 + len(STEPS[: settings.search])


def _parted(rows: TrainingRows, settings: TrainingSettings) -> tuple[TrainingRows, TrainingRows]:
    """(older queries to learn from, the newest to judge by), at least one each."""
    cut = max(1, min(len(rows) - 1, round(len(rows) * (1 - settings.validation_share))))
    return rows.slice(0, cut), rows.slice(cut, len(rows))


def _listener(
    settings: TrainingSettings, room: int, progress: Callable[[Turn], None] | None
) -> Callable[[int, Round], None] | None:
    if progress is None:
        return None
    return lambda number, found: progress(Turn(number + 1, fits_max(settings), found.tree, room, found.validation))


def _metrics(chosen: Chosen, judged: TrainingRows, init: Any) -> dict[str, float]:
    """Tie-fair figures of the chosen fit on lists it did not see; of the model it grew on beside them."""
    lists = standings(predict(chosen.grown.booster, judged, chosen.grown.trees), judged.grades, judged.groups)
    found = {
        "ndcg@10": float(chosen.grown.ndcg.mean()),
        "mrr": float(mrr(lists).mean()),
        "queries": float(len(judged)),
    }
    if init is not None:
        before = predict(init, judged, int(init.current_iteration()))
        found["init ndcg@10"] = float(ndcg_at_10(before, judged).mean())
    return found


def _notes(trees: int, room: int, begun: int) -> tuple[str, ...]:
    if trees < room:
        return ()
    mend = "the next training has to begin from nothing" if begun else "trees_max and budget_ms allow no more"
    return (f"stopped at {trees} trees while more might have gained: {mend}",)
