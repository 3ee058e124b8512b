"""The worker starts itself again: the process is replaced by a new one of the same command line, under the same pid.

Works in a container (pid 1 stays) and by hand, and needs no supervisor. At most 5 times within 10 minutes, each time
with a longer pause before; then the process ends with code 75, loudly: something is wrong that a restart does not
mend. What was restarted for which cause is handed on in the environment. Output under way may come twice, as after a
kill -9; nothing is lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from pipeline.logs import get_logger

log = get_logger(__name__)

VARIABLE = "HEADRACE_RESTARTS"
EXIT_STALLED = 75  # EX_TEMPFAIL: start me again
WITHIN_S = 600.0
RESTARTS_MAX = 5
BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0)
VARIABLE_BYTES_MAX = 4_096
STDERR = 2


class Restarts(msgspec.Struct, frozen=True):
    """What lies behind this process. causes {cause: how often, ever}; at_s: the monotonic clock's readings, newest last.

    The monotonic clock counts on through an exec, and no step of the wall clock makes room for more.
    """

    causes: dict[str, int] = {}
    at_s: list[float] = []

    @property
    def total(self) -> int:
        """How often this process replaced itself."""
        return sum(self.causes.values())

    def within(self, now_s: float) -> list[float]:
        """Those of the last 10 minutes.

        >>> Restarts(at_s=[5.0, 700.0]).within(900.0)
        [700.0]
        """
        return [at_s for at_s in self.at_s if now_s - WITHIN_S <= at_s <= now_s]

    def backoff_s(self, now_s: float) -> float:
        """Seconds to wait before the next restart: 0 before the first, doubling after.

        >>> Restarts().backoff_s(900.0), Restarts(at_s=[800.0, 850.0]).backoff_s(900.0)
        (0.0, 2.0)
        """
        return BACKOFF_S[min(len(self.within(now_s)), len(BACKOFF_S) - 1)]

    def and_one(self, cause: str, now_s: float) -> Restarts | None:
        """One more because of `cause`; None: too many.

        >>> again = Restarts(causes={"stalled": 1}, at_s=[5.0]).and_one("stalled", 900.0)
        >>> again.causes, again.at_s, again.total
        ({'stalled': 2}, [900.0], 2)
        >>> Restarts(at_s=[890.0, 891.0, 892.0, 893.0, 894.0]).and_one("stalled", 900.0) is None
        True
        """
        recent = self.within(now_s)
        if len(recent) >= RESTARTS_MAX:
            return None
        return Restarts({**self.causes, cause: self.causes.get(cause, 0) + 1}, [*recent, now_s])


def behind(environ: Mapping[str, str]) -> Restarts:
    """What the environment hands on; none where it is absent or unreadable.

    >>> behind({VARIABLE: '{"causes":{"stalled":1},"at_s":[5.0]}'}).total, behind({VARIABLE: "?"}).total
    (1, 0)
    """
    try:
        return msgspec.json.decode(environ.get(VARIABLE, "")[:VARIABLE_BYTES_MAX], type=Restarts)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Restarts()


def pause_s() -> float:
    """Seconds to wait before `start_again` is called now."""
    return behind(os.environ).backoff_s(time.monotonic())


def start_again(cause: str, told: str) -> NoReturn:
    """Replaces this process by a new one of the same command line; ends it with code 75 after too many.

    cause: one of a few words, a metric's label. told: the whole of it, for the log. Wait `pause_s` before.
    """
    again = behind(os.environ).and_one(cause, time.monotonic())
    if again is None:
        log.critical("stalled again and again, giving up", cause=told, restarts=RESTARTS_MAX, within_s=WITHIN_S)
        _flush()
        os._exit(EXIT_STALLED)
    log.critical("stalled, starting again", cause=told, restart=again.total)
    _flush()
    os.environ[VARIABLE] = msgspec.json.encode(again).decode()
    _close_on_exec()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line, no shell
    except OSError as error:
        log.critical("cannot start again", cause=str(error))
        _flush()
        os._exit(EXIT_STALLED)


def _close_on_exec() -> None:
    """No descriptor but the standard ones lives on. Python's own are close-on-exec; a library's need not be."""
    listed = Path("/proc/self/fd")
    for number in [int(each.name) for each in listed.iterdir()] if listed.is_dir() else ():
        with suppress(OSError):  # the listing's own is closed by now
            if number > STDERR:
                os.set_inheritable(number, False)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
