"""`headrace replay DIR`: a log through the live code, without Kafka and Redis; `--rec-id`: one served answer again."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import click

from pipeline import recheck
from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.cli.progress import bar
from pipeline.config import ConfigError, Settings
from pipeline.kafka.reading import Reader
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
from recommender.recommend import NO_VERSION
from recommender.replay import Replayer, replay

KINDS = ("recommendations", "features", "training")
EXIT_DIFFERS = 1
EXIT_NOT_HELD = 3


@click.command("replay")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
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
@click.option("--rec-id", help="Instead of DIR: this served recommendation, its scores recomputed to the bit.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --rec-id: the registry's folder; default: model.directory.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    directory: Path | None,
    limit: int | None,
    out: Path | None,
    kinds: tuple[Literal["recommendations", "features", "training"], ...],
    model: Path | None,
    rec_id: str | None,
    models: Path | None,
    as_json: bool,
) -> None:
    """Replay the data set folder DIR: state digest, and on demand recommendations, features (.npz), training rows.

    Without --config the folder's own worker.toml holds, else what `init` would write for it.

    With --rec-id: finds the served rows of a recommendation on the configured Kafka, scores them with the very model
    that scored them, and compares the scores with the logged and the published ones, to the bit. Exit 0: all are equal;
    1: something differs; 3: equal as far as can be seen, a recommendation is not on its topic (no more, or a crash came
    between and its repeat is).
    """
    if rec_id is not None:
        if any((directory, limit, out, kinds, model)):
            raise ConfigError("--rec-id takes --models and --json only")
        registry = Path(models or settings.model.directory) / settings.model.name
        sys.exit(_recheck(settings, rec_id, registry, as_json=as_json))
    if directory is None or models is not None:
        raise ConfigError("replay takes a data set folder, or --rec-id (and --models with it)")
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


def _recheck(settings: Settings, rec_id: str, models: Path, *, as_json: bool) -> int:
    """Compares one served recommendation; the exit code."""
    prefix = settings.kafka.topic_prefix
    with Reader(settings.kafka) as reader, bar() as say:
        records, published = recheck.find(
            reader, prefix=prefix, rec_id=rec_id, progress=lambda topic, count: say(f"{topic}: {count} records read")
        )
        checks = recheck.checks(records, published, models=models)
    if as_json:
        click.echo(printed({"rec_id": rec_id, "records": [each.report() for each in checks]}))
    else:
        for each in checks:
            click.echo("\n".join(_checked(each)))
    if not all(each.equal for each in checks):
        return EXIT_DIFFERS
    return 0 if all(each.is_published for each in checks) else EXIT_NOT_HELD


def _checked(check: recheck.Check) -> Iterator[str]:
    """A compared record as lines: the model, each item, the outcome."""
    served = check.served
    cascade = f", cascade of {served.cascade_trees} trees" if served.cascade_trees else ""
    yield f"{served.rec_id} for {served.user_id}: model {served.model_version}{cascade}, features {served.features_hash}"
    if served.model_version == NO_VERSION:
        yield "no model scored it, the candidate sources ranked it: there is nothing to recompute"
    wide = max(map(len, served.item_ids), default=4)
    yield f"{'item':<{wide}}  {'logged':>24}  {'recomputed':>24}  {'published':>24}  equal"
    for item in check.items:
        scores = "  ".join(f"{_score(score):>24}" for score in (item.logged, item.recomputed, item.published))
        yield f"{item.item_id:<{wide}}  {scores}  {'yes' if item.equal else 'NO'}{'' if item.shown else '  (not shown)'}"
    if not check.is_published and check.strangers:
        yield f"{check.published} published under this rec_id, none with these items by this model"
    elif not check.is_published:
        yield (
            "its recommendation never went out: a crash came between, and the repeat is another record"
            if check.published
            else "the recommendation itself is not on its topic any more"
        )
    yield "equal to the bit" if check.equal else "DIFFERENT"


def _score(score: float | None) -> str:
    return "-" if score is None else repr(score)


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
        click.echo(printed(found))
        return
    speed = source.rows / max(seconds, 1e-9)
    click.echo(f"{source.rows} rows in {seconds:.1f} s ({speed:.0f}/s), {answered} answers")
    click.echo(f"applied {found['applied']}, repeated {found['repeated']}, dead letters {found['dead_lettered']}")
    for reason, count in found["refused"].items():
        click.echo(f"  {count:>7}  {reason}")
    if source.first_refused:
        click.echo(f"  first: {source.first_refused}")
    click.echo(f"digest {found['digest']}")
