"""The overload ladder: how much each answer may cost just now, so that the state comes first and the deadline holds.

A pure state machine: an agent says what waits and what time is left (`met`), and what answers took (`paid`); time is an
argument. Down it goes at once, to the dearest rung at which everything that waits
can be answered in time; up again one rung at a time, after a quiet spell in which the next rung would have done too.
What an answer costs on each rung is measured as it goes, and for a climb an old measurement fades, so that nothing is
held for dear for ever. A climb that ends in a fall soon after makes the next spell longer: no flapping at the edge.
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
KEPT = 15 / 16  # of the weight of what was known, at each go
GUESSED = 2.0  # goes like the first one, that a first guess weighs
SPREAD_MIN = 1.0  # variance of the answers a go, below which they tell little of its fixed part
SPREAD_KNOWN = 4.0  # ... from which on what they tell is kept for when they do not differ
FIXED_MAX = 16.0  # answers that take as long as the fixed part, at most
OUTLIER = 4.0  # times what was expected
FADE_S = 30.0  # half-life of a cost that is not measured again
TINY_S = 1e-9
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
    """What answers take on one rung, in seconds: a fixed part a go (round trips, one look for all) and one an answer.

    Least squares over the goes so far, older ones for less: sums over goes, with `squares` of answers and `products` of
    answers and seconds. Without the fixed part answers seem the dearer the fewer ask at once: 4.4 ms each in goes of 7,
    3.0 in goes of 16, measured; by that price full answers came back 15 s after a flood, by this one 7 s. Goes of about
    one size tell nothing of the fixed part: then it is `fixed` times an answer's, as it was when they last differed.
    The first guess (nothing `measured`) does not fade.

    >>> cost = Cost.guess(0.002)
    >>> for answers in (4, 16, 8, 32) * 20:
    ...     cost = cost.after(answers, 0.020 + 0.001 * answers, 0.0)
    >>> round(cost.go_s, 2), round(cost.answer_s, 3), round(cost.of(64, go_max=32), 1)
    (0.02, 0.001, 0.1)
    """

    goes: float
    answers: float
    seconds: float
    squares: float
    products: float
    fixed: float = 0.0
    measured: int = 0
    measured_s: float = 0.0

    @classmethod
    def guess(cls, answer_s: float, *, answers: int = 1) -> Cost:
        """What to expect before anything was measured, as if by goes of so many answers."""
        return cls(
            goes=GUESSED,
            answers=GUESSED * answers,
            seconds=GUESSED * answers * answer_s,
            squares=GUESSED * answers**2,
            products=GUESSED * answers**2 * answer_s,
        )

    @property
    def answer_s(self) -> float:
        """For one answer more in a go."""
        mean, go_s = self.answers / self.goes, self.seconds / self.goes
        together = self.products / self.goes - mean * go_s
        told = (together + SPREAD_MIN * go_s / (mean + self.fixed)) / (self._spread + SPREAD_MIN)
        return min(max(told, go_s / (mean + FIXED_MAX)), go_s / mean)

    @property
    def go_s(self) -> float:
        """For a go, its answers apart."""
        return max(0.0, self.seconds - self.answers * self.answer_s) / self.goes

    @property
    def _spread(self) -> float:
        """Variance of the answers a go."""
        return max(0.0, self.squares / self.goes - (self.answers / self.goes) ** 2)

    def of(self, answers: float, *, go_max: int) -> float:
        """For so many answers, in goes of at most `go_max`."""
        return answers * self.answer_s + max(answers / go_max, min(answers, 1.0)) * self.go_s

    def left(self, now_s: float) -> float:
        """How much of a price that was measured long ago is to be believed by who would try it again, 0 to 1."""
        return exp(-LN2 * max(0.0, now_s - self.measured_s) / FADE_S) if self.measured else 1.0

    def after(self, answers: int, seconds: float, now_s: float) -> Cost:
        """With one more go. What took OUTLIER times as long as expected was held up, or it comes again."""
        known = self if self.measured else Cost.guess(self.answer_s, answers=answers)
        seconds = min(seconds, OUTLIER * (known.go_s + answers * known.answer_s), answers * COST_MAX_S)
        after = replace(
            known,
            goes=KEPT * known.goes + 1,
            answers=KEPT * known.answers + answers,
            seconds=KEPT * known.seconds + seconds,
            squares=KEPT * known.squares + answers**2,
            products=KEPT * known.products + answers * seconds,
            measured=self.measured + answers,
            measured_s=now_s,
        )
        return after if after._spread < SPREAD_KNOWN else replace(after, fixed=after.go_s / max(after.answer_s, TINY_S))


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
    costs: tuple[Cost, ...] = tuple(map(Cost.guess, FIRST_GUESS_S))
    answers: Rate = Rate()

    @property
    def effort(self) -> Effort:
        """What an answer may cost now."""
        return RUNGS[self.rung]

    @property
    def below_full(self) -> int:
        """How many rungs below full effort."""
        return TOP - self.rung

    def go_max(self, rung: int) -> int:
        """How many answers one go may have: about GO_S of them, a few where the price is not known yet. At least half of
        a go is answers, unless that takes more than GO_MAX of them.
        """
        cost = self.costs[rung]
        if RUNGS[rung].is_popular:
            return POPULAR_GO_MAX
        most = GO_MAX if cost.measured >= KNOWN_FROM else GO_FIRST
        return min(most, max(1, int(max(GO_S - cost.go_s, cost.go_s) / cost.answer_s)))

    def takes_s(self, rung: int, answers: float) -> float:
        """How long so many answers would take on a rung."""
        return self.costs[rung].of(answers, go_max=self.go_max(rung))

    def busy(self, rung: int, now_s: float) -> float:
        """Share of the time that the answers asked for just now would take on a rung, were they to wait for full goes."""
        a_go = self.go_max(rung)
        return self.answers.per_s(now_s) * self.takes_s(rung, a_go) / a_go


def met(ladder: Ladder, load: Load, now_s: float) -> Ladder:
    """The ladder when the next answers are about to be made."""
    rung = affordable(ladder, load)
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
    costs[rung] = costs[rung].after(answers, seconds, now_s)
    return replace(ladder, costs=tuple(costs), answers=ladder.answers.plus(answers, now_s))


def affordable(ladder: Ladder, load: Load) -> int:
    """The dearest rung, at most the present one, at which all that waits is answered in time; else the cheapest."""
    room_s = max(0.0, load.left_s) * ROOM
    rungs = range(1, ladder.rung + 1)
    return max((rung for rung in rungs if ladder.takes_s(rung, load.waiting) <= room_s), default=0)


def _may_climb(ladder: Ladder, load: Load, now_s: float) -> bool:
    """Whether the next rung would do with room to spare, for what waits and for what comes a second."""
    rung, room_s = ladder.rung + 1, max(0.0, load.left_s) * CLIMB_ROOM
    left = ladder.costs[rung].left(now_s)
    return left * ladder.takes_s(rung, load.waiting) <= room_s and left * ladder.busy(rung, now_s) <= BUSY_MAX
