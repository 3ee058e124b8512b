"""`headrace publish PATH`: rows into the topics, and what of them the broker confirmed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from features.schema import INPUT_TOPICS
from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.config import ConfigError, Settings
from pipeline.dataset import files, lines
from pipeline.kafka.access import reach
from pipeline.kafka.delivery import Delivery
from pipeline.publishing import DELIMITERS, STDIN, Pace, rows, topics_of

SHOW_EVERY_S = 0.2
EXIT_NOT_ALL = 1
EXIT_INTERRUPTED = 130


@click.command("publish")
@click.argument("path", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Default: by the file's name, else user_actions.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Rows a second.")
@click.option("--speedup", type=click.FloatRange(min=0, min_open=True), help="Event time, so many times faster.")
@click.option("--map", "entries", multiple=True, metavar="FIELD=COLUMN", help="Repeat it; FIELD==TEXT is a constant.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@with_settings
def command(
    *,
    settings: Settings,
    path: Path,
    topic: str | None,
    rate: float | None,
    speedup: float | None,
    entries: tuple[str, ...],
    as_json: bool,
) -> None:
    """Publish PATH: a data set folder, a .jsonl, .csv or .tsv file (or .gz of it), or - for JSON lines on stdin.

    Lines go out as they are: what breaks the contract comes back as a dead letter that names the field. Exit 1 when
    the broker did not confirm every row.
    """
    if path != STDIN and not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    reach(settings.kafka, [settings.kafka.topic_prefix + each for each in topics_of(path, topic)])
    begun_s = time.monotonic()
    interrupted = False
    with Delivery(settings.kafka) as delivery, _progress(path) as show:
        pace = Pace(rate=rate, speedup=speedup)
        prefix = settings.kafka.topic_prefix
        try:
            for row in rows(path, topic=topic, entries=entries):
                _wait(pace.wait_s(row.ts_ms), delivery, show)
                delivery.send(row.label, prefix + row.topic, key=row.key, value=row.raw)
                show(delivery.delivered)
        except KeyboardInterrupt:
            interrupted = True
        delivery.flush()
        show(delivery.delivered)
    _report(delivery, time.monotonic() - begun_s, as_json=as_json)
    if interrupted or delivery.failed:
        sys.exit(EXIT_INTERRUPTED if interrupted else EXIT_NOT_ALL)


def _wait(seconds: float, delivery: Delivery, show: Callable[[int], None]) -> None:
    """Sleeps until a row is due, taking delivery reports meanwhile."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        delivery.poll(0)
        show(delivery.delivered)
        time.sleep(min(left_s, SHOW_EVERY_S))


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """A bar of delivered rows on stderr; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), "rows delivered", TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=5) as bar:
        task = bar.add_task("", total=_count(path))
        shown_s = 0.0

        def show(delivered: int) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s > SHOW_EVERY_S or delivered == bar.tasks[0].total:
                shown_s = now_s
                bar.update(task, completed=delivered)

        yield show


def _count(path: Path) -> int | None:
    """Rows to come, None for stdin. A second pass over the files: about 0.2 s a million rows, for terminals only."""
    if path == STDIN:
        return None
    found = files(path).values() if path.is_dir() else (path,)
    total = sum(1 for file in found for _ in lines(file))
    return total - bool(DELIMITERS.keys() & set(path.suffixes))


def _report(delivery: Delivery, seconds: float, *, as_json: bool) -> None:
    books = delivery.books
    if as_json:
        report = {
            "rows": sum(book.rows for book in books.values()),
            "delivered": delivery.delivered,
            "failed": delivery.failed,
            "seconds": round(seconds, 3),
            "files": dict(books),
        }
        click.echo(printed(report))
        return
    for label, book in books.items():
        lost = f", {book.rows - book.delivered} NOT" if book.delivered < book.rows else ""
        click.echo(f"{label}: {book.delivered} of {book.rows} rows delivered{lost}")
        for reason, count in book.reasons.items():
            click.echo(f"  {count} x {reason}")
    click.echo(f"{delivery.delivered} rows delivered in {seconds:.1f} s ({delivery.delivered / seconds:.0f}/s)")
