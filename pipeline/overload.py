"""The overload ladder: how much each answer may cost just now, so that the state comes first and the deadline holds.

A pure state machine: an agent says what waits and what time is left (`met`), and what answers took (`paid`); time is an
argument. Down it goes at once, to the dearest rung at which everything that waits
can be answered in time; up again one rung at a time, after a quiet spell in which the next rung would have done too.
What an answer costs on each rung is measured as it goes, and an old measurement fades, so that nothing is held for
dear for ever. A climb that ends in a fall soon after makes the next spell longer: no flapping at the edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log

from recommender.effort import RUNGS, Effort

TOP = len(RUNGS) - 1
ROOM = 0.5  # of the time left may go to what waits; the rest is for publishing, the broker, and a wrong guess
CLIMB_ROOM = 0.25  # ... before a climb
BUSY_MAX = 0.95  # share of the time that answers may take at the next rung, for a climb; one that fails waits longer
SPELLS_MAX = 4  # quiet spells that a climb waits for, at most
STEADY_SPELLS = 5  # a fall within so many spells of a climb was that climb's fault
FIRST_GUESS_S = (1e-4, 1e-3, 1.5e-3, 2e-3, 2e-3)  # an answer on each rung, before any was measured
COST_MAX_S = 1.0  # an answer that took longer was held up by something, it does not cost that
NEXT = 0.97  # weight of what was known, for each answer more
OUTLIER = 5.0  # times what was known: a go that cost more was held up, or it comes again
FADE_S = 30.0  # half-life of a cost that is not measured again
LN2 = log(2)
WINDOW_S = 2.0  # over which demand is averaged
GO_S = 0.05  # of answers, after which the other agents get the store thread
GO_FIRST, GO_MAX, POPULAR_GO_MAX = 4, 32, 256  # answers; popular ones are 100 times cheaper
KNOWN_FROM = 16  # answers, from which on a price is known


@dataclass(frozen=True, slots=True)
class Rate:
    """Something per second, averaged over about WINDOW_S.

    >>> round(Rate().plus(10, 0.0).per_s(0.0), 2), round(Rate().plus(10, 0.0).per_s(2.0), 2)
    (5.0, 1.84)
    """

    value: float = 0.0
    at_s: float = 0.0

    def per_s(self, now_s: float) -> float:
        """The rate as it stands at `now_s`."""
        return self.value * exp(-max(0.0, now_s - self.at_s) / WINDOW_S)

    def plus(self, amount: float, now_s: float) -> Rate:
        """With `amount` at `now_s`."""
        return Rate(self.per_s(now_s) + amount / WINDOW_S, now_s)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds an answer takes, from `answers` of them, the last at `measured_s`. A first guess (of none) does not fade."""

    seconds: float
    measured_s: float = 0.0
    answers: int = 0

    def at(self, now_s: float) -> float:
        """What to expect now."""
        if not self.answers:
            return self.seconds
        return self.seconds * exp(-LN2 * max(0.0, now_s - self.measured_s) / FADE_S)

    def after(self, seconds: float, answers: int, now_s: float) -> Cost:
        """With one more go of so many answers. One answer weighs little: it may have been held up, or the first ever."""
        weight = 1 - NEXT**answers
        known = self.seconds + weight * (min(seconds, OUTLIER * self.seconds) - self.seconds)
        return Cost(min(known, COST_MAX_S), now_s, self.answers + answers)


@dataclass(frozen=True, slots=True)
class Load:
    """What an agent meets. waiting: answers that are asked for, those behind in the log too. left_s: until the deadline
    of what was just read.
    """

    waiting: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where we stand. deadline_s: what is read younger than this is answered within it. calm_s: a quiet spell."""

    deadline_s: float
    calm_s: float
    rung: int = TOP
    calm_since_s: float = 0.0
    climbed_s: float = float("-inf")
    spells: int = 1  # that the next climb waits for
    costs: tuple[Cost, ...] = tuple(map(Cost, FIRST_GUESS_S))
    answers: Rate = Rate()

    @property
    def effort(self) -> Effort:
        """What an answer may cost now."""
        return RUNGS[self.rung]

    @property
    def below_full(self) -> int:
        """How many rungs below full effort."""
        return TOP - self.rung

    @property
    def go_max(self) -> int:
        """How many answers one go may have: about GO_S of them, a few where the price is not known yet."""
        cost = self.costs[self.rung]
        if self.effort.is_popular:
            return POPULAR_GO_MAX
        most = GO_MAX if cost.answers >= KNOWN_FROM else GO_FIRST
        return min(most, max(1, int(GO_S / cost.seconds)))


def met(ladder: Ladder, load: Load, now_s: float) -> Ladder:
    """The ladder when the next answers are about to be made."""
    rung = affordable(ladder, load, now_s)
    if rung < ladder.rung:
        is_relapse = now_s - ladder.climbed_s < STEADY_SPELLS * ladder.calm_s
        spells = min(SPELLS_MAX, 2 * ladder.spells) if is_relapse else 1
        return replace(ladder, rung=rung, calm_since_s=now_s, spells=spells)
    if ladder.rung < TOP and not _may_climb(ladder, load, now_s):
        return replace(ladder, calm_since_s=now_s)
    spell_s = ladder.calm_s * ladder.spells
    while ladder.rung < TOP and now_s - ladder.calm_since_s >= spell_s and _may_climb(ladder, load, now_s):
        ladder = replace(ladder, rung=ladder.rung + 1, calm_since_s=ladder.calm_since_s + spell_s, climbed_s=now_s)
    return ladder


def paid(ladder: Ladder, effort: Effort, answers: int, seconds: float, now_s: float) -> Ladder:
    """So many answers took so long."""
    rung = RUNGS.index(effort)
    costs = list(ladder.costs)
    costs[rung] = costs[rung].after(seconds / answers, answers, now_s)
    return replace(ladder, costs=tuple(costs), answers=ladder.answers.plus(answers, now_s))


def affordable(ladder: Ladder, load: Load, now_s: float) -> int:
    """The dearest rung, at most the present one, at which all that waits is answered in time; else the cheapest."""
    room_s = max(0.0, load.left_s) * ROOM
    rungs = range(1, ladder.rung + 1)
    return max((rung for rung in rungs if load.waiting * ladder.costs[rung].at(now_s) <= room_s), default=0)


def _may_climb(ladder: Ladder, load: Load, now_s: float) -> bool:
    """Whether the next rung would do with room to spare, for what waits and for what comes a second."""
    cost_s = ladder.costs[ladder.rung + 1].at(now_s)
    busy = ladder.answers.per_s(now_s) * cost_s
    return load.waiting * cost_s <= max(0.0, load.left_s) * CLIMB_ROOM and busy <= BUSY_MAX
