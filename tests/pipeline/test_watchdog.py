"""The watchdog counts silence only, and never without proof."""

import pytest

from features.store.port import Part
from pipeline.watchdog import Watchdog

PART = Part("t", 0)


class Log:
    """A log with an end offset and, possibly, a record behind what was given."""

    def __init__(self, end, *, has_record=True):
        self.last, self.has_record = end, has_record

    def end(self, part):
        return self.last

    def record_from(self, part, offset):
        return self.has_record


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def looks(log, clock, given, *, waits=True, times=5, moves=0):
    dog = Watchdog(log, limit_s=3.0, clock_s=clock)
    found = None
    for n in range(times):
        clock.now_s += 1.0
        found = found or dog.look({PART: given + moves * n}, waits_for_records=waits)
    return found


def test_a_record_that_nobody_hands_out_is_a_stall(clock):
    assert looks(Log(10), clock, given=4) == PART


def test_all_given_is_no_stall(clock):
    assert looks(Log(10), clock, given=9) is None


def test_an_end_without_a_record_is_no_stall(clock):
    assert looks(Log(11, has_record=False), clock, given=9) is None


def test_a_pause_with_a_cause_is_no_stall(clock):
    assert looks(Log(10), clock, given=4, waits=False) is None


def test_slow_is_no_stall(clock):
    assert looks(Log(1000), clock, given=4, moves=1) is None


def test_a_short_silence_is_no_stall(clock):
    assert looks(Log(10), clock, given=4, times=3) is None
