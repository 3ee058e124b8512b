"""`headrace demo`: everything at once, nothing else to install."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from pipeline.demo.run import DemoError, Options, run
from pipeline.demo.screen import Frame, line, picture
from pipeline.demo.summary import Summary
from pipeline.demo.supervisor import WorkerGone
from pipeline.embedded import EmbeddedError

FRAMES_PER_S = 4
LINE_EVERY_S = 3.0


class Screen:
    """Frames as a live picture on a terminal, else as a plain line every 3 s on stderr."""

    def __init__(self, *, live: bool) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if live else None
        self._last_s = 0.0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draws the frame if it is time to."""
        now_s = time.monotonic()
        if now_s - self._last_s < (1 / FRAMES_PER_S if self._live else LINE_EVERY_S):
            return
        self._last_s = now_s
        if self._live is not None:
            self._live.update(picture(frame), refresh=True)
        else:
            click.echo(line(frame), err=True)

    def say(self, text: str) -> None:
        """One line above the picture, or on stderr."""
        if self._live is not None:
            self._console.print(text, style="dim", markup=False, highlight=False)
        else:
            click.echo(text, err=True)


@click.command("demo")
@click.option("--dataset", metavar="DIR", help="Stream this data set folder; `completejourney`: the pip package.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds of traffic. Absent: until Ctrl-C."
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Records/s: 200 for the shop, unlimited for a data set."
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Write what was published as a data set."
)
@click.option("--seed", type=int, default=7, show_default=True, help="Which shop is simulated.")
@click.option("--json", "as_json", is_flag=True, help="No picture; the summary as JSON on stdout.")
def command(
    *, dataset: str | None, seconds: float | None, rate: float | None, keep: Path | None, seed: int, as_json: bool
) -> None:
    """Embedded broker and Redis, a worker, traffic and a live view: nothing else to install.

    Exit 0 when everything published is accounted for and every trigger is answered.
    """
    # `docker stop`, `timeout` and service managers say SIGTERM: it ends the demo as Ctrl-C does, with a summary.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = Options(dataset=dataset, seconds=seconds, rate=rate, keep=keep, seed=seed)
    live = not as_json and sys.stdout.isatty()
    try:
        with Screen(live=live) as screen:
            summary = run(options, screen.show, screen.say)
    except (EmbeddedError, DemoError, WorkerGone) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.Abort from None
    click.echo(json.dumps(summary.figures, indent=2) if as_json else _readable(summary))
    for sentence in summary.missing:
        click.echo(f"missing: {sentence}", err=True)
    sys.exit(0 if summary.ok else 1)


def _readable(summary: Summary) -> str:
    lines = []
    for name, value in summary.figures.items():
        shown = json.dumps(value) if isinstance(value, dict) else str(value)
        lines.append(f"{name:>24}  {shown}")
    return "\n".join(lines)
