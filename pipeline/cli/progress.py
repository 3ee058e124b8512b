"""One progress bar on stderr for the commands that take long; nothing where that is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Say = Callable[..., None]  # (what is done, share done from 0 to 1 or None where nobody knows)


@contextmanager
def bar() -> Iterator[Say]:
    """Yields `say(text, share=None)`, which is cheap enough to be called a thousand times."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _, __=None: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def say(text: str, share: float | None = None) -> None:
            progress.update(task, description=text, total=None if share is None else 1.0, completed=share or 0.0)

        yield say
