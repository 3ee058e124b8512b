"""`headrace train DIR --out MODELS`: a ranker with its manifest, from a replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson
from rich.console import Console

from pipeline.cli import with_settings
from pipeline.config import ConfigError, Settings
from pipeline.offline import Source, labelled_rows, replayer, settings_for
from recommender.model.training import NotTrainable, Trained, train

QUESTIONS_MAX = 20_000


@click.command("train")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The registry; default: model.directory.")
@click.option("--version", "version", help="The version's name; they sort by time. Default: the time in UTC.")
@click.option("--trees", type=click.IntRange(1, 2000), default=200, show_default=True, help="At most so many.")
@click.option(
    "--questions", type=click.IntRange(min=20), default=QUESTIONS_MAX, show_default=True, help="Newest lists to learn."
)
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    directory: Path,
    out: Path | None,
    version: str | None,
    trees: int,
    questions: int,
    threads: int,
    as_json: bool,
) -> None:
    """Train a ranker from a replay of the data set folder DIR and put it into the registry.

    Lists that were shown are learned from where the folder has impressions, else what the candidate sources find after
    each trigger. Without --config the folder's own worker.toml holds, else what `init` would write for it.
    """
    settings = settings_for(directory, settings)
    source = Source(directory, settings)
    clockwork = replayer(settings)
    place = (out or Path(settings.model.directory)) / settings.model.name
    with _status() as say:
        rows = labelled_rows(
            source, clockwork, questions_max=questions, progress=lambda count: say(f"{count} rows replayed")
        )
        say(f"training on {len(rows)} lists")
        try:
            trained = train(
                rows,
                clockwork.catalog,
                directory=place,
                version=version or datetime.now(UTC).strftime("%Y%m%dT%H%M%S"),
                trees_max=trees,
                num_threads=threads,
                progress=lambda turn, ndcg: say(f"tree {turn}: NDCG@10 {ndcg:.4f}"),
            )
        except NotTrainable as error:
            raise ConfigError(f"{directory}: {error}") from None
    _report(trained, as_json=as_json)


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """A status line on stderr, nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("replaying") as status:
        yield status.update


def _report(trained: Trained, *, as_json: bool) -> None:
    manifest = trained.manifest
    if as_json:
        found = {
            "path": str(trained.path),
            "version": manifest.version,
            "trees": manifest.num_trees,
            "features": len(manifest.feature_names),
            "lists": manifest.window.queries,
            "metrics": manifest.metrics,
        }
        click.echo(orjson.dumps(found).decode())
        return
    click.echo(f"{trained.path}: {manifest.num_trees} trees, {len(manifest.feature_names)} features")
    click.echo("held out: " + ", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items()))
