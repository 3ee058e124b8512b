"""Ends a worker whose consumer has fallen silent, so that its supervisor starts a fresh one.

Faust consumers can stop handing out records after a rebalance or a broker loss, without an error (open issues report
it). What counts is only time in which no agent is at work or waiting for something with a cause, while a record lies
in the log behind the last one handed over. The end of the log comes from a client of its own; before the worker is
ended, that client must have read such a record: an end offset may lie beyond the last record (transaction markers,
compaction) or be stale (Tansu's is, by up to a batch).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from features.store.port import Part
from pipeline import telemetry
from pipeline.config import Kafka
from pipeline.kafka.clients import confluent
from pipeline.logs import get_logger

log = get_logger(__name__)

EXIT_STALLED = 75  # EX_TEMPFAIL: start me again
ANSWER_S = 5.0
LOOKS_PER_PERIOD = 10
SILENCE_S = 2.0
LISTEN_S = 2.0


class Probe:
    """A client of its own: what lies in the log behind an offset?"""

    def __init__(self, settings: Kafka, *, topic: str) -> None:
        """`topic`: any that is there, to ask about."""
        self._topic = topic
        self._consumer = Consumer(
            {
                **confluent(settings),
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

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


class Watchdog:
    """Adds up silent time; `look` once a period's tenth."""

    def __init__(self, probe: Probe, *, limit_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._probe, self._limit_s, self._clock_s = probe, limit_s, clock_s
        self._seen: Mapping[Part, int] = {}
        self._looked_s = clock_s()
        self.stalled_s = 0.0

    def look(self, given: Mapping[Part, int], *, waits_for_records: bool) -> Part | None:
        """The part whose records nobody hands out for too long, None while all is well.

        given: the last offset handed to an agent by part, of the parts held now. waits_for_records: no agent is at
        work, and nothing is waited for with a cause. Blocks for the broker's answers: not on the event loop.
        """
        now_s = self._clock_s()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        moved, self._seen = dict(given) != self._seen, dict(given)
        behind = None if moved or not waits_for_records else self._behind(given)
        self.stalled_s = self.stalled_s + passed_s if behind else 0.0
        telemetry.STALLED_S.set(self.stalled_s)
        if behind is None or self.stalled_s < self._limit_s:
            return None
        return behind if self._confirmed(behind, given[behind] + 1) else None

    def _behind(self, given: Mapping[Part, int]) -> Part | None:
        try:
            return next((part for part, last in given.items() if self._probe.end(part) > last + 1), None)
        except KafkaException:
            return None  # the broker is away: nobody can be blamed for silence

    def _confirmed(self, part: Part, offset: int) -> bool:
        try:
            return self._probe.record_from(part, offset)
        except KafkaException:
            return False


async def listen(probe: Probe, *, tell: Callable[[str | None], None], period_s: float = LISTEN_S) -> None:
    """Asks the broker for a sign of life until cancelled: an idle worker has nothing in flight that would tell."""
    while True:
        await asyncio.sleep(period_s)
        tell(await asyncio.to_thread(probe.silence))


async def watch(watchdog: Watchdog, *, period_s: float, facts: Callable[[], tuple[dict[Part, int], bool]]) -> None:
    """Looks until cancelled; ends the process when a part is stalled. `facts` gives `look`'s arguments."""
    while True:
        await asyncio.sleep(period_s)
        given, waits = facts()
        stalled = await asyncio.to_thread(watchdog.look, given, waits_for_records=waits)
        if stalled is not None:
            log.critical("stalled, restarting", topic=stalled.topic, partition=stalled.partition)
            sys.stderr.flush()
            os._exit(EXIT_STALLED)
