"""`headrace init DIR`: a worker.toml for a data set, with a comment at every guess."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import click

from pipeline.config import ConfigError
from pipeline.initialise import initialise

SEAL = "# As init wrote it: "


def sealed(text: str) -> str:
    """The text with a last line that tells whether anybody changed it since.

    >>> untouched(sealed("k = 5").encode()), untouched(sealed("k = 5").replace("5", "6").encode())
    (True, False)
    """
    return f"{text}{SEAL}{_digest(text.encode())}\n"


def untouched(found: bytes) -> bool:
    """Whether a file is what `sealed` made."""
    text, seal, told = found.rpartition(SEAL.encode())
    return bool(seal) and told.decode("ascii", "replace").strip() == _digest(text)


def _digest(text: bytes) -> str:
    return sha256(text).hexdigest()[:16]


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", default=Path("worker.toml"), type=click.Path(path_type=Path), show_default=True, help="- : none."
)
@click.option("--force", is_flag=True, help="Write over a file that was changed by hand.")
def command(*, directory: Path, out: Path, force: bool) -> None:
    """Look at a sample (the first 80 % by time), write a worker.toml for it and show it.

    A file that an earlier `init` wrote and nobody changed is written over, any other is kept.
    """
    text = sealed(initialise(directory))
    click.echo(text, nl=False)
    if str(out) == "-":
        return
    if not force and out.exists() and out.stat().st_size and not untouched(out.read_bytes()):
        raise ConfigError(f"{out} exists: name another with --out, or --force")
    out.write_text(text)
    click.echo(f"{out} is written; next: headrace --config {out} worker", err=True)
