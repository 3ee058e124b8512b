"""The small ranker that the demo trains while its traffic runs: `headrace train` on a sample, then `headrace models promote`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import child

NICE = "5"  # behind the worker and the traffic in the queue for the processor
STOP_S = 2.0


class Trainer:
    """Owns the commands, one after the other; a failure is told once and leaves the demo running without a model.

    `check` is called often, from the main thread: it starts the next command.
    """

    def __init__(self, commands: Sequence[Sequence[str]], *, log: Path, say: Callable[[str], None]) -> None:
        self.status = "in training"  # then `promoted`, or `none (training failed)`
        self._log, self._say = log, say
        self._waiting = [list(command) for command in commands]
        self._process: subprocess.Popen[bytes] = self._next()

    def check(self) -> None:
        """Goes on when a command has ended."""
        code = self._process.poll()
        if code is None or self.status != "in training":
            return
        if code == 0 and self._waiting:
            self._process = self._next()
        elif code == 0:
            self.status = "promoted"
        else:
            self.status = "none (training failed)"
            last_words = child.tail_of(self._log)
            self._say(f"the training failed with code {code}, recommendations stay partial:\n{last_words}")

    def stop(self) -> None:
        """Ends what still runs."""
        child.stop(self._process, timeout_s=STOP_S)

    def _next(self) -> subprocess.Popen[bytes]:
        return child.start(["/usr/bin/env", "nice", "-n", NICE, *self._waiting.pop(0)], log=self._log)
