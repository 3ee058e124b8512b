"""The traffic's way into the topics: as fast as it is applied, never more than `backlog_max` ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from confluent_kafka import KafkaError, Message, Producer

from tests.chaos.traffic import Post

CHUNK = 500
GIVE_UP_MS = 600_000  # a broker that is away comes back; what is given up is missing in the log, so nobody misses it


class Sender:
    """Owns the producer. `sent`: handed over; `taken`: acknowledged; `ends`: one after the last offset, by
    (topic, partition).
    """

    def __init__(self, bootstrap: str, posts: Iterable[Post], *, prefix: str, settings: Mapping[str, object]) -> None:
        self._posts: Iterator[Post] = iter(posts)
        self._prefix = prefix
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "delivery.timeout.ms": GIVE_UP_MS,
                "message.max.bytes": 16_777_216,
                **settings,
            }
        )
        self.sent = self.taken = 0
        self.given_up: Counter[str] = Counter()
        self.ends: dict[tuple[str, int], int] = {}
        self.exhausted = False

    @property
    def done(self) -> bool:
        """Whether everything is in the log, or given up."""
        return self.exhausted and len(self._producer) == 0

    @property
    def is_flushed(self) -> bool:
        """Whether everything that was handed over is in the log, or given up."""
        return len(self._producer) == 0

    def pump(self, *, room: int) -> None:
        """Sends at most `room` records of what is left, and takes reports in."""
        self._producer.poll(0)
        if self.exhausted or room <= 0:
            return
        posts = list(islice(self._posts, min(room, CHUNK)))
        self.exhausted = not posts
        for post in posts:
            self._send(post)
        self.sent += len(posts)

    def close(self) -> None:
        """Lets go of what is on its way."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _send(self, post: Post) -> None:
        at = {"partition": post.partition} if post.partition >= 0 else {}
        while True:
            try:
                self._producer.produce(self._prefix + post.topic, post.value, post.key, on_delivery=self._report, **at)
            except BufferError:
                self._producer.poll(0.05)
            else:
                return

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.given_up[error.name()] += 1
            return
        self.taken += 1
        at = message.topic() or "", message.partition() or 0
        self.ends[at] = max(self.ends.get(at, 0), (message.offset() or 0) + 1)
