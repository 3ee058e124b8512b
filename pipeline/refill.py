"""Fills one generation of the state with all records of a folder and of the topics, as fast as they can be applied."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message

from features.domain import Action
from features.facts import Fact
from features.schema import IMPRESSIONS, ITEMS, REQUESTS, USER_ACTIONS
from features.state import Resume, State
from features.store.port import Part, StateLost
from pipeline.config import Kafka
from pipeline.dataset import MERGE_ORDER, entries
from pipeline.kafka.reading import Range, Reader
from pipeline.kafka.slices import HELD_RECORDS_MAX, LogRecord
from pipeline.patience import BACKOFF_S, patiently
from pipeline.reading import read

BATCH_MAX = 2_000
BATCH_BYTES_MAX = 16 << 20
FOLDER = "folder/"  # no topic's name has a slash
FOLDER_PARTITION = 32_768  # so that a row's source tag is not that of the record at its offset in partition 0
CAUGHT_UP_RECORDS = 2_000  # a pass that brought no more, or took no longer, was the last
CAUGHT_UP_S = 1.0
SHRINK = 0.8  # a pass that brings more than this share of the one before
BROKER_AWAY_S_MAX = 300.0  # then the rebuild ends; the next goes on where it stood
ORDER = (ITEMS, IMPRESSIONS, USER_ACTIONS, REQUESTS)

_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)


@dataclass(frozen=True, slots=True)
class Far:
    """How far a rebuild is: records applied, and offsets between there and the ends of the logs (None: not known)."""

    done: int
    left: int | None
    seconds: float

    def __str__(self) -> str:
        """For the bar and for the doctor.

        >>> str(Far(3_000, 9_000, 2.0))
        '3 000 of 12 000 records, 1 500/s, 6 s left'
        """
        rate = self.done / max(self.seconds, 1e-3)
        if self.left is None:
            return f"{_grouped(self.done)} records, {_grouped(rate)}/s"
        left_s = self.left / max(rate, 1e-3)
        return f"{_grouped(self.done)} of {_grouped(self.done + self.left)} records, {_grouped(rate)}/s, {left_s:.0f} s left"


@dataclass(slots=True)
class _Queue:
    """What waits to be applied of one part. Its first batch reaches `hold_to`, as a worker's does."""

    part: Part
    hold_to: int
    records: list[LogRecord] = field(default_factory=list)
    bytes: int = 0

    def add(self, message: Message) -> None:
        value = message.value()
        self.records.append(LogRecord(message.offset() or 0, message.timestamp()[1], message.key(), value))
        self.bytes += len(value or b"")

    def take(self) -> list[LogRecord]:
        records, self.records, self.bytes = self.records, [], 0
        return records

    @property
    def is_due(self) -> bool:
        if self.bytes >= BATCH_BYTES_MAX or len(self.records) >= HELD_RECORDS_MAX:
            return True
        return len(self.records) >= BATCH_MAX and self.records[-1].offset >= self.hold_to


class Refill:
    """See the module. `topics` {name in the contract: topic}.

    on_batch is told after every batch how far it is, and may raise to end it all; on_wait hears what is waited for.
    `begins`: the first offset that the log held of each part. `records` counts what was applied by topic, `refused` the
    dead letters among it (they are not written again).
    """

    def __init__(
        self,
        state: State,
        topics: Mapping[str, str],
        actions: Mapping[str, Action],
        *,
        on_batch: Callable[[Far], None],
        on_wait: Callable[[str], None],
    ) -> None:
        self._state, self._topics, self._actions = state, topics, actions
        self._on_batch, self._on_wait = on_batch, on_wait
        self._queues: dict[Part, _Queue] = {}
        self._left: dict[Part, int] = {}
        self.begins: dict[Part, int] = {}
        self._begun_s = time.monotonic()
        self.records: Counter[str] = Counter()
        self.refused = 0

    def fill(self, kafka: Kafka, folder: Path | None) -> None:
        """All of it, until the state is at the end of the logs.

        Raises what on_batch raises; `StoreAway` and `KafkaException` after 5 minutes; `StateForeign` where the log no
        longer reaches back to where a part has to go on.
        """
        while True:
            try:
                if folder is not None:
                    self._take_folder(folder)
                self._take_topics(kafka)
                while patiently(self._state.sweep, on_wait=self._on_wait) is not None:  # of forgotten users
                    self._on_wait("sweeping session lists of forgotten users")
                patiently(self._state.beat, on_wait=self._on_wait)
            except StateLost as lost:  # go on from the marks that are left
                self._on_wait(f"Redis lost data: {lost}")
                self._queues.clear()
            else:
                return

    # --- folder

    def _take_folder(self, folder: Path) -> None:
        """The rows in time order, items first within a batch; a row's offset is its place in its file."""
        parts = {topic: Part(f"{FOLDER}{topic}", FOLDER_PARTITION) for topic in MERGE_ORDER}
        starts = {topic: self._resume(part, Range(0, sys.maxsize)).start for topic, part in parts.items()}
        waiting: dict[str, list[Fact]] = {topic: [] for topic in MERGE_ORDER}
        rows: Counter[str] = Counter()
        queued = 0
        for topic, record in entries(folder, actions=self._actions, refused=lambda *_: None):
            offset = rows[topic]
            rows[topic] += 1
            if offset < starts[topic]:
                continue
            waiting[topic].append(Fact(offset, record))
            queued += 1
            if queued == BATCH_MAX:
                self._apply_rows(parts, waiting)
                queued = 0
        self._apply_rows(parts, waiting)

    def _apply_rows(self, parts: Mapping[str, Part], waiting: dict[str, list[Fact]]) -> None:
        for topic, facts in waiting.items():
            if facts:
                self._apply(parts[topic], facts)
                waiting[topic] = []

    # --- topics

    def _take_topics(self, kafka: Kafka) -> None:
        """Pass after pass, until one brings next to nothing, or no less than the one before.

        In the second case events come as fast as one process applies them: the rest is for the workers, who are more.
        """
        last = math.inf
        with Reader(kafka) as reader:
            while True:
                begun_s, before = time.monotonic(), self.records.total()
                self._with_broker(lambda: self._look_ahead(reader))
                for kind in ORDER:
                    self._with_broker(lambda kind=kind: self._take(reader, kind))  # type: ignore[misc]
                brought = self.records.total() - before
                if brought <= CAUGHT_UP_RECORDS or time.monotonic() - begun_s <= CAUGHT_UP_S or brought > SHRINK * last:
                    return
                last = brought

    def _look_ahead(self, reader: Reader) -> None:
        """How much each part has still to bring."""
        for topic in self._topics.values():
            for partition, held in reader.ranges(topic).items():
                part = Part(topic, partition)
                self.begins.setdefault(part, held.start)
                self._left[part] = held.end - (self._state.position(part) if part in self._queues else held.start)

    def _take(self, reader: Reader, kind: str) -> None:
        """One topic from where it stands to its end; to that of now, where events come faster than they are read."""
        topic = self._topics[kind]
        ranges = reader.ranges(topic)
        starts = {partition: self._place(Part(topic, partition), held) for partition, held in ranges.items()}
        most = sum(held.end - starts[partition] for partition, held in ranges.items()) + CAUGHT_UP_RECORDS
        for message in islice(reader.to_end(topic, starts), max(CAUGHT_UP_RECORDS, most)):
            queue = self._queues[Part(topic, message.partition() or 0)]
            queue.add(message)
            if queue.is_due:
                self._flush(kind, queue)
        for partition in starts:
            self._flush(kind, self._queues[Part(topic, partition)])

    def _place(self, part: Part, held: Range) -> int:
        if part in self._queues:
            self._queues[part].take()  # of a reading that broke off: it is read again
            return self._state.position(part)
        resume = self._resume(part, held)
        self._queues[part] = _Queue(part, resume.hold_to)
        self._left[part] = held.end - resume.start
        return resume.start

    def _flush(self, kind: str, queue: _Queue) -> None:
        if not (records := queue.take()):
            return
        found = read(kind, queue.part, records, actions=self._actions, answer_from=sys.maxsize)
        self._left[queue.part] = max(
            0, self._left[queue.part] - (records[-1].offset + 1 - self._state.position(queue.part))
        )
        self._apply(queue.part, found.facts)

    def _with_broker(self, call: Callable[[], None]) -> None:
        """Runs `call`, again while the broker is away, for `BROKER_AWAY_S_MAX` since it last brought something."""
        delay_s, heard_s = BACKOFF_S[0], time.monotonic()
        while True:
            before = self.records.total()
            try:
                return call()
            except KafkaException as error:
                if self.records.total() > before:
                    delay_s, heard_s = BACKOFF_S[0], time.monotonic()
                if error.args[0].code() not in _PASSING or time.monotonic() > heard_s + BROKER_AWAY_S_MAX:
                    raise
                self._on_wait(f"broker: {error.args[0].str()}")
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, BACKOFF_S[1])

    # --- both

    def _resume(self, part: Part, held: Range) -> Resume:
        """The start rule; what the log holds counts as answered, here nobody answers."""
        asks_only = part.topic == self._topics[REQUESTS]
        resume = partial(self._state.resume, part, committed=held.end, log_start=held.start, asks_only=asks_only)
        return patiently(resume, on_wait=self._on_wait)

    def _apply(self, part: Part, facts: list[Fact]) -> None:
        patiently(lambda: self._state.apply(part, facts, last=facts[-1].offset), on_wait=self._on_wait)
        self.records[part.topic] += len(facts)
        self.refused += sum(fact.record is None for fact in facts)
        left = sum(self._left.values()) if self._left else None
        self._on_batch(Far(self.records.total(), left, time.monotonic() - self._begun_s))


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")
