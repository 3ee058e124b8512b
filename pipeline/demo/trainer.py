"""The small ranker that the demo trains while its traffic runs: `headrace train` on a sample, behind everybody else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import child

NICE = "5"  # behind the worker and the traffic in the queue for the processor
STOP_S = 2.0


class Trainer:
    """Owns the training process; a failure is told once and leaves the demo running without a model."""

    def __init__(self, argv: Sequence[str], *, log: Path, say: Callable[[str], None]) -> None:
        self._log, self._say = log, say
        self._told = False
        self._process: subprocess.Popen[bytes] = child.start(["/usr/bin/env", "nice", "-n", NICE, *argv], log=log)

    @property
    def status(self) -> str:
        """One of `in training`, `trained`, `none (training failed)`."""
        code = self._process.poll()
        if code is None:
            return "in training"
        if code == 0:
            return "trained"
        if not self._told:
            self._told = True
            self._say(
                f"the training failed with code {code}, recommendations stay partial:\n{child.tail_of(self._log)}"
            )
        return "none (training failed)"

    def stop(self) -> None:
        """Ends it if it still runs."""
        child.stop(self._process, timeout_s=STOP_S)
