"""Faults: what is done to whom, and when. A plan is data, so that a seed gives the same one again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.stand import Stand
from tests.chaos.watch import Watch

Ending = Callable[[], None]
KINDS: dict[str, Callable[..., Ending | None]] = {}
LINE_WAIT_S = 60.0  # a line that does not come within this is not waited for any longer: a kill may have swallowed it
TICK_S = 0.02


def fault(strike: Callable[..., Ending | None]) -> Callable[..., Ending | None]:
    """Makes a function `f(stand, **args)` a kind of fault under its own name."""
    KINDS[strike.__name__] = strike
    return strike


@dataclass(frozen=True, slots=True)
class Fault:
    """One blow. It waits for all of its `when`, in this order: the faults before it struck and (unless `together`) ended;
    `after` records applied; `line` in a worker's log, said after that; `delay_ms`. It ends `lasts_ms` later, or when
    `until` is said in a worker's log (with both: whichever comes last; a line is waited for 60 s at most).
    """

    kind: str
    after: int
    args: dict[str, Any] = field(default_factory=dict)
    line: str = ""
    delay_ms: int = 0
    lasts_ms: int = 0
    until: str = ""
    together: bool = False


@dataclass(slots=True)
class _Struck:
    fault: Fault
    ending: Ending | None
    due_s: float
    lines_from: int
    give_up_s: float


class Player:
    """Goes through a plan while `tick` is called; never waits itself, but for what a fault does."""

    def __init__(self, stand: Stand, plan: Sequence[Fault], watch: Watch) -> None:
        self._stand, self._watch = stand, watch
        self._left = list(plan)
        self._open: list[_Struck] = []
        self._waits_since_s: float | None = None  # for the line, then the delay, of the next fault
        self._line_from = 0
        self._line_seen_s: float | None = None
        self.struck = 0
        self.lines: list[str] = []

    @property
    def done(self) -> bool:
        """Whether all faults have struck and ended."""
        return not self._left and not self._open

    @property
    def is_calm(self) -> bool:
        """Whether nothing is broken by us right now."""
        return not self._open

    @property
    def next_after(self) -> int | None:
        """Where the next blow is to fall, in records applied; None: there is none left."""
        return self._left[0].after if self._left else None

    def tick(self) -> None:
        """What is due now: ends, then at most one new blow."""
        self.lines += self._stand.news()
        now_s = time.monotonic()
        for each in [each for each in self._open if self._is_over(each, now_s)]:
            self._open.remove(each)
            if each.ending is not None:
                each.ending()
            self._watch.fault_ended()
        if self._left and self._is_due(self._left[0], now_s):
            self._strike(self._left.pop(0))

    def finish(self) -> None:
        """Ends what is still open, for a run that breaks off."""
        for each in self._open:
            if each.ending is not None:
                each.ending()
        self._open.clear()

    def _is_due(self, fault: Fault, now_s: float) -> bool:
        if (self._open and not fault.together) or self._watch.applied < fault.after:
            return False
        if self._waits_since_s is None:
            self._waits_since_s, self._line_from = now_s, len(self.lines)
        if self._line_seen_s is None:
            said = any(fault.line in line for line in self.lines[self._line_from :])
            if fault.line and not said and now_s - self._waits_since_s < LINE_WAIT_S:
                return False
            self._line_seen_s = now_s
        return now_s - self._line_seen_s >= fault.delay_ms / 1000

    def _strike(self, fault: Fault) -> None:
        self._waits_since_s = self._line_seen_s = None
        self._watch.fault_begins()
        lines_from = len(self.lines)
        ending = KINDS[fault.kind](self._stand, **fault.args)
        self.struck += 1
        now_s = time.monotonic()
        due_s = now_s + fault.lasts_ms / 1000
        self._open.append(_Struck(fault, ending, due_s, lines_from, due_s + LINE_WAIT_S))

    def _is_over(self, each: _Struck, now_s: float) -> bool:
        if now_s < each.due_s:
            return False
        until = each.fault.until
        return not until or now_s > each.give_up_s or any(until in line for line in self.lines[each.lines_from :])
