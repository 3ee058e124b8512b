"""A thread beside the event loop that sees what the loop cannot: the loop itself blocked, a call that never returns.

It counts its own looks, not the clock: a process that was stopped (SIGSTOP, a laptop's lid) has slept through them all.
What holds the interpreter's lock for ever blocks this thread too; then /healthz is silent as well, and a health check
from outside has to act.
"""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from pipeline import child, restart
from pipeline.logs import get_logger

log = get_logger(__name__)

BOUNDED_LOOKS = 10


class Organ(NamedTuple):
    """Something that must show signs of life. `sign` gives something else at each look while it lives, None while it
    need not; `limit_s`: how long it may give the same.
    """

    cause: str
    told: str
    sign: Callable[[], object]
    limit_s: float


@dataclass(slots=True)
class _Seen:
    sign: object = None
    looks: int = 0


class Pulse:
    """Looks at organs; `dead` is the step, `start` the thread that takes it again and again."""

    def __init__(self, organs: Sequence[Organ], *, look_s: float) -> None:
        self._organs, self._look_s = organs, look_s
        self._seen = [_Seen() for _ in organs]

    def dead(self) -> Organ | None:
        """The organ that has shown no sign for its limit, by the number of looks; None while all live."""
        for organ, seen in zip(self._organs, self._seen, strict=True):
            sign = organ.sign()
            if sign is None or sign != seen.sign:
                seen.sign, seen.looks = sign, 0
                continue
            seen.looks += 1
            if seen.looks * self._look_s >= organ.limit_s:
                return organ
        return None

    def start(self) -> None:
        """Looks from now on, in a daemon thread; a dead organ ends in `restart.start_again`."""
        threading.Thread(target=self._run, args=(child.death_signal(),), name="pulse", daemon=True).start()

    def _run(self, death_signal: int) -> None:
        child.die_with_parent(death_signal)  # what an exec keeps is its own thread's, and the next process inherits it
        while True:
            _rest(self._look_s)
            try:
                organ = self.dead()
            except Exception:
                log.exception("a look at the process failed")
                continue
            if organ is not None:
                _rest(restart.pause_s())
                restart.start_again(organ.cause, f"{organ.told} for {organ.limit_s:g} s")


def _rest(seconds: float) -> None:
    """Relative: time.sleep waits for a moment, and fails where clocks jump (EINVAL, `clock_skew` with seed 703)."""
    select.select([], [], [], seconds)


@contextmanager
def bounded(cause: str, told: str, *, limit_s: float) -> Iterator[None]:
    """What is done within ends within `limit_s`, or the process starts again."""
    under_way = True
    Pulse([Organ(cause, told, lambda: "at it" if under_way else None, limit_s)], look_s=limit_s / BOUNDED_LOOKS).start()
    try:
        yield
    finally:
        under_way = False


class LoopBeat:
    """An event loop's sign of life: asked from another thread, answered on the loop."""

    def __init__(self) -> None:
        self._beats = 0

    def sign(self, loop: asyncio.AbstractEventLoop) -> int:
        """How often the loop has answered; asks again. A closed loop answers no more."""
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._beat)
        return self._beats

    def _beat(self) -> None:
        self._beats += 1
