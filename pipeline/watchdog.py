"""Sees a worker that does nothing though there is something to do, and starts it again.

Faust consumers can stop handing out records after a rebalance or a broker loss, without an error (open issues report
it). What counts is only time in which no agent is at work and nothing is waited for with a cause, while

- a record lies in the log behind the last one handed over. The end of the log comes from a client of its own, which
  must have read such a record before the worker is restarted: an end offset may lie beyond the last record
  (transaction markers, compaction) or be stale (Tansu's is, by up to a batch); or
- a partition is assigned and nobody begins to read it; or
- the worker holds no partition and its group has no member: nobody reads.

Work is an excuse for a while: a step, or a rebalance, that does not end is a stall, too. Waiting for the broker or the
store is one for ever. A partition that no broker leads is left out, if that client of its own finds none for it, either.
"""

from __future__ import annotations

import asyncio
import enum
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from features.store.port import Part
from pipeline import restart, telemetry
from pipeline.config import Kafka
from pipeline.kafka.clients import SMALL_ANSWERS, confluent
from pipeline.kafka.leaders import NOBODY
from pipeline.logs import get_logger

log = get_logger(__name__)

ANSWER_S = 5.0
LOOKS_PER_PERIOD = 10
WORK_TIMES = 6  # an excuse of work is good for so many limits: a rebalance takes 30 s at most, a step far less
SILENCE_S = 2.0
LISTEN_S = 2.0
NOTHING = -2  # was handed out of a part that nobody reads: even an empty log lies behind it
SILENT_MAX = 2  # parts whose broker gives no answer, each after ANSWER_S; then it is the broker that is away
NOBODY_READS = "nobody in the group reads"
STALLED = "stalled"  # a cause of restarts


class Excuse(enum.Enum):
    """Why no record need be handed out now. WORK must end some day, OUTSIDE need not."""

    NONE = ""
    WORK = "at work"
    OUTSIDE = "waits for something outside"


class Facts(NamedTuple):
    """What the worker knows of itself.

    given: by part held now, the last offset handed to an agent; None: nobody has begun to read it. answered: by part
    the next unanswered offset. asked: the answers that the steps under way have still to make. leaderless: of those
    held, the parts that no broker leads, as the worker's client believes.
    """

    given: Mapping[Part, int | None]
    answered: Mapping[Part, int | None]
    excuse: Excuse
    asked: int = 0
    leaderless: frozenset[Part] = frozenset()


class Probe:
    """A client of its own: what lies in the log behind an offset?"""

    def __init__(self, settings: Kafka, *, topic: str) -> None:
        """`topic`: any that is there, to ask about."""
        self._topic, self._group = topic, settings.group
        self._admin = AdminClient(confluent(settings))
        self._consumer = Consumer(
            {
                **confluent(settings),
                **SMALL_ANSWERS,
                "group.id": f"{settings.group}-watchdog-{uuid.uuid4().hex[:8]}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "message.max.bytes": settings.message_max_bytes,
            }
        )

    def end(self, part: Part) -> int:
        """The log's end offset as the broker tells it."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(*part), timeout=ANSWER_S)
        return int(end)

    def is_led(self, part: Part) -> bool:
        """Whether some broker leads the part."""
        partitions = self._consumer.list_topics(part.topic, timeout=ANSWER_S).topics[part.topic].partitions
        return part.partition in partitions and partitions[part.partition].leader != NOBODY

    def silence(self) -> str | None:
        """Why the broker cannot be reached; None: it answers."""
        try:
            self._consumer.list_topics(self._topic, timeout=SILENCE_S)
        except KafkaException:
            return f"broker: no answer within {SILENCE_S:g} s"  # one cause, however librdkafka calls it this time
        return None

    def record_from(self, part: Part, offset: int) -> bool:
        """Whether a record at `offset` or later can be read now."""
        self._consumer.assign([TopicPartition(*part, offset)])
        try:
            message = self._consumer.poll(ANSWER_S)
            return message is not None and message.error() is None
        finally:
            self._consumer.unassign()

    def group_is_empty(self) -> bool:
        """Whether the broker knows of no member of the worker's group."""
        asked = self._admin.describe_consumer_groups([self._group], request_timeout=ANSWER_S)
        state = asked[self._group].result(ANSWER_S).state
        return state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


class Watchdog:
    """Adds up silent time; `look` every tenth of the limit."""

    def __init__(self, probe: Probe, *, limit_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._probe, self._limit_s, self._clock_s = probe, limit_s, clock_s
        self._before: tuple[Mapping[Part, int | None], Mapping[Part, int | None], int] | None = None
        self._looked_s = clock_s()
        self._silent: set[Part] = set()  # parts whose broker gave no answer
        self.stalled_s = 0.0
        self.at_work_s = 0.0

    def look(self, facts: Facts) -> str | None:
        """Why the worker has to be started again, None while all is well.

        Blocks for the broker's answers: not on the event loop.
        """
        now_s = self._clock_s()
        # A process that was stopped, or starved, has been silent for no longer than a look may take.
        passed_s = min(now_s - self._looked_s, 3 * self._limit_s / LOOKS_PER_PERIOD)
        self._looked_s = now_s
        standing = (dict(facts.given), dict(facts.answered), facts.asked)
        moved, self._before = standing != self._before, standing
        at_work = facts.excuse is Excuse.WORK and not moved
        self.at_work_s = self.at_work_s + passed_s if at_work else 0.0
        why = None if moved or facts.excuse is not Excuse.NONE else self._unread(facts)
        self.stalled_s = self.stalled_s + passed_s if why else 0.0
        telemetry.STALLED_S.set(self.stalled_s)
        if self.at_work_s >= WORK_TIMES * self._limit_s:
            return f"one step or rebalance goes on for {self.at_work_s:.0f} s"
        if why is None or self.stalled_s < self._limit_s:
            return None
        said = self._confirmed(facts)
        return f"{said} for {self.stalled_s:.0f} s" if said else None

    def _unread(self, facts: Facts) -> str | None:
        """What there is to read and is not read."""
        if not facts.given:
            return NOBODY_READS if self._group_is_empty() else None
        part = next(self._neglected(facts), None)
        return None if part is None else _said(part, facts.given[part])

    def _neglected(self, facts: Facts) -> Iterator[Part]:
        """The parts that could be read on, and are not. What its broker says nothing of is nobody's fault.

        Such parts are asked for last the next time: one broker that is away does not hide the stalls of the others.
        """
        silent = 0
        for part in sorted(facts.given, key=self._silent.__contains__):
            last = facts.given[part]
            self._silent.discard(part)
            try:
                if part in facts.leaderless and not self._probe.is_led(part):
                    continue
                neglected = self._probe.end(part) > (NOTHING if last is None else last) + 1
            except (KafkaException, TimeoutError):
                self._silent.add(part)
                silent += 1
                if silent == SILENT_MAX:
                    return
            else:
                if neglected:
                    yield part

    def _group_is_empty(self) -> bool:
        try:
            return self._probe.group_is_empty()
        except (KafkaException, TimeoutError):
            return False

    def _confirmed(self, facts: Facts) -> str | None:
        """The same, if a record can really be read; what is not read at all, or by nobody, needs no record as proof.

        Of all neglected parts: the end of one that is read to its last record may lie behind a transaction's marker.
        """
        if not facts.given:
            return NOBODY_READS
        given = facts.given
        return next(
            (_said(part, given[part]) for part in self._neglected(facts) if self._is_readable(part, given[part])), None
        )

    def _is_readable(self, part: Part, last: int | None) -> bool:
        try:
            return last is None or self._probe.record_from(part, last + 1)
        except (KafkaException, TimeoutError):
            return False


async def listen(probe: Probe, *, tell: Callable[[str | None], None], period_s: float = LISTEN_S) -> None:
    """Asks the broker for a sign of life until cancelled: an idle worker has nothing in flight that would tell."""
    while True:
        await asyncio.sleep(period_s)
        tell(await asyncio.to_thread(probe.silence))


async def watch(watchdog: Watchdog, *, period_s: float, facts: Callable[[], Facts]) -> None:
    """Looks until cancelled; replaces the process when it stalls (`pipeline/restart.py`)."""
    while True:
        await asyncio.sleep(period_s)
        if (why := await asyncio.to_thread(watchdog.look, facts())) is not None:
            await asyncio.sleep(restart.pause_s())
            restart.start_again(STALLED, why)


def _said(part: Part, last: int | None) -> str:
    what = "is assigned and not read" if last is None else "has records that nobody hands out"
    return f"{part.topic}-{part.partition} {what}"
