"""The ladder alone: what load does to it at once, what quiet does to it in time, and a whole worker in simulated time."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.overload import (
    COST_MAX_S,
    FIRST_GUESS_S,
    FIXED_MAX,
    GO_FIRST,
    SPELLS_MAX,
    TOP,
    Cost,
    Ladder,
    Load,
    Rate,
    affordable,
    met,
    paid,
)
from recommender.effort import FULL, RUNGS

DEADLINE_S, CALM_S = 1.0, 2.0
NOW_S = 1_000.0

goes = st.tuples(st.integers(1, 256), st.floats(0, COST_MAX_S), st.floats(0, 1e-2))


@st.composite
def costs(draw):
    """A price after any goes: (answers, seconds of the go, seconds of an answer)."""
    cost = Cost.guess(draw(st.floats(1e-6, 1e-2)))
    for answers, go_s, answer_s in draw(st.lists(goes, max_size=10)):
        cost = cost.after(answers, go_s + answers * answer_s, draw(st.floats(0, NOW_S)))
    return cost


rates = st.builds(Rate, st.floats(0, 1e5), st.just(NOW_S))
ladders = st.builds(
    Ladder,
    deadline_s=st.just(DEADLINE_S),
    calm_s=st.just(CALM_S),
    rung=st.integers(0, TOP),
    calm_since_s=st.floats(0, NOW_S),
    climbed_s=st.floats(0, NOW_S),
    spells=st.integers(1, SPELLS_MAX),
    costs=st.tuples(*[costs()] * len(RUNGS)),
    answers=rates,
)
loads = st.builds(Load, st.floats(0, 1e6), st.floats(-1, DEADLINE_S))


@given(ladders, loads, st.floats(0, 1e6), st.floats(0, 1))
def test_more_load_or_less_time_never_gives_a_better_rung_at_once(ladder, load, more, later):
    worse = Load(load.waiting + more, load.left_s - later)
    assert met(ladder, worse, NOW_S).rung <= met(ladder, load, NOW_S).rung


@given(ladders, loads)
def test_what_waits_fits_into_the_time_that_is_left_or_the_rung_is_the_cheapest(ladder, load):
    after = met(ladder, load, NOW_S)
    assert 0 <= after.rung <= TOP
    believed = after.costs[after.rung].left(NOW_S) if after.rung > ladder.rung else 1.0
    assert after.rung == 0 or believed * after.takes_s(after.rung, load.waiting) <= max(0.0, load.left_s)


@given(ladders, loads, st.floats(0, 3_600))
def test_after_a_fall_nothing_climbs_before_a_quiet_spell_is_over(ladder, load, later_s):
    fallen = met(ladder, load, NOW_S)
    if fallen.rung < ladder.rung:
        again = met(fallen, Load(0, DEADLINE_S), NOW_S + min(later_s, CALM_S * 0.99))
        assert again.rung == fallen.rung


@given(ladders)
def test_from_any_state_single_questions_lead_back_to_full_in_bounded_time(ladder):
    now_s = NOW_S
    while ladder.rung < TOP:
        now_s += 1
        ladder = met(ladder, Load(1, DEADLINE_S), now_s)
        assert now_s < NOW_S + 200
    assert ladder.effort is FULL
    assert ladder.below_full == 0


@given(ladders)
def test_silence_leads_back_to_full_with_the_next_question(ladder):
    assert met(ladder, Load(1, DEADLINE_S), NOW_S + 3_600).effort is FULL


def test_an_answer_that_was_held_up_for_long_is_not_held_for_dear():
    for answers in range(1, GO_FIRST + 1):
        ladder = paid(Ladder(DEADLINE_S, CALM_S), FULL, answers, 600.0, NOW_S)
        assert ladder.takes_s(TOP, 10) < 2.5 * 10 * FIRST_GUESS_S[TOP]


def test_what_answers_cost_is_known_after_a_few_goes():
    ladder = Ladder(DEADLINE_S, CALM_S)
    for _ in range(20):
        ladder = paid(ladder, FULL, 32, 32 * 0.02, NOW_S)
    assert ladder.takes_s(TOP, 1_000) / 1_000 == pytest.approx(0.02, rel=0.1)


@given(goes.filter(lambda go: go[2] > 1e-5))
def test_the_fixed_part_of_a_go_is_told_apart_where_goes_differ(truth):
    _, go_s, answer_s = truth
    cost = Cost.guess(2e-3)
    for answers in (1, 32, 8, 16) * 30:
        cost = cost.after(answers, go_s + answers * answer_s, NOW_S)
    least = (go_s + 57 / 4 * answer_s) / (57 / 4 + FIXED_MAX)
    assert cost.answer_s == pytest.approx(max(answer_s, least), rel=0.2)


@given(st.integers(1, 32), st.floats(1e-4, 1.0))
def test_goes_of_one_size_cost_by_the_answer_alone(answers, go_s):
    cost = Cost.guess(3 * go_s / answers)
    for _ in range(200):
        cost = cost.after(answers, go_s, NOW_S)
    assert cost.answer_s == pytest.approx(go_s / answers, rel=0.01)
    assert cost.go_s < 0.01 * go_s


def test_goes_of_one_size_keep_the_fixed_part_that_was_known_when_they_differed():
    cost = Cost.guess(2e-3)
    for answers in [1, 32, 8, 16] * 30 + [1] * 500:
        cost = cost.after(answers, 0.018 + answers * 0.0018, NOW_S)
    assert (cost.go_s, cost.answer_s) == (pytest.approx(0.018, rel=0.1), pytest.approx(0.0018, rel=0.2))


def test_a_deadline_of_a_day_never_asks_for_less():
    ladder = met(Ladder(86_400, CALM_S), Load(1_000_000, 86_000), NOW_S)
    assert ladder.effort is FULL


@pytest.mark.parametrize(("cost_s", "answers"), [(2e-3, 25), (1.0, 1), (1e-6, 32)])
def test_one_go_takes_about_as_long_whatever_an_answer_costs(cost_s, answers):
    cost = replace(Cost.guess(cost_s), measured=100)
    assert replace(Ladder(DEADLINE_S, CALM_S), costs=(cost,) * len(RUNGS)).go_max(TOP) == answers


def test_the_first_go_at_an_unknown_price_is_short():
    assert Ladder(DEADLINE_S, CALM_S).go_max(TOP) == 4


def test_the_cheapest_rung_is_what_remains_when_there_is_no_time():
    assert affordable(Ladder(DEADLINE_S, CALM_S), Load(1, 0.0)) == 0


@dataclass
class Worker:
    """One agent in simulated time: what it reads is applied, then answered in goes, as `agents.Desk` does it.

    per_answer_s: true costs by rung, per_go_s: of each go. taken: (read at, answered at, rung) of each go; rungs: (time, rung).
    """

    per_answer_s: tuple[float, ...] = (5e-5, 1e-3, 1.5e-3, 2e-3, 3e-3)
    per_go_s: float = 0.0
    apply_s: float = 1e-4
    now_s: float = NOW_S
    waiting: float = 0.0
    ladder: Ladder = field(default_factory=lambda: Ladder(DEADLINE_S, CALM_S))
    taken: list[tuple[float, float, int]] = field(default_factory=list)

    def run(self, rate: float, seconds: float) -> None:
        """Events come at `rate` a second for so long."""
        until_s, came_s = self.now_s + seconds, self.now_s
        while self.now_s < until_s:
            self.waiting += (self.now_s - came_s) * rate
            came_s = self.now_s
            if self.waiting < 1:
                self.now_s += 1 / rate
                continue
            self._step(min(int(self.waiting), 2_000))
        self.waiting += (self.now_s - came_s) * rate

    def _step(self, records: int) -> None:
        self.waiting -= records
        read_s = self.now_s
        self.now_s += records * self.apply_s
        while records:
            left_s = DEADLINE_S - (self.now_s - read_s)
            self.ladder = met(self.ladder, Load(records + self.waiting, left_s), self.now_s)
            go = min(records, self.ladder.go_max(self.ladder.rung))
            took_s = go * self.per_answer_s[self.ladder.rung] + self.per_go_s
            self.now_s += took_s
            self.ladder = paid(self.ladder, self.ladder.effort, go, took_s, self.now_s)
            self.taken.append((read_s, self.now_s, self.ladder.rung))
            records -= go

    @property
    def rungs(self) -> list[int]:
        return [rung for _, _, rung in self.taken]

    @property
    def changes(self) -> int:
        return sum(one != other for one, other in pairwise(self.rungs))


SUSTAINABLE = 1 / (3e-3 + 1e-4)


def test_ten_times_the_sustainable_rate_for_a_minute_holds_the_deadline_and_then_all_is_full_again():
    worker = Worker()
    worker.run(0.9 * SUSTAINABLE, 20)
    assert set(worker.rungs) == {TOP}
    worker.run(10 * SUSTAINABLE, 60)
    assert max(answered - read for read, answered, _ in worker.taken) <= DEADLINE_S
    assert worker.changes <= 20
    assert worker.waiting < 2_000
    worker.run(0.9 * SUSTAINABLE, 60)
    assert worker.ladder.effort is FULL
    assert set(worker.rungs[-1_000:]) == {TOP}


def test_at_half_the_sustainable_rate_small_goes_do_not_keep_answers_from_getting_full_again():
    worker = Worker(per_answer_s=(5e-5, 1.6e-3, 1.6e-3, 1.7e-3, 1.8e-3), per_go_s=0.018)
    sustainable = 1 / (1.8e-3 + 0.018 / 17 + 1e-4)
    worker.run(10 * sustainable, 60)
    worker.run(0.5 * sustainable, 12)
    worker.taken.clear()
    worker.run(0.5 * sustainable, 30)
    assert set(worker.rungs) == {TOP}


def test_a_burst_after_single_questions_is_answered_in_full_where_there_is_time():
    worker = Worker(per_answer_s=(5e-5, 1.6e-3, 1.6e-3, 1.7e-3, 1.8e-3), per_go_s=0.018)
    worker.run(200, 20)
    for _ in range(100):
        worker.now_s, worker.waiting = worker.now_s + 1, 1
        worker._step(1)
    worker.taken.clear()
    worker.waiting = 60
    worker._step(60)
    assert set(worker.rungs) == {TOP}
    assert worker.taken[-1][1] - worker.taken[0][0] < DEADLINE_S / 2


def test_a_flood_after_long_quiet_is_met_at_once():
    worker = Worker()
    worker.run(10 * SUSTAINABLE, 20)
    worker.run(0.1 * SUSTAINABLE, 60)
    assert worker.ladder.effort is FULL
    worker.now_s, worker.waiting = worker.now_s + 3_600, 2_000
    worker.taken.clear()
    worker._step(2_000)
    assert set(worker.rungs) == {0}


@pytest.mark.parametrize("full_s", [2e-3, 4e-2])
@pytest.mark.parametrize("times", [0.3, 0.9, 1.05, 1.6, 3])
def test_a_steady_load_does_not_make_the_ladder_flap(times, full_s):
    worker = Worker(per_answer_s=(5e-5, 1e-3, 1.5e-3, 2e-3, full_s))
    worker.run(times * SUSTAINABLE, 60)
    assert worker.changes <= 20
    assert max(answered - read for read, answered, _ in worker.taken) <= DEADLINE_S


def test_a_backlog_is_worked_off_at_the_cheapest_rung_then_answers_get_better_again():
    worker = Worker(waiting=50_000)
    worker.run(0.5 * SUSTAINABLE, 10)
    assert worker.waiting < 200
    assert worker.rungs[0] == 0
    worker.run(0.5 * SUSTAINABLE, 60)
    assert worker.ladder.effort is FULL
