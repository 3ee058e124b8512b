"""A pause is said once when it changes."""

import sys
import threading
from types import SimpleNamespace

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from pipeline import telemetry
from pipeline.telemetry import LEADERS, Pause


def paused(cause):
    return REGISTRY.get_sample_value("headrace_paused", {"cause": cause})


def test_a_pause_shows_its_cause_while_it_lasts():
    pause = Pause()
    pause.set("answers", "store: timed out")
    assert (pause.active, paused("store")) == (True, 1)
    pause.set("answers", None)
    assert (pause.active, paused("store")) == (False, 0)


def test_a_cause_lasts_until_the_last_that_waits_for_it_goes_on():
    pause = Pause()
    pause.set("a", "store: timed out")
    pause.set("b", "store: loading")
    pause.set("a", None)
    assert paused("store") == 1
    pause.set("b", None)
    assert paused("store") == 0


def test_a_cause_that_is_only_put_otherwise_is_not_said_again():
    pause = Pause()
    with capture_logs() as said:
        pause.set("answers", "store: ConnectionError: reset while reading")
        pause.set("answers", "store: ConnectionError: reset while connecting")
        pause.set("answers", "store: OutOfMemoryError: full")
        pause.set("answers", None)
    assert [line["event"] for line in said] == ["waiting", "waiting", "goes on"]
    assert not pause.active


def test_what_a_part_of_the_worker_waits_for_is_told_and_excuses_nobody():
    pause = Pause()
    pause.set(LEADERS, "leaders: no broker leads t-1")
    assert (pause.active, paused("leaders")) == (False, 1)
    pause.set("answers", "store: timed out")
    assert pause.active
    pause.set("answers", None)
    pause.set(LEADERS, None)
    assert (pause.active, paused("leaders")) == (False, 0)


def test_causes_are_told_from_two_threads_at_once(monkeypatch):
    monkeypatch.setattr(telemetry, "log", SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **__: None))
    before, failures = sys.getswitchinterval(), []
    pause = Pause()
    for number in range(50):
        pause.set(f"held {number}", f"cause {number}: so")

    def tell(who):
        try:
            for _ in range(3_000):
                pause.set(who, f"{who}: so")
                pause.set(who, None)
        except RuntimeError as error:
            failures.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=tell, args=(f"thread {number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
