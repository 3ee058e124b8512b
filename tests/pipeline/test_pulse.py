"""What the event loop cannot see of itself."""

import asyncio
import threading
import time

import pytest

from pipeline import restart
from pipeline.pulse import LoopBeat, Organ, Pulse, bounded


def test_an_organ_that_shows_the_same_sign_for_its_limit_is_dead():
    organ = Organ("store stuck", "a call", lambda: 7, 3.0)
    pulse = Pulse([organ], look_s=1.0)
    assert [pulse.dead() for _ in range(4)] == [None, None, None, organ]


def test_an_organ_whose_sign_changes_or_that_need_show_none_lives():
    signs = iter([1, 1, 1, 2, 2, 2, None, None, None, None, 3, 3, 3])
    pulse = Pulse([Organ("store stuck", "a call", lambda: next(signs), 3.0)], look_s=1.0)
    assert {pulse.dead() for _ in range(13)} == {None}


def test_one_dead_organ_among_living_ones_is_found():
    count = iter(range(100))
    dead = Organ("consumer dead", "a thread", lambda: 1, 2.0)
    pulse = Pulse([Organ("loop blocked", "a loop", lambda: next(count), 2.0), dead], look_s=1.0)
    assert [pulse.dead() for _ in range(3)] == [None, None, dead]


@pytest.fixture
def started(monkeypatch):
    event = threading.Event()
    monkeypatch.setattr(restart, "start_again", lambda *_: event.set())
    return event


def test_what_does_not_end_within_its_bound_starts_the_process_again(started):
    with bounded("start stuck", "a client", limit_s=0.05):
        assert started.wait(30)


def test_a_clock_that_jumps_in_the_pause_before_a_restart_does_not_keep_it_from_starting(started, monkeypatch):
    def jumped(seconds):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(restart, "pause_s", lambda: 0.01)
    monkeypatch.setattr(time, "sleep", jumped)
    with bounded("start stuck", "a client", limit_s=0.05):
        assert started.wait(30)


def test_what_ended_within_its_bound_is_left_alone(started):
    with bounded("start stuck", "a client", limit_s=0.5):
        pass
    assert not started.wait(0.7)


def test_a_loop_answers_while_it_runs_and_neither_blocked_nor_closed():
    loop, beat = asyncio.new_event_loop(), LoopBeat()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    before = beat.sign(loop)
    until_s = time.monotonic() + 30
    while beat.sign(loop) <= before + 1:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    blocker = threading.Event()
    loop.call_soon_threadsafe(blocker.wait)
    time.sleep(0.2)
    silent = beat.sign(loop)
    time.sleep(0.2)
    assert beat.sign(loop) == silent
    blocker.set()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
    last = beat.sign(loop)
    assert beat.sign(loop) == last
