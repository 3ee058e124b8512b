"""What happens to a micro-batch: take what waits, apply, answer, publish, and only then: progress.

One agent an input topic. The body lets no exception out: Faust would take the batch for done. What is away is waited
for; what contradicts the state, or a bug, ends the process before the batch is left, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio import QueueEmpty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

from features.store.port import Part, StateForeign, StateLost, StoreRefused
from pipeline import telemetry
from pipeline.answer_figures import AnswerFigures
from pipeline.answers import Stamp, recommendation, served
from pipeline.engine import Applied, Batch, Engine, OutOfTurn, Question, merge
from pipeline.kafka.dead_letters import dead_letter
from pipeline.kafka.publisher import Outgoing, ProducerFatal, Publisher
from pipeline.kafka.slices import Slice
from pipeline.logs import get_logger
from pipeline.overload import Ladder, Load, met, paid
from pipeline.patience import StoreThread
from pipeline.progress import Progress
from pipeline.throughput import SHARE, Throughput
from recommender.effort import Effort

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

EXIT_BROKEN = 70  # EX_SOFTWARE: a promise is broken; restarting alone may not mend it


class Reader(Protocol):
    """What an agent asks of the driver."""

    def seek_no(self, part: Part) -> int:
        """The number that a slice of `part` must carry to count."""
        ...

    def restart(self, part: Part) -> None:
        """Read `part` again from where the state says."""
        ...

    def log_end(self, part: Part) -> int | None:
        """The end offset of `part` as the newest fetch saw it; None where nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Out:
    """Where records go."""

    recommendations: str
    served_features: str
    dead_letters: str


class Step(NamedTuple):
    """A step whose answers are on their way."""

    applied: list[tuple[Part, int]]  # and the last offset
    sends: list[asyncio.Task[None]]


class Read(NamedTuple):
    """When a step's slices were taken up, by the wall clock and by one that only goes forward."""

    wall_ms: int
    at_s: float

    def left_s(self, deadline_s: float) -> float:
        """What is left of the time in which they are to be answered."""
        return deadline_s - (time.perf_counter() - self.at_s)


@dataclass(slots=True)
class Desk:
    """What all agents of a worker share."""

    engine: Engine
    store: StoreThread
    publisher: Publisher
    progress: Progress
    reader: Reader
    out: Out
    given: dict[Part, int]  # the last offset handed to an agent (at first: before the start), for the watchdog
    ladder: Ladder
    figures: AnswerFigures = field(default_factory=AnswerFigures)
    applying: dict[str, Throughput] = field(default_factory=dict)  # by topic, how fast its records are applied
    open: list[deque[Question]] = field(default_factory=list)  # what each step under way has still to answer
    busy: int = 0  # agents at work or waiting for something with a cause

    async def take(self, slices: Sequence[Slice]) -> None:
        """One step, whole. Returns when everything in it is applied, answered and acknowledged, or void."""
        await self.finish(await self.begin(slices))

    async def begin(self, slices: Sequence[Slice]) -> Step:
        """Applies all of it, then answers as well as the time allows; the answers are on their way when it returns."""
        with self._at_work(), _no_way_out():
            read = Read(wall_ms(), time.perf_counter())
            work = [(batch, applied) for batch in merge(slices) if (applied := await self._apply(batch))]
            sends = [self._send(list(self._letters(work)))]
            behind = self._behind(work)
            with self._asked([question for _, applied in work for question in applied.questions], read) as questions:
                while questions:
                    sends.append(self._send(await self._answers(questions, behind=behind, read=read)))
            return Step([(batch.part, batch.last) for batch, _ in work], sends)

    def records_max(self, topic: str, *, at_most: int) -> int:
        """How many records of `topic` a step takes, so that the deadline is left for their answers."""
        known = self.applying.get(topic, Throughput())
        return int(min(at_most, known.records_in(SHARE * self.ladder.deadline_s)))

    async def finish(self, step: Step, *, after: asyncio.Task[None] | None = None) -> None:
        """Waits for every delivery report of the step; only then, and after the step before, it counts as answered."""
        try:
            if after is not None:
                await after
            with _no_way_out(), telemetry.STAGE_S.labels("publish").time():
                await asyncio.gather(*step.sends)
            for part, last in step.applied:
                self.progress.mark(part, last + 1)
        finally:
            self.busy -= 1

    def rest(self) -> None:
        """Quiet counts without questions, too: full effort is back, and the figures say so, before the next one comes."""
        if not self.busy:
            self._effort(Load(0, self.ladder.deadline_s))

    def place(self, part: Part, *, start: int) -> None:
        """Reading of `part` goes on at `start`."""
        self.given[part] = start - 1

    def release(self, part: Part) -> None:
        """`part` is somebody else's now: its records are no business of ours."""
        self.given.pop(part, None)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        except BaseException:  # a cancellation too: a step that never ends would blind the watchdog
            self.busy -= 1
            raise

    async def _apply(self, batch: Batch) -> Applied | None:
        if not self._is_current(batch):
            return None
        self.given[batch.part] = batch.last
        answer_from = self.progress.answered(batch.part) or 0
        try:
            with telemetry.STAGE_S.labels("apply").time():
                applied, took_s = await self.store.patiently(
                    batch.part.topic,
                    timed,
                    self.engine.apply,
                    batch,
                    answer_from=answer_from,
                    is_current=self._is_current,
                )
        except OutOfTurn as error:
            self._restart(batch.part, "slice out of turn", str(error))
            return None
        except StateLost as error:
            telemetry.HWM_REGRESSIONS.labels(batch.part.topic).inc()
            self._restart(batch.part, "store lost", str(error))
            return None
        if applied is not None:
            topic = batch.part.topic
            self.applying[topic] = self.applying.get(topic, Throughput()).after(len(batch.records), took_s)
            _count(batch, applied)
        return applied

    async def _answers(self, questions: deque[Question], *, behind: float, read: Read) -> list[Outgoing]:
        """The next few answers, at the effort that leaves time for all that wait."""
        effort, most = self._effort(Load(behind + sum(map(len, self.open)), read.left_s(self.ladder.deadline_s)))
        some = [questions.popleft() for _ in range(min(most, len(questions)))]
        with telemetry.STAGE_S.labels("answer").time():
            ranked, took_s = await self.store.patiently(
                "answers", timed, self.engine.answer, some, wall_ms=wall_ms(), effort=effort
            )
        ranked_s = time.perf_counter()
        stamp = Stamp(read.wall_ms, wall_ms(), (ranked_s - read.at_s) * 1000)
        records: list[Outgoing] = []
        for (ask, _), answer in zip(some, ranked, strict=True):
            records.append(recommendation(ask, answer, topic=self.out.recommendations, stamp=stamp))
            if rows := served(ask, answer, topic=self.out.served_features, stamp=stamp):
                records.append(rows)
        self.figures.note([ask for ask, _ in some], ranked, effort=effort, stamp=stamp)
        done_s = time.perf_counter()
        self.ladder = paid(self.ladder, effort, len(some), took_s + done_s - ranked_s, done_s)
        return records

    def _effort(self, load: Load) -> tuple[Effort, int]:
        """What each of the next answers may cost, and how many of them may be made in one go."""
        now_s, before = time.perf_counter(), self.ladder.effort
        self.ladder = met(self.ladder, load, now_s)
        if (effort := self.ladder.effort) is not before:
            telemetry.OVERLOAD.set(self.ladder.below_full)
            log.warning("another effort", effort=effort.name, before=before.name, waiting=round(load.waiting))
        return effort, self.ladder.go_max(self.ladder.rung)

    def _behind(self, work: Sequence[tuple[Batch, Applied]]) -> float:
        """How many more answers the log asks for behind these batches, if it goes on as in them."""
        answers = 0.0
        for batch, applied in work:
            end = self.reader.log_end(batch.part)
            records = 0 if end is None else max(0, end - 1 - batch.last)
            answers += records * len(applied.questions) / max(1, len(batch.records))
        return answers

    @contextmanager
    def _asked(self, questions: Sequence[Question], read: Read) -> Iterator[deque[Question]]:
        """The questions of a step, those first that can still be answered in time; counted until they are answered."""
        in_time_ms = read.wall_ms - self.ladder.deadline_s * 1000
        waiting = deque(sorted(questions, key=lambda question: question.ask.log_ts_ms <= in_time_ms))
        self.open.append(waiting)
        try:
            yield waiting
        finally:
            self.open = [each for each in self.open if each is not waiting]

    def _send(self, records: Sequence[Outgoing]) -> asyncio.Task[None]:
        return asyncio.create_task(self.publisher.send(records))

    def _letters(self, work: Sequence[tuple[Batch, Applied]]) -> Iterator[Outgoing]:
        for batch, applied in work:
            for record, refused in applied.reading.refused:
                yield dead_letter(self.out.dead_letters, batch.part, record, refused)

    def _is_current(self, batch: Batch) -> bool:
        return self.reader.seek_no(batch.part) == batch.seek_no

    def _restart(self, part: Part, why: str, cause: str) -> None:
        log.warning("seeking back", topic=part.topic, partition=part.partition, why=why, cause=cause)
        telemetry.SEEKS.labels(why).inc()
        self.reader.restart(part)


async def serve(stream: Any, desk: Callable[[], Desk], *, batch_max: int) -> None:
    """An agent's body: every slice of the stream, with what waits behind it, up to `batch_max` records a step, or as
    many as can be applied in time.

    While the broker acknowledges one step's answers the next step is worked on; no third one begins before.
    """
    queue = stream.channel.queue
    before: asyncio.Task[None] | None = None
    async for piece in stream:
        room = desk().records_max(piece.part.topic, at_most=batch_max) - len(piece.records)
        step = await desk().begin([piece, *waiting(queue, room)])
        finishing = asyncio.create_task(desk().finish(step, after=before))
        if before is not None:
            await before
        before = finishing


def waiting(queue: Any, room: int) -> Iterator[Slice]:
    """The slices that wait in an agent's queue, until `room` records are taken; never waits itself."""
    while room > 0:
        try:
            piece = queue.get_nowait().value
        except QueueEmpty:
            return
        room -= len(piece.records)
        yield piece


@contextmanager
def _no_way_out() -> Iterator[None]:
    """Lets nothing but a cancellation out: Faust would take a batch that raised for done."""
    try:
        yield
    except (StateForeign, StoreRefused, ProducerFatal) as error:
        stop_loudly(str(error), error)
    except Exception as error:
        stop_loudly(f"a step failed: {type(error).__name__}: {error}", error)


def stop_loudly(cause: str, error: BaseException | None = None) -> NoReturn:
    """Says why and ends the process at once: a graceful stop would go on to commit."""
    log.critical("stopping", cause=cause, exc_info=error)
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)


def timed(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What `call` returns, and the seconds it took: without the wait for the thread it runs on."""
    begun_s = time.perf_counter()
    return call(*args, **kwargs), time.perf_counter() - begun_s


def wall_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def _count(batch: Batch, applied: Applied) -> None:
    topic = batch.part.topic
    telemetry.RECORDS.labels(topic).inc(len(batch.records))
    telemetry.BATCH_RECORDS.labels(topic).observe(len(batch.records))
    if applied.reading.miskeyed:
        telemetry.MISKEYED.labels(topic).inc(applied.reading.miskeyed)
    for _, refused in applied.reading.refused:
        telemetry.DEAD_LETTERS.labels(topic, telemetry.field_label(refused.field)).inc()
