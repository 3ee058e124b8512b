"""`headrace init DIR`: a worker.toml for a data set, with a comment at every guess."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.config import ConfigError
from pipeline.initialise import initialise


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", default=Path("worker.toml"), type=click.Path(path_type=Path), show_default=True, help="- : none."
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
def command(*, directory: Path, out: Path, force: bool) -> None:
    """Look at a sample (the first 80 % by time), write a worker.toml for it and show it."""
    text = initialise(directory)
    click.echo(text, nl=False)
    if str(out) == "-":
        return
    if not force and out.exists() and out.stat().st_size:
        raise ConfigError(f"{out} exists: name another with --out, or --force")
    out.write_text(text)
    click.echo(f"{out} is written; next: headrace --config {out} worker", err=True)
