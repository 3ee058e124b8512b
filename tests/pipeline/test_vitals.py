"""What the watchdog is told of a worker."""

from types import SimpleNamespace

from features.store.port import Part
from pipeline.telemetry import LEADERS, Pause
from pipeline.vitals import facts
from pipeline.watchdog import Excuse

READ, ALONE = Part("t", 0), Part("t", 1)


def app(*, leaderless=frozenset(), busy=0):
    progress = SimpleNamespace(answered=lambda part: 5)
    desk = SimpleNamespace(given={READ: 9}, progress=progress, busy=busy, open=())
    return SimpleNamespace(
        edge=SimpleNamespace(is_ready=True, desk=desk, leaderless=leaderless),
        consumer=SimpleNamespace(assignment=lambda: {READ, ALONE}, is_placed=lambda part: part == READ),
        rebalancing=False,
        should_stop=False,
    )


def test_a_partition_that_nobody_has_begun_to_read_is_told_of():
    told = facts(app(), Pause())
    assert (told.given, told.excuse) == ({READ: 9, ALONE: None}, Excuse.NONE)


def test_a_partition_without_a_leader_is_told_apart_and_excuses_nothing_else():
    pause = Pause()
    pause.set(LEADERS, "leaders: no broker leads t-1")
    told = facts(app(leaderless=frozenset({ALONE})), pause)
    assert (told.leaderless, told.excuse) == ({ALONE}, Excuse.NONE)


def test_what_the_whole_worker_waits_for_excuses_it_before_its_work_does():
    pause = Pause()
    assert facts(app(busy=1), pause).excuse is Excuse.WORK
    pause.set("answers", "store: timed out")
    assert facts(app(busy=1), pause).excuse is Excuse.OUTSIDE
