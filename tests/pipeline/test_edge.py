"""The worker's side of the driver's questions."""

import asyncio

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from features.schema import INPUT_TOPICS, REQUESTS
from features.state import Resume
from features.store.port import Part, StateMoved
from pipeline import edge as module
from pipeline.agents import Desk, Out
from pipeline.edge import WorkerEdge
from pipeline.overload import Ladder
from pipeline.patience import StoreThread
from pipeline.progress import Progress
from pipeline.telemetry import Pause
from pipeline.watchdog import Excuse, Facts, Watchdog

PART, OTHER = Part("user_actions", 0), Part("user_actions", 1)
MOVED = StateMoved("generation 2 of the state serves, no longer 1")


class State:
    """Says where to start."""

    def __init__(self):
        self.start, self.released, self.moved, self.started = 0, [], False, 5

    def resume(self, part, *, committed, log_start, asks_only):
        if self.moved:
            raise MOVED
        self.asked_only = asks_only
        return Resume(self.start, self.start - 1, self.started)

    def release(self, part):
        self.released.append(part)


class Engine:
    def __init__(self, identities=None):
        self.state, self.identities = State(), identities or {}
        self.kinds = {topic: topic for topic in INPUT_TOPICS}


class Reader:
    """Notes what is read again; it holds one part and no other."""

    def __init__(self):
        self.restarted = []

    def seek_no(self, part):
        return 1 if part == OTHER else -1

    def restart(self, part):
        self.restarted.append(part)


class Log:
    """Ends at 16; holds no record behind that."""

    def end(self, part):
        return 16

    def record_from(self, part, offset):
        return offset < 16


@pytest.fixture
async def edge(monkeypatch):
    monkeypatch.setattr(module, "missing", lambda admin, names, **_: [])
    monkeypatch.setattr(module, "identities", lambda admin, topics, **_: {})
    store, progress, pause, reader = StoreThread(Pause()), Progress(), Pause(), Reader()
    made = WorkerEdge(
        admin=None,
        inputs=(),
        outputs=(),
        store=store,
        progress=progress,
        pause=pause,
        open_desk=lambda found: Desk(Engine(), store, None, progress, reader, Out("r", "s", "d"), {}, Ladder(1.0, 1.0)),
        open_engine=lambda found: Engine(),
    )
    await made.ready()
    yield made
    store.close()


async def test_a_worker_that_ends_waits_no_longer_for_its_broker(monkeypatch):
    def away(admin, names, **_):
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(module, "missing", away)
    looks, pause = iter([False, False, True]), Pause()
    made = WorkerEdge(
        admin=None, inputs=(), outputs=(), store=None, progress=None, pause=pause, open_desk=None, open_engine=None,
        should_stop=lambda: next(looks),
    )  # fmt: skip
    await made.ready()
    assert not made.is_ready
    assert pause.active


async def test_a_part_is_watched_from_its_placement_on(edge):
    edge.desk.engine.state.start = 5
    await edge.start(PART, committed=5, log_start=0)
    assert edge.desk.given == {PART: 4}


@pytest.mark.parametrize(
    ("committed", "started", "lost_from"), [(3, 0, [3]), (5, 0, []), (None, 0, [0]), (None, 5, []), (None, None, [])]
)
async def test_records_that_the_log_lost_before_they_were_answered_are_told(edge, committed, started, lost_from):
    edge.desk.engine.state.start, edge.desk.engine.state.started = 5, started
    with capture_logs() as lines:
        await edge.start(PART, committed=committed, log_start=5)
    assert [line["unanswered_from"] for line in lines if "unanswered_from" in line] == lost_from


@pytest.mark.parametrize(("started", "log_start", "said"), [(None, 5, 1), (None, 0, 0), (5, 5, 0)])
async def test_a_state_that_begins_after_the_log_s_first_records_is_told(edge, started, log_start, said):
    edge.desk.engine.state.start, edge.desk.engine.state.started = 5, started
    with capture_logs() as lines:
        await edge.start(PART, committed=5, log_start=log_start)
    assert [line["log_start"] for line in lines if "not in it" in line["event"]] == [log_start] * said


async def test_a_released_part_is_not_watched(edge):
    await edge.start(PART, committed=0, log_start=0)
    await edge.release([PART])
    assert (edge.desk.given, edge.desk.engine.state.released) == ({}, [PART])


async def test_a_part_that_comes_back_behind_another_worker_s_progress_is_no_stall(edge):
    await edge.start(PART, committed=0, log_start=0)
    edge.desk.given[PART] = 7  # read up to here; then another worker had the part and answered up to 16
    await edge.release([PART])
    edge.desk.engine.state.start = 16
    await edge.start(PART, committed=16, log_start=0)
    now_s = iter(range(0, 1000, 10))
    dog = Watchdog(Log(), limit_s=30, clock_s=lambda: float(next(now_s)))
    facts = Facts(edge.desk.given, {}, Excuse.NONE)
    assert [dog.look(facts) for _ in range(9)] == [None] * 9


def now_found(monkeypatch, *, missing=(), identities=None):
    """What the broker says from here on."""
    monkeypatch.setattr(module, "missing", lambda admin, names, **_: list(missing))
    monkeypatch.setattr(module, "identities", lambda admin, topics, **_: {name: identities[name] for name in topics})


@pytest.fixture
def stopped(monkeypatch):
    causes = []
    monkeypatch.setattr(module, "stop_loudly", lambda cause, *_: causes.append(cause))
    return causes


async def test_a_topic_that_was_created_again_stops_the_worker(edge, monkeypatch, stopped):
    edge._inputs, edge.desk.engine.identities = ("a", "b"), {"a": "1", "b": "2"}
    now_found(monkeypatch, identities={"a": "1", "b": "2"})
    await edge.look_at_logs()
    assert not stopped
    now_found(monkeypatch, identities={"a": "1", "b": "other"})
    await edge.look_at_logs()
    assert len(stopped) == 1
    assert stopped[0].startswith("b: deleted and created again")
    assert "rebuild" in stopped[0]


async def test_a_topic_that_is_missing_is_a_pause_with_a_cause(edge, monkeypatch, stopped):
    edge._inputs, edge.desk.engine.identities = ("a", "b"), {"a": "1", "b": "2"}
    now_found(monkeypatch, missing=["b"], identities={"a": "1"})
    await edge.look_at_logs()
    assert edge._pause.active
    now_found(monkeypatch, identities={"a": "1", "b": "2"})
    await edge.look_at_logs()
    assert not edge._pause.active
    assert not stopped


async def test_a_part_is_placed_in_the_generation_that_serves_and_the_others_are_read_again(edge):
    old, edge.desk.given[OTHER] = edge.desk.engine, 7
    old.state.moved = True
    resume = await edge.start(PART, committed=3, log_start=0)
    assert resume.start == 0
    assert edge.desk.engine is not old
    assert edge.desk.reader.restarted == [OTHER]
    assert edge.desk.given[PART] == -1


async def test_a_move_lets_the_step_under_way_end_on_the_old_generation(edge):
    old, edge.desk.given[OTHER], edge.desk.busy = edge.desk.engine, 7, 1
    move = asyncio.create_task(edge.move(old, MOVED))
    while not edge.desk.reader.restarted:
        await asyncio.sleep(0)
    assert edge.desk.engine is old
    edge.desk.busy = 0
    await move
    assert edge.desk.engine is not old


async def test_a_worker_does_not_move_to_a_state_of_other_logs_its_answers_were_of_those_before(
    edge, monkeypatch, stopped
):
    edge._inputs, edge.desk.engine.identities = ("a", "b"), {"a": "1", "b": "2"}
    now_found(monkeypatch, identities={"a": "1", "b": "other"})
    await edge.move(edge.desk.engine, MOVED)
    assert stopped == ["b: deleted and created again while this worker ran: start it again"]


@pytest.mark.parametrize(("topic", "asks_only"), [(REQUESTS, True), (PART.topic, False)])
async def test_what_retention_took_of_requests_is_not_missing(edge, topic, asks_only):
    await edge.start(Part(topic, 0), committed=0, log_start=0)
    assert edge.desk.engine.state.asked_only is asks_only


async def test_who_sees_a_move_second_finds_it_done(edge):
    old = edge.desk.engine
    await asyncio.gather(edge.move(old, MOVED), edge.move(old, MOVED))
    new = edge.desk.engine
    await edge.move(old, MOVED)
    assert edge.desk.engine is new
    assert new is not old
