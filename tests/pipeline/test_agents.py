"""One step of an agent: the order of things, what makes a batch void, what ends the process."""

import asyncio
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from features.schema import Refused
from features.store.port import Part, StateForeign, StateLost, StoreAway
from pipeline import agents, answer_figures, patience
from pipeline.agents import Desk, Out
from pipeline.engine import Applied, OutOfTurn, Question
from pipeline.kafka.publisher import ProducerFatal
from pipeline.kafka.slices import LogRecord, Slice
from pipeline.overload import Ladder
from pipeline.patience import StoreThread
from pipeline.progress import Progress
from pipeline.reading import Ask, Reading
from pipeline.telemetry import Pause
from pipeline.throughput import Throughput
from recommender.recommend import Ranked
from recommender.shadow import Divergence

PART, OTHER = Part("user_actions", 0), Part("user_actions", 1)


class Engine:
    """Raises what it is told to, in order, then applies; asks for one answer per record."""

    def __init__(self, *troubles, refused=()):
        self.troubles, self.refused, self.applied, self.cause = list(troubles), refused, [], None
        self.efforts, self.shadow, self.runs, self.order = [], None, [], []
        self.answering = threading.Event()
        self.answering.set()

    def apply(self, batch, *, answer_from, is_current):
        if self.troubles:
            raise self.troubles.pop(0)
        if not is_current(batch):
            return None
        self.order.append("apply")
        self.applied.append((batch.part, batch.last, answer_from))
        asks = [
            Question(Ask(batch.part, r.offset, r.timestamp, SimpleNamespace(user_id="u", ts_ms=5)), b"")
            for r in batch.records
        ]
        refused = [(r, Refused("ts_ms", "missing")) for r in batch.records if r.offset in self.refused]
        return Applied(Reading([], refused, [], 0), asks)

    def answer(self, questions, *, wall_ms, effort):
        self.answering.wait(30)
        self.order.append("answer")
        self.efforts.append(effort)
        self.runs.append([question.ask.offset for question in questions])
        return [ranked(f"id-{question.ask.offset}", self.cause, self.shadow) for question in questions]


class Publisher:
    """Sends once it is let."""

    def __init__(self, error=None):
        self.sent, self.let, self.error = [], asyncio.Event(), error
        self.let.set()

    async def send(self, records):
        await self.let.wait()
        if self.error:
            raise self.error
        self.sent += records


class Reader:
    """Holds every part under seek number 1."""

    def __init__(self):
        self.restarted, self.end = [], None

    def seek_no(self, part):
        return 1

    def restart(self, part):
        self.restarted.append(part)

    def log_end(self, part):
        return self.end


def ranked(name, cause=None, shadow=None):
    rows = np.zeros((1, 2), np.float32)
    return Ranked(name, ["i"], np.ones(1), ["new"], "full", cause, "v", "h", rows, shadow=shadow)


def piece(*offsets, follows=-1, seek_no=1, part=PART):
    return Slice(part, follows, seek_no, [LogRecord(offset, 0, b"u", b"raw") for offset in offsets], offsets[-1])


def nothing(*, follows, last):
    return Slice(PART, follows, 1, (), last)


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def stop(monkeypatch):
    def ended(cause, error=None):
        raise Stopped(cause)

    monkeypatch.setattr(agents, "stop_loudly", ended)
    monkeypatch.setattr(patience, "BACKOFF_S", (0.001, 0.002))


@pytest.fixture
def make():
    threads = []

    def desk(engine, publisher=None):
        threads.append(StoreThread(Pause()))
        progress = Progress()
        progress.begin(PART, committed=None, start=0)
        ladder = Ladder(deadline_s=1.0, calm_s=0.0)
        return Desk(engine, threads[-1], publisher or Publisher(), progress, Reader(), Out("r", "s", "d"), {}, ladder)

    yield desk
    for thread in threads:
        thread.close()


async def test_a_step_answers_and_then_moves_the_progress(make):
    desk = make(Engine())
    await desk.take([piece(0, 1)])
    assert [record.topic for record in desk.publisher.sent] == ["r", "s", "r", "s"]
    assert desk.progress.answered(PART) == 2


async def test_where_no_record_lies_the_state_and_the_progress_go_on_without_an_answer(make):
    desk = make(Engine())
    await desk.take([piece(0), nothing(follows=0, last=3)])
    await desk.take([nothing(follows=3, last=5)])
    assert [last for _, last, _ in desk.engine.applied] == [3, 5]
    assert (desk.progress.answered(PART), desk.given[PART]) == (6, 5)
    assert [record.topic for record in desk.publisher.sent] == ["r", "s"]


async def until(done, within_s=30):
    async with asyncio.timeout(within_s):
        while not done():
            await asyncio.sleep(0.01)


async def test_progress_waits_for_every_report(make):
    desk = make(Engine())
    desk.publisher.let.clear()
    step = asyncio.create_task(desk.take([piece(0)]))
    await until(lambda: desk.engine.applied)
    await asyncio.sleep(0.05)
    assert desk.progress.answered(PART) == 0
    desk.publisher.let.set()
    await step
    assert desk.progress.answered(PART) == 1


async def test_the_next_step_is_worked_on_while_reports_are_awaited_and_progress_keeps_its_order(make):
    desk = make(Engine())
    desk.publisher.let.clear()
    queue = asyncio.Queue()

    class Stream:
        channel = SimpleNamespace(queue=queue)

        async def __aiter__(self):
            while True:
                yield (await queue.get()).value

    agent = asyncio.create_task(agents.serve(Stream(), lambda: desk, batch_max=1))
    for offset in range(4):
        queue.put_nowait(SimpleNamespace(value=piece(offset, follows=offset - 1)))
    await until(lambda: len(desk.engine.applied) == 2)
    await asyncio.sleep(0.1)
    assert [last for _, last, _ in desk.engine.applied] == [0, 1]  # the third waits for the first one's reports
    assert desk.progress.answered(PART) == 0
    desk.publisher.let.set()
    await until(lambda: desk.progress.answered(PART) == 4 and desk.busy == 0)
    agent.cancel()
    assert desk.progress.answered(PART) == 4
    assert desk.busy == 0


async def test_a_step_takes_no_more_than_can_be_applied_in_a_part_of_the_deadline(make):
    desk = make(Engine())
    held_up_s, queue, apply = [0.3], asyncio.Queue(), desk.engine.apply

    class Stream:
        channel = SimpleNamespace(queue=queue)

        async def __aiter__(self):
            while True:
                yield (await queue.get()).value

    def slowly(batch, **how):
        time.sleep(held_up_s.pop() if held_up_s else 0)
        return apply(batch, **how)

    async def put(*slices):
        for each in slices:
            queue.put_nowait(SimpleNamespace(value=each))
        while desk.progress.answered(PART) != slices[-1].last + 1:
            await asyncio.sleep(0.01)

    desk.engine.apply = slowly
    agent = asyncio.create_task(agents.serve(Stream(), lambda: desk, batch_max=2_000))
    await put(piece(*range(10)))  # 30 ms each: 4 of them in an eighth of the deadline
    await put(*(piece(*range(at, at + 10), follows=at - 1) for at in range(10, 100, 10)))
    agent.cancel()
    assert [last for _, last, _ in desk.engine.applied][:2] == [9, 19]
    assert desk.engine.applied[-1][1] == 99


async def test_a_steps_size_follows_the_deadline_and_the_setting(make):
    desk = make(Engine())
    assert desk.records_max("user_actions", at_most=2_000) == 2_000
    desk.applying["user_actions"] = Throughput(records=500, seconds=0.5)
    assert desk.records_max("user_actions", at_most=2_000) == 125
    assert desk.records_max("items", at_most=2_000) == 2_000
    desk.ladder = Ladder(deadline_s=86_400, calm_s=0.0)
    assert desk.records_max("user_actions", at_most=2_000) == 2_000


async def test_slices_that_wait_are_one_batch(make):
    desk = make(Engine())
    await desk.take([piece(0, 1), piece(2, follows=1), piece(3, follows=2)])
    assert desk.engine.applied == [(PART, 3, 0)]


async def test_refused_records_go_to_the_dead_letters(make):
    desk = make(Engine(refused=(1,)))
    await desk.take([piece(0, 1)])
    assert [record.value for record in desk.publisher.sent if record.topic == "d"] == [b"raw"]


async def test_a_slice_of_an_older_seek_is_dropped(make):
    desk = make(Engine())
    await desk.take([piece(0, seek_no=0)])
    assert desk.engine.applied == []
    assert desk.progress.answered(PART) == 0


@pytest.mark.parametrize("trouble", [OutOfTurn("gap"), StateLost("behind", PART)])
async def test_a_gap_or_a_loss_reads_again_and_marks_nothing(make, trouble):
    desk = make(Engine(trouble))
    await desk.take([piece(0)])
    assert desk.reader.restarted == [PART]
    assert desk.progress.answered(PART) == 0


async def test_a_store_that_is_away_is_waited_for(make):
    desk = make(Engine(StoreAway("gone"), StoreAway("gone")))
    await desk.take([piece(0)])
    assert desk.progress.answered(PART) == 1


@pytest.mark.parametrize("trouble", [StateForeign("another log"), KeyError("a bug")])
async def test_a_contradiction_or_a_bug_ends_the_process_before_the_batch_is_left(make, trouble):
    desk = make(Engine(trouble))
    with pytest.raises(Stopped):
        await desk.take([piece(0)])
    assert desk.progress.answered(PART) == 0


async def test_a_dead_producer_ends_the_process(make):
    desk = make(Engine(), Publisher(ProducerFatal("fenced")))
    with pytest.raises(Stopped, match="fenced"):
        await desk.take([piece(0)])
    assert desk.progress.answered(PART) == 0


async def test_a_slice_of_an_older_seek_does_not_count_as_handed_over(make):
    desk = make(Engine())
    desk.place(PART, start=16)
    await desk.take([piece(40, seek_no=0)])
    assert desk.given == {PART: 15}


@pytest.mark.parametrize("stands_at", ["publisher", "engine"])
async def test_an_agent_that_is_cancelled_is_not_at_work_any_more(make, stands_at):
    desk = make(Engine(*[StoreAway("gone")] * 10_000 if stands_at == "engine" else ()))
    desk.publisher.let.clear()
    queue = asyncio.Queue()

    class Stream:
        channel = SimpleNamespace(queue=queue)

        async def __aiter__(self):
            while True:
                yield (await queue.get()).value

    agent = asyncio.create_task(agents.serve(Stream(), lambda: desk, batch_max=1))
    for offset in range(3):
        queue.put_nowait(SimpleNamespace(value=piece(offset, follows=offset - 1)))
    await asyncio.sleep(0.1)
    assert desk.busy
    agent.cancel()
    await asyncio.sleep(0.05)
    assert desk.busy == 0
    assert desk.progress.answered(PART) == 0


async def test_a_source_that_fails_is_counted_with_every_answer_and_said_when_it_changes(make, monkeypatch):
    desk = make(Engine())
    desk.engine.cause = "history failed: KeyError; no model"
    monkeypatch.setattr(answer_figures, "log", structlog.get_logger())
    with capture_logs() as said:
        await desk.take([piece(0, 1)])
        await desk.take([piece(2, follows=1)])
        desk.engine.cause = "no model"
        await desk.take([piece(3, follows=2)])
    assert [line["causes"] for line in said] == [["history failed: KeyError"], []]
    assert REGISTRY.get_sample_value("headrace_source_failures_total", {"source": "history"}) == 3


async def test_what_waits_in_the_log_lowers_the_effort_and_when_it_is_gone_all_is_full_again(make):
    desk = make(Engine())
    await desk.take([piece(0, 1)])
    desk.reader.end = 100_000
    await desk.take([piece(2, 3, 4, follows=1)])
    assert REGISTRY.get_sample_value("headrace_overload_rungs") == 4
    desk.reader.end = 5
    await desk.take([piece(5, follows=4)])
    assert [effort.name for effort in desk.engine.efforts] == ["full", "popular", "full"]
    assert REGISTRY.get_sample_value("headrace_overload_rungs") == 0


async def test_without_any_question_all_is_full_again_but_never_under_a_step(make):
    desk = make(Engine())
    await desk.take([piece(0, 1)])
    desk.reader.end = 100_000
    step = await desk.begin([piece(2, 3, 4, follows=1)])
    desk.rest()
    assert REGISTRY.get_sample_value("headrace_overload_rungs") == 4
    await desk.finish(step)
    desk.rest()
    assert REGISTRY.get_sample_value("headrace_overload_rungs") == 0


async def test_all_that_waits_is_applied_before_anything_is_answered(make):
    desk = make(Engine())
    await desk.take([piece(0), piece(1, follows=0, part=OTHER), piece(2, follows=0)])
    assert desk.engine.order == ["apply", "apply", "answer"]


async def test_answers_in_many_goes_leave_the_store_to_others_in_between(make):
    desk = make(Engine())
    desk.progress.begin(OTHER, committed=None, start=0)
    offsets = range(200)
    long = asyncio.create_task(desk.take([piece(*offsets)]))
    while not desk.engine.runs:
        await asyncio.sleep(0)
    await desk.take([piece(0, part=OTHER)])
    assert sum(map(len, desk.engine.runs)) < 201
    await long
    assert sorted(offset for run in desk.engine.runs for offset in run) == sorted([0, *offsets])


async def test_what_can_still_be_answered_in_time_comes_first(make, monkeypatch):
    desk = make(Engine())
    monkeypatch.setattr(agents, "wall_ms", lambda: 10_000)
    old, young = LogRecord(0, 8_000, b"u", b"raw"), LogRecord(1, 9_500, b"u", b"raw")
    await desk.take([Slice(PART, -1, 1, [old, young], young.offset)])
    assert desk.engine.runs == [[1, 0]]


async def test_a_step_that_is_cancelled_leaves_no_open_questions_behind(make):
    desk = make(Engine())
    desk.engine.answering = threading.Event()
    step = asyncio.create_task(desk.take([piece(0)]))
    while not desk.open:
        await asyncio.sleep(0)
    step.cancel()
    desk.engine.answering.set()
    await asyncio.gather(step, return_exceptions=True)
    assert desk.open == []


@pytest.mark.parametrize(("cause", "why"), [("no reasons: busy", "busy"), ("no reasons: ValueError", "failed")])
async def test_an_answer_without_its_reasons_is_counted_by_why(make, cause, why):
    desk = make(Engine())
    desk.engine.cause = f"trending failed: KeyError; {cause}"
    before = REGISTRY.get_sample_value("headrace_reasons_missing_total", {"why": why}) or 0
    await desk.take([piece(0, 1)])
    assert REGISTRY.get_sample_value("headrace_reasons_missing_total", {"why": why}) == before + 2


async def test_the_shadows_divergence_is_a_metric_of_its_present_version_only(make):
    desk = make(Engine())

    def seen(name, version, kind="count"):
        return REGISTRY.get_sample_value(f"headrace_shadow_{name}_{kind}", {"version": version})

    desk.engine.shadow = Divergence("v1", 0.5, 0.25)
    await desk.take([piece(0, 1)])
    assert (seen("overlap", "v1"), seen("overlap", "v1", "sum"), seen("correlation", "v1", "sum")) == (2, 1.0, 0.5)
    desk.engine.shadow = Divergence("v2", 1.0, math.nan)
    await desk.take([piece(2, follows=1)])
    assert (seen("overlap", "v1"), seen("correlation", "v1"), seen("overlap", "v2")) == (None, None, 1)
    assert seen("correlation", "v2") is None
    failures = REGISTRY.get_sample_value("headrace_shadow_failures_total")
    desk.engine.shadow = Divergence("v2", failure="MemoryError")
    await desk.take([piece(3, follows=2)])
    assert REGISTRY.get_sample_value("headrace_shadow_failures_total") == failures + 1
    assert seen("overlap", "v2") == 1
