"""The supervisor: a dead worker is back at once, one that cannot live is given up with its last words."""

import os
import signal
import sys

import pytest

from pipeline.demo.supervisor import QUICK_DEATHS_MAX, Supervisor, WorkerGone

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def until_dead(supervisor):
    supervisor._process.wait(30)


def test_a_killed_worker_is_back_at_once_under_a_new_pid(tmp_path):
    supervisor = Supervisor(SLEEPER, log=tmp_path / "log")
    supervisor.start(0.0)
    pid = supervisor.pid
    os.kill(pid, signal.SIGKILL)
    until_dead(supervisor)
    assert "-9" in supervisor.check(1.0)
    assert supervisor.check(1.0) == ""
    assert supervisor.restarts == 1
    assert supervisor.pid not in (None, pid)
    supervisor.stop()
    assert supervisor.pid is None


def test_a_worker_that_cannot_live_is_given_up_with_its_last_words(tmp_path):
    supervisor = Supervisor([sys.executable, "-c", "import sys; sys.exit('no such topic')"], log=tmp_path / "log")
    supervisor.start(0.0)

    def supervise():
        for round_ in range(1, 3 * QUICK_DEATHS_MAX):
            if supervisor.pid is not None:
                until_dead(supervisor)
            supervisor.check(6.0 * round_)  # longer than the longest pause

    with pytest.raises(WorkerGone, match="no such topic"):
        supervise()
    assert supervisor.restarts == QUICK_DEATHS_MAX - 1


def test_a_second_quick_death_makes_it_wait(tmp_path):
    supervisor = Supervisor([sys.executable, "-c", ""], log=tmp_path / "log")
    supervisor.start(0.0)
    until_dead(supervisor)
    supervisor.check(0.1)
    supervisor.check(0.1)
    until_dead(supervisor)
    supervisor.check(0.2)
    assert "soon" in supervisor.check(0.3)
    assert supervisor.pid is None
    assert supervisor.check(0.5) == ""
    supervisor.stop()


def test_deaths_far_apart_are_forgiven(tmp_path):
    supervisor = Supervisor([sys.executable, "-c", ""], log=tmp_path / "log")
    supervisor.start(0.0)
    for round_ in range(1, 2 * QUICK_DEATHS_MAX):
        until_dead(supervisor)
        supervisor.check(20.0 * round_)
        supervisor.check(20.0 * round_ + 0.1)
    assert supervisor.restarts == 2 * QUICK_DEATHS_MAX - 1
    supervisor.stop()


def test_the_last_words_of_a_worker_can_be_quoted(tmp_path):
    supervisor = Supervisor([sys.executable, "-c", "print('waiting for topics')"], log=tmp_path / "log")
    supervisor.start(0.0)
    until_dead(supervisor)
    assert supervisor.last_words() == "waiting for topics"
    supervisor.stop()
