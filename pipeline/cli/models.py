"""`headrace models list|show|promote|rollback|shadow`: the registry and the gate."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from confluent_kafka import KafkaException

from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.cli.progress import Say, bar
from pipeline.config import ConfigError, Settings
from pipeline.kafka.served_log import ServedLog, served_rows
from pipeline.model_control import named
from pipeline.models import columns, folder
from pipeline.offline import QUESTIONS_MAX, Source, labelled_rows, replayer
from pipeline.promoting import HeldOut, Listed, Outcome, listing, promote, roll_back, set_shadow
from recommender.model.artefact import ModelRefused, check_version, read_manifest
from recommender.model.rows import TrainingRows

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
OFF = "off"


@click.group("models")
def command() -> None:
    """The registry and the gate: which version of the ranker serves.

    `headrace train` writes versions; what serves is the one that the topic model_control names.
    """


@command.command("list")
@JSON
@with_settings
def list_versions(*, settings: Settings, as_json: bool) -> None:
    """The versions, newest first, with the cheap checks: hash, structure, feature names."""
    control, trouble = _control(settings)
    found = listing(settings, control)
    if as_json:
        report = {"model": settings.model.name, "named": control, "trouble": trouble, "versions": found}
        click.echo(msgspec.json.encode(report).decode())
        return
    if trouble:
        click.echo(f"which one serves is not known: {trouble}", err=True)
    for listed in found:
        click.echo(_line(listed))
    if not found:
        click.echo(f"none in {folder(settings)} (`headrace train DIR` makes one)")


@command.command("show")
@click.argument("version")
@JSON
@with_settings
def show(*, settings: Settings, version: str, as_json: bool) -> None:
    """A version's manifest, readable; of the golden rows only their number."""
    try:
        check_version(version)
        manifest = read_manifest(folder(settings) / version)
    except ModelRefused as refusal:
        raise ConfigError(f"{version}: {refusal.reason}") from None
    found = msgspec.to_builtins(manifest) | {"golden": len(manifest.golden.scores)}
    if as_json:
        click.echo(printed(found))
        return
    for name, value in found.items():
        click.echo(f"{name:>14}  {value if isinstance(value, str) else printed(value)}")


@command.command("promote")
@click.argument("version")
@click.option(
    "--on", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A data set folder to compare on."
)
@click.option("--from-kafka", is_flag=True, help="Compare on what the workers served, from the configured topics.")
@click.option("--force", is_flag=True, help="Without the comparison, never without the checks; it is logged.")
@JSON
@with_settings
def promote_version(
    *, settings: Settings, version: str, on: Path | None, from_kafka: bool, force: bool, as_json: bool
) -> None:
    """Let VERSION serve: every load check, then the gate. Exit 1 where it is refused.

    The gate compares it with the serving one on labelled lists that are newer than what either has learned from; the
    lower end of the 95 % interval of its lead in NDCG@10 has to be above 0. Where nothing serves yet, it is the latency
    budget alone. Lists from Kafka are those that the serving version chose and put in order.
    """
    if on is not None and from_kafka:
        raise ConfigError("promote: --on DIR or --from-kafka, not both")
    with bar() as say:
        held_out = _served(settings, say=say) if from_kafka else _held_out(settings, on, say=say)
        outcome = promote(settings, version, now_ms=_now_ms(), held_out=held_out, force=force)
    _report(outcome, as_json=as_json)


@command.command("rollback")
@JSON
@with_settings
def rollback(*, settings: Settings, as_json: bool) -> None:
    """Let the version serve that served before; again: the one before that. The load checks hold."""
    _report(roll_back(settings, now_ms=_now_ms()), as_json=as_json)


@command.command("shadow")
@click.argument("version")
@JSON
@with_settings
def shadow(*, settings: Settings, version: str, as_json: bool) -> None:
    """Let VERSION score what is served without being shown (`off`: none); its divergence is a metric."""
    _report(set_shadow(settings, None if version == OFF else version, now_ms=_now_ms()), as_json=as_json)


def _held_out(settings: Settings, on: Path | None, *, say: Say) -> HeldOut | None:
    """The gate's lists from a folder."""
    if on is None:
        return None

    def from_folder(after_ms: int) -> TrainingRows:
        def heard(done: int, records: int) -> None:
            say("replaying", done / records)

        # whole lists: a lead on thinned ones need not be one on those that are served
        return labelled_rows(Source(on, settings), replayer(settings), after_ms=after_ms, whole=True, progress=heard)

    return from_folder


def _served(settings: Settings, *, say: Say) -> HeldOut:
    """The gate's lists as they were served."""

    def from_kafka(after_ms: int) -> TrainingRows:
        with ServedLog(settings, progress=say) as log:
            return served_rows(log, columns(settings), lists_max=QUESTIONS_MAX, after_ms=after_ms)

    return from_kafka


def _control(settings: Settings) -> tuple[dict[str, str], str | None]:
    """What model_control names, or why it cannot be told."""
    try:
        return named(settings.kafka), None
    except KafkaException as error:
        return {}, str(error.args[0].str())
    except ConfigError as error:
        return {}, str(error)


def _line(listed: Listed) -> str:
    marks = " ".join(mark for mark, on in (("serving", listed.serving), ("shadow", listed.shadow)) if on)
    if listed.refused:
        return f"{listed.version}  {marks or '-':<14}  refused: {listed.refused}"
    window = listed.window
    told = f"{window.queries} lists {_day(window.first_ts_ms)} to {_day(window.last_ts_ms)}" if window else ""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in listed.metrics.items())
    return f"{listed.version}  {marks or '-':<14}  {listed.trees} trees, {told}, held out: {metrics}"


def _day(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _report(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(outcome).decode())
    else:
        _print(outcome)
    if outcome.refused:
        sys.exit(1)


def _print(outcome: Outcome) -> None:
    verdict = outcome.verdict
    if verdict is not None:
        click.echo(f"latency: {verdict.latency_ms:.1f} ms for 500 rows")
    if verdict is not None and verdict.lead is not None:
        lead = verdict.lead
        span = f", 95 % interval {lead.low:+.4f} to {lead.high:+.4f}" if lead.low is not None else ""
        click.echo(
            f"NDCG@10 on {verdict.queries} lists: {outcome.version} {verdict.ndcg:.4f}, "
            f"{verdict.serving} {verdict.serving_ndcg:.4f}, lead {lead.mean:+.4f}{span}"
        )
    for reason in outcome.refused:
        click.echo(f"refused: {reason}", err=True)
    if outcome.refused:
        click.echo(f"{outcome.model}: {outcome.before or 'no version'} goes on", err=True)
        return
    if outcome.forced:
        click.echo("forced: not compared with what served; this is on record")
    click.echo(f"{outcome.model}: {outcome.version or 'no version'} is named (before: {outcome.before or 'none'})")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
