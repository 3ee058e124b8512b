"""`headrace rebuild [DIR]`: all state again into the next generation, while workers answer on from the old one."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.cli.progress import bar
from pipeline.config import ConfigError, Settings
from pipeline.rebuild import Rebuilt, clean, rebuild


@click.command("rebuild")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--anew", is_flag=True, help="Throw away what a rebuild that died has left; else it is gone on with.")
@click.option("--keep-old", is_flag=True, help="Leave the generation that served before in Redis.")
@click.option("--digest/--no-digest", "with_digest", default=True, help="All state is read once for it.")
@click.option("--clean", "only_clean", is_flag=True, help="Only remove generations that neither serve nor are built.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    directory: Path | None,
    anew: bool,
    keep_old: bool,
    with_digest: bool,
    only_clean: bool,
    as_json: bool,
) -> None:
    """Build all state again from the topics, or first from the data set folder DIR, and let it serve.

    Workers answer on from the old state and move over by themselves within a second of the flip. Redis needs room for
    both. What the topics have too of DIR is recognised by its id among the 256 newest events (64 impressions) of its
    user. A rebuild that was killed goes on where it stood. What the old state came from and the topics no
    longer hold (their retention) is told at the end; `--keep-old` keeps that state in Redis until `--clean`.
    """
    if only_clean:
        if directory or anew or keep_old:
            raise ConfigError("rebuild --clean takes --json only")
        with bar() as say:
            removed = clean(settings, say=say)
        click.echo(printed({"removed": removed}) if as_json else f"{removed} keys removed")
        return
    with bar() as say:
        done = rebuild(settings, folder=directory, anew=anew, keep_old=keep_old, with_digest=with_digest, say=say)
    click.echo(_json(done) if as_json else _readable(done))


def _json(done: Rebuilt) -> str:
    records = done.records.total()
    report = {
        "generation": {"from": done.came_from, "to": done.generation},
        "went_on": done.went_on,
        "records": dict(done.records),
        "refused": done.refused,
        "seconds": round(done.seconds, 3),
        "records_per_s": round(records / done.seconds, 1),
        "digest": done.digest or None,
        "removed": done.removed,
        "lacking": done.lacking,
    }
    return printed(report)


def _readable(done: Rebuilt) -> str:
    records = done.records.total()
    lines = [f"{topic}: {count} records" for topic, count in done.records.items()]
    if done.went_on:
        lines.append("gone on with what a rebuild that died had left: the figures are of this run")
    if done.refused:
        lines.append(f"{done.refused} of them cannot be read, as they could not the first time")
    lines.append(f"{records} records in {done.seconds:.1f} s ({records / done.seconds:.0f}/s)")
    lines.append(f"generation {done.generation} serves, instead of {done.came_from}; {done.removed} old keys removed")
    if done.lacking:
        lines += ["what served before came from this, too, which is no longer there:"]
        lines += [f"  {each}" for each in done.lacking]
    if done.digest:
        lines.append(f"digest {done.digest}")
    return "\n".join(lines)
