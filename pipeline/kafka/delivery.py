"""A producer for commands: synchronous, bounded, and honest: it counts what the broker confirmed, not what was queued."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.config import Kafka
from pipeline.kafka.publisher import producer_settings

POLL_EVERY = 256
FULL_QUEUE_S = 0.05
REASONS_MAX = 20
KEYLESS = "the broker refuses the record: a compacted topic takes none without a key"


@dataclass(slots=True)
class Delivered:
    """One label's books: rows handed over, confirmed by the broker, failed; how often for which reason."""

    rows: int = 0
    delivered: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def report(self, error: KafkaError | None, _: Message | None = None) -> None:
        """The broker's word on one row."""
        if error is None:
            self.delivered += 1
            return
        self.failed += 1
        reason = KEYLESS if error.code() == KafkaError.INVALID_RECORD else error.str()
        if reason in self.reasons or len(self.reasons) < REASONS_MAX:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Delivery:
    """Sends rows under labels (file names) and keeps the books; a context manager that waits for the last report."""

    def __init__(self, settings: Kafka, *, linger_ms: int = 20) -> None:
        chosen = {"linger.ms": linger_ms, "allow.auto.create.topics": False}  # a mistyped prefix would make a topic
        self._producer = Producer(producer_settings(settings) | chosen)
        self._flush_s = settings.delivery_timeout_ms / 1000 + 1
        self._since_poll = 0
        self.books: defaultdict[str, Delivered] = defaultdict(Delivered)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()

    def send(
        self,
        label: str,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Hands one row over; waits while the producer's queue is full."""
        book = self.books[label]
        book.rows += 1
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=book.report, headers=list(headers))
                break
            except BufferError:
                self._producer.poll(FULL_QUEUE_S)
            except KafkaException as error:
                book.report(error.args[0])
                break
        self._since_poll += 1
        if self._since_poll >= POLL_EVERY:
            self.poll(0)

    def poll(self, seconds: float) -> None:
        """Takes reports for so long."""
        self._since_poll = 0
        self._producer.poll(seconds)

    def flush(self) -> None:
        """Waits until every row is confirmed or has failed: at most the delivery timeout."""
        self._producer.flush(self._flush_s)

    @property
    def delivered(self) -> int:
        """Rows confirmed so far."""
        return sum(book.delivered for book in self.books.values())

    @property
    def failed(self) -> int:
        """Rows that are not confirmed; before the end those on their way too."""
        return sum(book.rows - book.delivered for book in self.books.values())
