"""The demo as the downstream team: follows the recommendations topic, books every answer, hands it to the shop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from features.schema import RECOMMENDATIONS, Recommendation
from pipeline.demo.ledger import Ledger

CONSUMED_MAX = 500
WAIT_S = 0.05
FETCH_WAIT_MS = 10  # the embedded broker sits out the whole fetch wait: it adds itself to every latency
NEWEST_MAX = 12
INBOX_MAX = 10_000


class Answers:
    """Consumes in a thread of its own. `inbox` is the shop's post box, `newest` what the view shows."""

    def __init__(self, bootstrap: str, ledger: Ledger, *, partitions: int, topic: str = RECOMMENDATIONS) -> None:
        self.inbox: deque[Recommendation] = deque(maxlen=INBOX_MAX)
        self.newest: deque[Recommendation] = deque(maxlen=NEWEST_MAX)
        self.error: Exception | None = None
        self.first_at_s: float | None = None
        self.first_full_at_s: float | None = None
        self._ledger = ledger
        self._stop = threading.Event()
        self._decode: Callable[[bytes], Recommendation] = msgspec.json.Decoder(Recommendation).decode
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headrace-demo-view",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "fetch.queue.backoff.ms": FETCH_WAIT_MS,
                "log_level": 2,
            }
        )
        self._parts = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)]
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        """Begins to follow the topic from its beginning."""
        self._consumer.assign(self._parts)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and the consumer."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._consumer.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                # `consume` with a timeout waits for the whole batch: poll wakes with the first.
                first = self._consumer.poll(WAIT_S)
                at_s = time.monotonic()
                if first is None:
                    continue
                for message in (first, *self._consumer.consume(CONSUMED_MAX, timeout=0)):
                    # An error here is the broker's passing trouble; the client goes on by itself.
                    if message.error() is None and (value := message.value()) is not None:
                        self._take(self._decode(value), at_s)
        except Exception as error:
            self.error = error

    def _take(self, answer: Recommendation, at_s: float) -> None:
        if not self._ledger.received(answer, at_s=at_s):
            return
        self.first_at_s = self.first_at_s or at_s
        if answer.level == "full":
            self.first_full_at_s = self.first_full_at_s or at_s
        self.inbox.append(answer)
        self.newest.append(answer)
