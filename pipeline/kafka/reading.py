"""A plain reader of whole topics, outside every group: for `tail`, `dead-letters` and the doctor. It commits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config import ConfigError, Kafka
from pipeline.kafka.clients import confluent
from pipeline.kafka.topics import FORBIDDEN

ANSWER_S = 10.0
POLL_S = 0.2
SILENT_S = 5.0  # without a record or an end; then the leaders are asked
BATCH = 500
FETCH_WAIT_MS = 50  # Tansu sits out the whole wait
AGAIN_S = 0.1
# What a broker says of a topic that has just been made, and while partitions find their leader: asked again, it answers.
PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
}
Answer = TypeVar("Answer")


class Range(NamedTuple):
    """A partition's first offset and the one after its last."""

    start: int
    end: int


class Reader:
    """Owns one consumer; a context manager. `group` only says whose commits `committed` tells: it never joins it."""

    def __init__(self, settings: Kafka, *, group: str | None = None) -> None:
        self._consumer = Consumer(
            {
                **confluent(settings),
                "group.id": group or f"{settings.group}-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "check.crcs": True,  # as the worker
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "enable.partition.eof": True,
                "fetch.max.bytes": settings.fetch_max_bytes,
                "max.partition.fetch.bytes": settings.fetch_max_bytes,
                "receive.message.max.bytes": settings.fetch_max_bytes + 1_000_000,
            }
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._consumer.close()

    def ranges(self, topic: str) -> dict[int, Range]:
        """What the broker holds of each partition. Raises `ConfigError` where the topic is missing."""
        described = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        if described.error is not None and described.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise ConfigError(f"{topic}: {FORBIDDEN}")
        if described.error is not None or not described.partitions:
            raise ConfigError(f"{topic}: the broker has no such topic (`headrace topics create` makes it)")
        return {partition: self._range(topic, partition) for partition in sorted(described.partitions)}

    def _range(self, topic: str, partition: int) -> Range:
        asked = TopicPartition(topic, partition)
        return Range(*_answered(lambda: self._consumer.get_watermark_offsets(asked, timeout=ANSWER_S)))

    def starts(self, topic: str, *, since_ms: int = 0) -> dict[int, int]:
        """Where to read from, by partition: the first offset held, or the first taken at or after `since_ms`.

        A partition that took none since is absent. Raises `ConfigError` where the topic is missing.
        """
        held = self.ranges(topic)
        if not since_ms:
            return {partition: range_.start for partition, range_ in held.items()}
        asked = [TopicPartition(topic, partition, since_ms) for partition in held]
        answers = _answered(lambda: self._consumer.offsets_for_times(asked, timeout=ANSWER_S))
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """What the reader's group has committed, by partition; absent where it has not."""
        asked = [TopicPartition(topic, partition) for partition in partitions]
        answers = _answered(lambda: self._consumer.committed(asked, timeout=ANSWER_S))
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def existing(self, topic: str) -> Iterator[Message]:
        """Every record the topic holds now, in offset order per partition; then it ends."""
        return self.to_end(topic, self.starts(topic))

    def to_end(self, topic: str, starts: Mapping[int, int]) -> Iterator[Message]:
        """The records of the partitions from their start offsets to their ends as the fetches tell them.

        Not to the ends that `ranges` gives: Tansu's ListOffsets is behind by up to one batch. Raises `KafkaException`
        when nothing comes and the leader of a partition does not answer.
        """
        self._consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        left, heard_s = set(starts), time.monotonic()
        while left:
            messages, ended = self._consume()
            left -= ended
            if messages or ended:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENT_S:  # librdkafka itself would wait for ever, without a word
                for partition in left:
                    self._range(topic, partition)
                heard_s = time.monotonic()
            yield from messages

    def follow(self, topic: str, *, from_start: bool, until_s: float | None) -> Iterator[Message | None]:
        """What comes in from now on (or from the first record held), None while nothing does; ends after `until_s`."""
        ranges = self.ranges(topic)
        starts = [TopicPartition(topic, at, held.start if from_start else held.end) for at, held in ranges.items()]
        self._consumer.assign(starts)
        end_s = None if until_s is None else time.monotonic() + until_s
        while end_s is None or time.monotonic() < end_s:
            messages, _ = self._consume()
            yield from messages or (None,)

    def _consume(self) -> tuple[list[Message], set[int]]:
        """The next records, and the partitions whose end was reached."""
        messages, ended = [], set()
        for message in self._consumer.consume(BATCH, timeout=POLL_S):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
            else:
                raise KafkaException(error)
        return messages, ended


def _answered(ask: Callable[[], Answer]) -> Answer:
    """The broker's answer; one that passes is asked for again for `ANSWER_S`."""
    until_s = time.monotonic() + ANSWER_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in PASSING or time.monotonic() > until_s:
                raise
        time.sleep(AGAIN_S)
