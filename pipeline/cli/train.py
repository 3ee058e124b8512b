"""`headrace train DIR|--from-kafka --out MODELS`: a ranker with its manifest, from a replay or from what was served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from features.catalog import Catalog
from pipeline.cli import with_settings
from pipeline.cli.progress import Say, bar
from pipeline.config import ConfigError, Settings
from pipeline.kafka.served_log import ServedLog, served_rows
from pipeline.offline import QUESTIONS_MAX, Source, labelled_rows, replayer, settings_for
from pipeline.training_report import readable, training_report
from recommender.model.artefact import ModelRefused, check_version, read_manifest
from recommender.model.parameters import NotTrainable
from recommender.model.rows import TrainingRows
from recommender.model.training import train
from recommender.model.training_settings import TrainingSettings

FOLDER = click.Path(path_type=Path, file_okay=False)


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that go over the section [training]; absent: as configured."""
    for option in (
        click.option("--threads", type=int, help="Does not change the model."),
        click.option("--seed", type=int, help="Same rows and same seed: same bytes."),
        click.option("--position-bias/--no-position-bias", default=None, help="Learn away what the place shown does."),
        click.option(
            "--monotone", multiple=True, metavar="PATTERN=1|-1", help="Columns that only raise (lower) a score."
        ),
        click.option("--search", type=int, help="Other settings to try on the newest lists; 0: none."),
        click.option("--learning-rate", type=float, help="Where the search begins."),
        click.option("--leaves", type=int, help="Of a tree, where the search begins."),
        click.option("--trees", "trees_max", type=int, help="At most so many."),
    ):
        function = option(function)
    return function


@click.command("train")
@click.argument("directory", type=FOLDER, required=False)
@click.option("--from-kafka", is_flag=True, help="Learn from what the workers served, on the configured topics.")
@click.option("--since", type=click.DateTime(), help="With --from-kafka: only what the broker took since (UTC).")
@click.option("--out", type=FOLDER, help="The registry; default: model.directory.")
@click.option("--version", "version", help="The version's name; they sort by time. Default: the time in UTC.")
@click.option("--init", help="A version to grow on by the lists that are newer than its own.")
@click.option(
    "--questions", type=click.IntRange(min=20), default=QUESTIONS_MAX, show_default=True, help="Newest lists to learn."
)
@training_options
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    directory: Path | None,
    from_kafka: bool,
    since: datetime | None,
    out: Path | None,
    version: str | None,
    init: str | None,
    questions: int,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a ranker and put it into the registry: from a replay of the data set folder DIR, or --from-kafka.

    From a folder, lists that were shown are learned from where it has impressions, else what the candidate sources find
    after each trigger; without --config its own worker.toml holds, else what `init` would write for it. From Kafka, the
    very rows that were served are joined with the impressions and the actions that came after.
    """
    if from_kafka == (directory is not None):
        raise ConfigError("train: a folder DIR or --from-kafka, one of them")
    settings = settings if directory is None else settings_for(directory, settings)
    training = training_of(settings.training, **chosen)
    catalog = replayer(settings).catalog
    place = (out or Path(settings.model.directory)) / settings.model.name
    version = version or datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    _check_versions(place, version, init)
    try:
        after_ms = read_manifest(place / init).window.last_ts_ms if init else 0
        with bar() as say:
            if directory is None:
                learned = _served(settings, catalog, since, questions=questions, after_ms=after_ms, say=say)
            else:
                learned = _replayed(settings, directory, questions=questions, after_ms=after_ms, say=say)
            trained = train(
                learned.rows,
                catalog,
                directory=place,
                version=version,
                settings=training,
                init=init,
                progress=lambda turn: say(str(turn), turn.share),
            )
    except NotTrainable as error:
        raise ConfigError(f"{directory or 'from Kafka'}: {error}") from None
    except ModelRefused as error:
        raise ConfigError(f"--init {init}: {error.reason}") from None
    report = training_report(trained, learned.rows, records=learned.records, refused=learned.refused)
    click.echo(msgspec.json.encode(report).decode() if as_json else readable(report))


def _check_versions(place: Path, version: str, init: str | None) -> None:
    """Before anything is learned: names that name a folder in the registry, and a version that is not there yet."""
    try:
        for name in filter(None, (version, init)):
            check_version(name)
    except ModelRefused as error:
        raise ConfigError(error.reason) from None
    if (place / version).exists():
        raise ConfigError(f"{place / version} exists: a version is never written twice, name another with --version")


class Learned(NamedTuple):
    """What a model is trained on, of how many records, and the dead letters among them by reason."""

    rows: TrainingRows
    records: int
    refused: Mapping[str, int]


def _replayed(settings: Settings, directory: Path, *, questions: int, after_ms: int, say: Say) -> Learned:
    source = Source(directory, settings)
    rows = labelled_rows(
        source,
        replayer(settings),
        questions_max=questions,
        after_ms=after_ms,
        progress=lambda count, total: say(f"{count} of {total} records replayed", count / total),
    )
    return Learned(rows, source.rows, source.refused)


def _served(
    settings: Settings, catalog: Catalog, since: datetime | None, *, questions: int, after_ms: int, say: Say
) -> Learned:
    since_ms = 0 if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
    with ServedLog(settings, since_ms=since_ms, progress=say) as log:
        rows = served_rows(log, catalog, lists_max=questions, after_ms=after_ms)
    return Learned(rows, log.records, log.refused)


def training_of(training: TrainingSettings, *, monotone: tuple[str, ...] = (), **chosen: Any) -> TrainingSettings:
    """`training` under what was chosen on the command line (None: not). Raises `ConfigError` naming the option."""
    tree = {**msgspec.to_builtins(training), **{key: value for key, value in chosen.items() if value is not None}}
    if monotone:
        tree["monotone"] = dict(_constraint(text) for text in monotone)
    try:
        return msgspec.convert(tree, TrainingSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"training: {error}") from None


def _constraint(text: str) -> tuple[str, int]:
    pattern, _, sign = text.rpartition("=")
    if not pattern or sign not in {"1", "-1"}:
        raise ConfigError(f"--monotone {text}: not PATTERN=1 or PATTERN=-1")
    return pattern, int(sign)
