"""The watchdog counts silence only, and never without proof."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from features.store.port import Part
from pipeline.watchdog import WORK_TIMES, Excuse, Facts, Watchdog

PART = Part("t", 0)
LIMIT_S = 10.0


class Log:
    """A log with an end offset and, possibly, a record behind what was given."""

    def __init__(self, end=10, *, has_record=True, empty_group=False, away=False, led=True):
        self.last, self.has_record, self.empty_group, self.away = end, has_record, empty_group, away
        self.led = led

    def is_led(self, part):
        return self.led

    def end(self, part):
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self.last

    def record_from(self, part, offset):
        return self.has_record

    def group_is_empty(self):
        return self.empty_group


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def looks(log, clock, given, *, excuse=Excuse.NONE, times=13, moves=0, answers=0, step_s=1.0):
    """The first alarm of so many looks, and how many it took."""
    dog = Watchdog(log, limit_s=LIMIT_S, clock_s=clock)
    for n in range(times):
        clock.now_s += step_s
        held = {} if given == "nothing" else {PART: None if given is None else given + moves * n}
        if why := dog.look(Facts(held, {PART: answers * n}, excuse)):
            return why, n
    return None


def test_a_record_that_nobody_hands_out_is_a_stall(clock):
    why, looked = looks(Log(10), clock, given=4)
    assert "t-0 has records that nobody hands out" in why
    assert looked == LIMIT_S


def test_all_given_is_no_stall(clock):
    assert looks(Log(10), clock, given=9) is None


def test_an_end_without_a_record_is_no_stall(clock):
    assert looks(Log(11, has_record=False), clock, given=9) is None


def test_a_partition_that_ends_in_a_marker_hides_no_stall_of_another(clock):
    marked, other = Part("t", 0), Part("t", 1)

    class Marked(Log):
        def record_from(self, part, offset):
            return part == other and super().record_from(part, offset)

    dog = Watchdog(Marked(10), limit_s=LIMIT_S, clock_s=clock)
    alarms = []
    for _ in range(13):
        clock.now_s += 1
        alarms += filter(None, [dog.look(Facts({marked: 8, other: 4}, {}, Excuse.NONE))])
    assert alarms[0].startswith("t-1 has records that nobody hands out")


def test_a_pause_with_a_cause_is_no_stall_however_long(clock):
    assert looks(Log(10), clock, given=4, excuse=Excuse.OUTSIDE, times=1_000) is None


@pytest.mark.parametrize("given", [4, None])
def test_a_partition_without_a_leader_is_no_stall_however_long_unless_others_find_one(clock, given):
    def first_alarm(log):
        dog = Watchdog(log, limit_s=LIMIT_S, clock_s=clock)
        for _ in range(1_000):
            clock.now_s += 1
            if why := dog.look(Facts({PART: given}, {PART: 0}, Excuse.NONE, leaderless=frozenset({PART}))):
                return why
        return None

    assert first_alarm(Log(10, led=False)) is None
    assert "t-0" in first_alarm(Log(10, led=True))  # the worker's client believes what is long past


def test_a_leader_that_comes_and_goes_hides_no_stall_of_another_partition(clock):
    dog, alarms, other = Watchdog(Log(10), limit_s=LIMIT_S, clock_s=clock), [], Part("t", 1)
    dog._probe.is_led = lambda part: part != other
    for n in range(13):
        clock.now_s += 1
        facts = Facts({PART: 4, other: 9}, {}, Excuse.NONE, leaderless=frozenset({other} if n % 2 else ()))
        alarms += filter(None, [dog.look(facts)])
    assert "t-0 has records that nobody hands out" in alarms[0]


@pytest.mark.parametrize("given", [4, None])
def test_one_broker_of_several_that_does_not_answer_hides_no_stall_of_the_others(clock, given):
    away = [Part("away", n) for n in range(6)]

    class Half(Log):
        def end(self, part):
            if part in away:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().end(part)

    def first_alarm(given_of_mine):
        dog = Watchdog(Half(10), limit_s=LIMIT_S, clock_s=clock)
        for _ in range(30):
            clock.now_s += 1
            if why := dog.look(Facts({**dict.fromkeys(away, given), PART: given_of_mine}, {}, Excuse.NONE)):
                return why
        return None

    assert "t-0" in first_alarm(given)
    assert first_alarm(9) is None


def test_a_broker_that_does_not_answer_blames_nobody(clock):
    assert looks(Log(10, away=True), clock, given=4, times=1_000) is None


def test_slow_is_no_stall(clock):
    assert looks(Log(1000), clock, given=4, moves=1, times=100) is None


def test_a_short_silence_is_no_stall(clock):
    assert looks(Log(10), clock, given=4, times=9) is None


def test_a_partition_that_is_assigned_and_never_read_is_a_stall(clock):
    why, _ = looks(Log(10), clock, given=None)
    assert "t-0 is assigned and not read" in why


def test_to_hold_nothing_while_others_do_is_no_stall(clock):
    assert looks(Log(10), clock, given="nothing") is None


def test_to_hold_nothing_while_nobody_does_is_a_stall(clock):
    why, _ = looks(Log(10, empty_group=True), clock, given="nothing")
    assert "nobody in the group reads" in why


def test_a_step_may_take_several_limits_but_not_for_ever(clock):
    why, looked = looks(Log(10), clock, given=9, excuse=Excuse.WORK, times=1_000)
    assert "one step or rebalance goes on" in why
    assert looked == WORK_TIMES * LIMIT_S


def test_work_that_gets_on_is_no_stall(clock):
    assert looks(Log(10), clock, given=4, excuse=Excuse.WORK, times=1_000, answers=1) is None


def test_a_step_whose_answers_take_long_is_no_stall_while_they_are_made(clock):
    dog = Watchdog(Log(10), limit_s=LIMIT_S, clock_s=clock)
    for left in range(2_000, 0, -1):
        clock.now_s += 1
        assert dog.look(Facts({PART: 4}, {PART: 0}, Excuse.WORK, asked=left)) is None


def test_a_process_that_was_stopped_was_not_silent(clock):
    assert looks(Log(10), clock, given=4, times=3, step_s=3_600) is None
