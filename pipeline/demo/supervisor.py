"""Keeps the worker running: starts it, starts it again when it dies, gives up when it cannot live."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import child

BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # the first restart comes at once: a kill -9 is not the worker's fault
HEALTHY_S = 10.0
QUICK_DEATHS_MAX = 8
STOP_S = 15.0


class WorkerGone(RuntimeError):
    """The worker died too often in a row; the message has the end of its log."""


class Supervisor:
    """Owns the worker process. `check` is called often, from the main thread, with the monotonic clock."""

    def __init__(self, argv: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None) -> None:
        self.restarts = 0
        self.log = log
        self._argv = list(argv)
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._start_at_s = 0.0
        self._quick_deaths = 0

    @property
    def pid(self) -> int | None:
        """The running worker's process id."""
        return self._process.pid if self._process is not None else None

    def start(self, now_s: float) -> None:
        """Starts the worker."""
        self._process = child.start(self._argv, log=self.log, environ=self._environ)
        self._started_s = now_s

    def check(self, now_s: float) -> str:
        """Starts the worker again if it is down and its pause is over; what is wrong, empty when all is well.

        Raises `WorkerGone` after 8 deaths in a row, each within 10 s of its start.
        """
        if self._process is None:
            if now_s < self._start_at_s:
                return "the worker is down, it starts again soon"
            self.restarts += 1
            self.start(now_s)
            return ""
        code = self._process.poll()
        if code is None:
            return ""
        quick = now_s - self._started_s < HEALTHY_S
        self._quick_deaths = self._quick_deaths + 1 if quick else 1
        if self._quick_deaths >= QUICK_DEATHS_MAX:
            raise WorkerGone(
                f"the worker died {QUICK_DEATHS_MAX} times in a row, last with code {code}\n{child.tail_of(self.log)}"
            )
        self._process = None
        self._start_at_s = now_s + BACKOFF_S[min(self._quick_deaths, len(BACKOFF_S)) - 1]
        # A signal needs no last words, and has none.
        return f"the worker ended with code {code}" + ("" if code < 0 else f"\n{child.tail_of(self.log, lines=3)}")

    def last_words(self, *, lines: int = 1) -> str:
        """The end of the worker's log."""
        return child.tail_of(self.log, lines=lines)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 15 s."""
        if self._process is not None:
            child.stop(self._process, timeout_s=STOP_S)
            self._process = None
