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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, NoReturn, Protocol

from features.store.port import Part, StateForeign, StateLost
from pipeline import telemetry
from pipeline.answers import Stamp, recommendation, served
from pipeline.engine import Applied, Batch, Engine, OutOfTurn, Question, merge
from pipeline.kafka.dead_letters import dead_letter
from pipeline.kafka.publisher import Outgoing, ProducerFatal, Publisher
from pipeline.kafka.slices import Slice
from pipeline.logs import get_logger
from pipeline.patience import StoreThread
from pipeline.progress import Progress
from recommender.recommend import NO_REASONS, Ranked

log = get_logger(__name__)

EXIT_BROKEN = 70  # EX_SOFTWARE: a promise is broken; restarting alone may not mend it
QUESTIONS_MAX = 32  # answered in one go; in between the other agents get the store thread


class Reader(Protocol):
    """What an agent asks of the driver."""

    def seek_no(self, part: Part) -> int:
        """The number that a slice of `part` must carry to count."""
        ...

    def restart(self, part: Part) -> None:
        """Read `part` again from where the state says."""
        ...


@dataclass(frozen=True, slots=True)
class Out:
    """Where records go."""

    recommendations: str
    served_features: str
    dead_letters: str


class Step(NamedTuple):
    """A step whose answers are on their way."""

    batches: list[Batch]
    sends: list[asyncio.Task[None]]


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
    reasons_queue_max: int = 0  # more questions than this in a step: answers without reasons, and without the shadow
    shadow: telemetry.ShadowFigures = field(default_factory=telemetry.ShadowFigures)
    failing: frozenset[str] = frozenset()  # sources that failed in the newest answers, in words
    busy: int = 0  # agents at work or waiting for something with a cause

    async def take(self, slices: Sequence[Slice]) -> None:
        """One step, whole. Returns when everything in it is applied, answered and acknowledged, or void."""
        await self.finish(await self.begin(slices))

    async def begin(self, slices: Sequence[Slice]) -> Step:
        """Applies and answers; the answers are on their way when it returns."""
        with self._at_work(), _no_way_out():
            read_ms, read_s = wall_ms(), time.perf_counter()
            work = [(batch, applied) for batch in merge(slices) if (applied := await self._apply(batch))]
            sends = [asyncio.create_task(self.publisher.send(list(self._letters(work))))]
            questions = [question for _, applied in work for question in applied.questions]
            extras = len(questions) <= self.reasons_queue_max
            for some in _runs(questions, QUESTIONS_MAX):
                answers = await self._answers(some, read_ms=read_ms, read_s=read_s, extras=extras)
                sends.append(asyncio.create_task(self.publisher.send(answers)))
            return Step([batch for batch, _ in work], sends)

    async def finish(self, step: Step, *, after: asyncio.Task[None] | None = None) -> None:
        """Waits for every delivery report of the step; only then, and after the step before, it counts as answered."""
        try:
            if after is not None:
                await after
            with _no_way_out(), telemetry.STAGE_S.labels("publish").time():
                await asyncio.gather(*step.sends)
            for batch in step.batches:
                self.progress.mark(batch.part, batch.last + 1)
        finally:
            self.busy -= 1

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
                applied = await self.store.patiently(
                    batch.part.topic, self.engine.apply, batch, answer_from=answer_from, is_current=self._is_current
                )
        except OutOfTurn as error:
            self._restart(batch.part, "slice out of turn", str(error))
            return None
        except StateLost as error:
            telemetry.HWM_REGRESSIONS.labels(batch.part.topic).inc()
            self._restart(batch.part, "store lost", str(error))
            return None
        if applied is not None:
            _count(batch, applied)
        return applied

    async def _answers(
        self, questions: Sequence[Question], *, read_ms: int, read_s: float, extras: bool
    ) -> list[Outgoing]:
        with telemetry.STAGE_S.labels("answer").time():
            ranked = await self.store.patiently(
                "answers", self.engine.answer, questions, wall_ms=wall_ms(), extras=extras
            )
        self._note_failures(ranked)
        self._note_extras(ranked)
        stamp = Stamp(read_ms, wall_ms(), (time.perf_counter() - read_s) * 1000)
        records: list[Outgoing] = []
        for (ask, _), answer in zip(questions, ranked, strict=True):
            records.append(recommendation(ask, answer, topic=self.out.recommendations, stamp=stamp))
            if rows := served(ask, answer, topic=self.out.served_features, stamp=stamp):
                records.append(rows)
            telemetry.ANSWERS.labels(answer.level).inc()
            telemetry.ANSWER_S.observe(stamp.latency_ms / 1000)
            telemetry.EVENT_AGE_S.observe(max(0, read_ms - ask.log_ts_ms) / 1000)
        return records

    def _note_failures(self, ranked: Sequence[Ranked]) -> None:
        """Counts answers without a source that failed; said when the failures change, not with every event."""
        failures = [each for answer in ranked for each in failed_sources(answer.cause)]
        for failure in failures:
            telemetry.SOURCE_FAILURES.labels(failure.split(" ", 1)[0]).inc()
        if (failing := frozenset(failures)) != self.failing:
            self.failing = failing
            log.warning("candidate sources fail" if failing else "all candidate sources work", causes=sorted(failing))

    def _note_extras(self, ranked: Sequence[Ranked]) -> None:
        """Counts answers that should have reasons and have none, and how far the shadow lies from each answer."""
        for answer in ranked:
            if why := missing_reasons(answer.cause):
                telemetry.REASONS_MISSING.labels("busy" if why == "busy" else "failed").inc()
            if answer.shadow is not None:
                self.shadow.note(answer.shadow)

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
    """An agent's body: every slice of the stream, with what waits behind it, up to `batch_max` records a step.

    While the broker acknowledges one step's answers the next step is worked on; no third one begins before.
    """
    queue = stream.channel.queue
    before: asyncio.Task[None] | None = None
    async for piece in stream:
        step = await desk().begin([piece, *waiting(queue, batch_max - len(piece.records))])
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
    except (StateForeign, ProducerFatal) as error:
        stop_loudly(str(error), error)
    except Exception as error:
        stop_loudly(f"a step failed: {type(error).__name__}: {error}", error)


def failed_sources(cause: str | None) -> list[str]:
    """What an answer's cause says of sources that failed.

    >>> failed_sources("co_visited failed: KeyError; no model"), failed_sources(None)
    (['co_visited failed: KeyError'], [])
    """
    return [each for each in (cause or "").split("; ") if " failed: " in each]


def missing_reasons(cause: str | None) -> str:
    """Why an answer has no reasons, though they are on; empty where it has.

    >>> missing_reasons("no reasons: busy"), missing_reasons("no model")
    ('busy', '')
    """
    told = [each for each in (cause or "").split("; ") if each.startswith(f"{NO_REASONS}: ")]
    return told[0].removeprefix(f"{NO_REASONS}: ") if told else ""


def stop_loudly(cause: str, error: BaseException | None = None) -> NoReturn:
    """Says why and ends the process at once: a graceful stop would go on to commit."""
    log.critical("stopping", cause=cause, exc_info=error)
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)


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


def _runs(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    left = iter(questions)
    while some := list(islice(left, size)):
        yield some
