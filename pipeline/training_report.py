"""What `headrace train` tells: what was read and dropped, the settings that were tried, and how good the ranker is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from recommender.model.boosting import Round
from recommender.model.manifest import Importance, Tried
from recommender.model.picture import PICTURE_FILE
from recommender.model.rows import TrainingRows
from recommender.model.training import Trained

WIDTH = 110
COLUMNS_SHOWN = 10


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """One training. records: read; refused: dead letters by reason; dropped: why questions are missing, with counts.

    lists: learned from; rows: theirs; labelled: rows with a label. picture: its path, or none.
    """

    path: str
    version: str
    init: str | None
    records: int
    refused: dict[str, int]
    lists: int
    rows: int
    labelled: int
    dropped: dict[str, int]
    features: int
    trees: int
    leaves: int
    metrics: dict[str, float]
    tried: list[Tried]
    rounds: list[Round]
    importances: list[Importance]
    parameters: dict[str, Any]
    picture: str | None
    notes: list[str]


def training_report(
    trained: Trained, rows: TrainingRows, *, records: int, refused: Mapping[str, int]
) -> TrainingReport:
    """All of one training, as `--json` gives it."""
    manifest, picture = trained.manifest, trained.path / PICTURE_FILE
    return TrainingReport(
        path=str(trained.path),
        version=manifest.version,
        init=manifest.init,
        records=records,
        refused=dict(refused),
        lists=len(rows),
        rows=len(rows.items),
        labelled=int(np.count_nonzero(rows.grades)),
        dropped=dict(rows.dropped),
        features=len(manifest.feature_names),
        trees=manifest.num_trees,
        leaves=manifest.num_leaves,
        metrics=manifest.metrics,
        tried=manifest.tried,
        rounds=list(trained.fitted.rounds),
        importances=manifest.importances,
        parameters=manifest.parameters,
        picture=str(picture) if picture.is_file() else None,
        notes=list(trained.notes),
    )


def readable(report: TrainingReport) -> str:
    """The same for a reader: lines and two tables."""
    text = StringIO()
    console = Console(file=text, width=WIDTH, highlight=False)
    for line in _counts(report):
        console.print(line, markup=False)
    if len(report.tried) > 1:
        console.print(_tried(report.tried))
    console.print(_importances(report.importances))
    for line in _result(report):
        console.print(line, markup=False)
    return text.getvalue().rstrip("\n")


def _counts(report: TrainingReport) -> Iterator[str]:
    yield f"{report.records} records read, {sum(report.refused.values())} refused"
    yield from (f"  {count} {reason}" for reason, count in report.refused.items())
    yield f"{report.lists} lists of together {report.rows} rows, {report.labelled} with a label"
    yield from (f"  dropped: {count} {why}" for why, count in report.dropped.items())


def _result(report: TrainingReport) -> Iterator[str]:
    yield "held out: " + ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
    grown = f", grown on {report.init}" if report.init else ""
    yield f"{report.path}: {report.trees} trees of {report.leaves} leaves, {report.features} features{grown}"
    yield from report.notes
    if report.picture:
        yield f"picture: {report.picture}"


def _tried(attempts: list[Tried]) -> Table:
    table = Table(title="settings tried on the held-out lists", title_justify="left", box=None)
    for name, justify in (
        ("changed", "left"),
        ("trees", "right"),
        ("NDCG@10", "right"),
        ("lead", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for attempt in attempts:
        changed = ", ".join(f"{name} {value:g}" for name, value in attempt.changed.items()) or "as configured"
        lead = f"{attempt.lead:+.4f} +- {attempt.error:.4f}" if attempt.changed else ""
        table.add_row(changed, str(attempt.trees), f"{attempt.ndcg:.4f}", lead, "kept" if attempt.kept else "")
    return table


def _importances(columns: list[Importance]) -> Table:
    table = Table(title="columns by gain", title_justify="left", box=None)
    table.add_column("column")
    table.add_column("gain", justify="right")
    table.add_column("splits", justify="right")
    for column in columns[:COLUMNS_SHOWN]:
        table.add_row(column.feature, f"{column.gain:.0f}", str(column.splits))
    return table
