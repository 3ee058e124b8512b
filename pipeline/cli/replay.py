"""`headrace replay DIR`: a log through the live code, without Kafka and Redis."""

from __future__ import annotations

import gzip
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from pipeline.cli import with_settings
from pipeline.config import ConfigError, Settings
from pipeline.offline import (
    FeatureFiles,
    Source,
    labelled_rows,
    recommendation,
    replayer,
    save_training_rows,
    settings_for,
    with_model,
)
from recommender.replay import Replayer, replay

KINDS = ("recommendations", "features", "training")


@click.command("replay")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many rows.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where to write; absent: state only.")
@click.option(
    "--write",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="What to write to --out; repeat it. Default: recommendations.",
)
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="A version's folder to rank with.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    directory: Path,
    limit: int | None,
    out: Path | None,
    kinds: tuple[Literal["recommendations", "features", "training"], ...],
    model: Path | None,
    as_json: bool,
) -> None:
    """Replay the data set folder DIR: state digest, and on demand recommendations, features (.npz), training rows.

    Without --config the folder's own worker.toml holds, else what `init` would write for it.
    """
    if kinds and out is None:
        raise ConfigError("--write needs --out")
    if "training" in kinds and len(kinds) > 1:
        raise ConfigError("--write training asks other questions than the triggers: replay once more for it")
    settings = settings_for(directory, settings)
    source = Source(directory, settings, limit=limit)
    clockwork = with_model(settings, model) if model else replayer(settings)
    begun_s = time.monotonic()
    answered = 0
    if out is None:
        for _ in replay(source, clockwork, answers=False):
            pass
    else:
        out.mkdir(parents=True, exist_ok=True)
        answered = _write(source, clockwork, out, kinds or ("recommendations",))
    seconds = time.monotonic() - begun_s
    _report(source, clockwork, answered=answered, seconds=seconds, as_json=as_json)


def _write(source: Source, clockwork: Replayer, out: Path, kinds: tuple[str, ...]) -> int:
    names = clockwork.catalog.names
    if "training" in kinds:
        rows = labelled_rows(source, clockwork)
        save_training_rows(out / "training.npz", rows, names)
        return len(rows)
    answered = 0
    with ExitStack() as stack:
        features = stack.enter_context(FeatureFiles(out, names)) if "features" in kinds else None
        lines = None
        if "recommendations" in kinds:
            lines = stack.enter_context(gzip.GzipFile(out / "recommendations.jsonl.gz", "wb", compresslevel=4))
        for answer in replay(source, clockwork):
            answered += 1
            if lines:
                lines.write(recommendation(answer) + b"\n")
            if features:
                features.add(answer)
    return answered


def summary(source: Source, clockwork: Replayer) -> dict[str, Any]:
    """What the state says of a replay: rows, applied, repeated, dead letters by reason, digest."""
    counts = clockwork.counts()
    totals = dict.fromkeys(("applied", "repeated", "dead_lettered"), 0)
    for name, count in counts.items():
        kind = name.partition(":")[0]
        totals[kind] = totals.get(kind, 0) + count
    return {
        "rows": source.rows,
        **{name: totals[name] for name in ("applied", "repeated", "dead_lettered")},
        "refused": dict(source.refused.most_common(20)),
        "digest": clockwork.digest(),
    }


def _report(source: Source, clockwork: Replayer, *, answered: int, seconds: float, as_json: bool) -> None:
    found = summary(source, clockwork) | {"answered": answered, "seconds": round(seconds, 3)}
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    speed = source.rows / max(seconds, 1e-9)
    click.echo(f"{source.rows} rows in {seconds:.1f} s ({speed:.0f}/s), {answered} answers")
    click.echo(f"applied {found['applied']}, repeated {found['repeated']}, dead letters {found['dead_lettered']}")
    for reason, count in found["refused"].items():
        click.echo(f"  {count:>7}  {reason}")
    if source.first_refused:
        click.echo(f"  first: {source.first_refused}")
    click.echo(f"digest {found['digest']}")
