"""`python -m tests.chaos`: runs scenarios, prints the table; exit 0 only if every one is clean."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.config import ConfigError
from pipeline.dataset import DataSetError
from tests.chaos.dataset import DataSet
from tests.chaos.run import Result, run
from tests.chaos.scenarios import Scenario, load
from tests.chaos.stand import BROKERS, REDISES
from tests.chaos.table import table
from tests.chaos.traffic import Shape

WIDTH_MIN = 140  # of the table, where nobody knows how wide the terminal is


@click.command()
@click.option("--seed", type=int, default=1, help="The same seed gives the same traffic and the same plan.")
@click.option(
    "--scenario", "names", multiple=True, default=("all",), help="One or several; all: every one that can run here."
)
@click.option("--events", type=click.IntRange(1_000), default=200_000, show_default=True)
@click.option("--broker", type=click.Choice(BROKERS), default="apache", show_default=True)
@click.option("--redis", type=click.Choice(REDISES), default="embedded", show_default=True)
@click.option(
    "--dataset",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Traffic of a data set folder (its first --events rows) in place of made traffic.",
)
@click.option("--unfenced", is_flag=True, help="Workers whose store has no fence: the suite must fail.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where runs leave their files (kept); default: a temporary one.",
)
@click.option("--json", "as_json", is_flag=True, help="The results as JSON on stdout, instead of the table.")
@click.option("--list", "list_them", is_flag=True, help="Names the scenarios and ends.")
def main(
    seed: int, names: tuple[str, ...], events: int, broker: str, redis: str, folder: Path | None, unfenced: bool,
    directory: Path | None, as_json: bool, list_them: bool,
) -> None:  # fmt: skip
    """Kills, freezes, cuts and fills what Headrace runs on, and counts what is lost."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = load()
    if list_them:
        for each in known.values():
            click.echo(f"{each.name:20} {each.about}")
        return
    console = Console(stderr=True)
    dataset = _dataset(folder, events)
    chosen = _chosen(known, names, partial(_lack, broker=broker, redis=redis, dataset=dataset), console)
    root = directory or Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    one = partial(run, seed=seed, events=events, broker=broker, redis=redis, unfenced=unfenced, dataset=dataset)
    total = events if dataset is None else dataset.events
    results = [_one(each, console, root / f"{each.name}-{seed}", one, total) for each in chosen]
    _end(results, console, root, keep=directory is not None, as_json=as_json)


def _chosen(
    known: dict[str, Scenario], names: tuple[str, ...], lack: Callable[[Scenario], str], console: Console
) -> list[Scenario]:
    """The scenarios asked for; of `all`, those that lack nothing."""
    if unknown := [name for name in names if name != "all" and name not in known]:
        raise click.UsageError(f"no scenario named {unknown[0]}; there are {', '.join(known)}")
    wanted = list(known) if "all" in names else list(names)
    lacking = {name: why for name in wanted if (why := lack(known[name]))}
    for name, why in lacking.items():
        if "all" not in names:
            raise click.UsageError(f"{name} cannot run here: {why}")
        console.print(f"left out: {name}: {why}", style="bold red")
    return [known[name] for name in wanted if name not in lacking]


def _lack(scenario: Scenario, *, broker: str, redis: str, dataset: DataSet | None) -> str:
    if broker not in scenario.setup.brokers or redis not in scenario.setup.redises:
        return "it needs another broker or Redis"
    if dataset is not None and (scenario.rewrite is not None or scenario.setup.shape != Shape()):
        return "it has a traffic of its own"
    return scenario.setup.lacks()


def _dataset(folder: Path | None, events: int) -> DataSet | None:
    try:
        return None if folder is None else DataSet.of(folder, events_max=events)
    except (ConfigError, DataSetError) as error:
        raise click.UsageError(str(error)) from None


def _one(scenario: Scenario, console: Console, directory: Path, one: Callable[..., Result], total: int) -> Result:
    columns = (
        TextColumn("{task.fields[name]:14}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total, name=scenario.name)

        def tell(doing: str, applied: int, faults: int) -> None:
            progress.update(task, description=f"{doing}, {faults} faults", completed=applied)

        result = one(scenario, directory=directory, tell=tell)
    for line in [*result.said, *filter(None, [result.error])]:
        console.print(line, style="red", markup=False, highlight=False)
    return result


def _end(results: list[Result], console: Console, root: Path, *, keep: bool, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(
            msgspec.json.encode([{**asdict(each), "clean": each.clean} for each in results]) + b"\n"
        )
    else:
        Console(width=max(WIDTH_MIN, console.width)).print(table(results))
    clean = bool(results) and all(each.clean for each in results)
    if clean and not keep:
        shutil.rmtree(root, ignore_errors=True)
    elif not clean:
        console.print(f"plans and logs of all processes: {root}")
    raise SystemExit(0 if clean else 1)


if __name__ == "__main__":
    main()
