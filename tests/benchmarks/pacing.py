"""A steady producer and its reader in one: triggers at a rate, and when an answer covered each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition

from features.schema import RECOMMENDATIONS, Recommendation
from tests.integration.worlds import World, action

LAST_ANSWER_S = 30


class Waited(NamedTuple):
    """One trigger: when it was produced, on this process's clock, and how long until an answer covered it."""

    sent_s: float
    latency_ms: float


class Pacer:
    """Sends `per_s` triggers a second of `users` wandering over `items`; `answered` holds those that are covered.

    world: where to. seed: part of every event id. Latency counts from the moment a trigger was due, so a producer
    that falls behind does not flatter the worker.
    """

    def __init__(self, world: World, *, per_s: float, users: int, items: int, seed: str = "paced") -> None:
        self._world, self._per_s, self._users, self._items, self._seed = world, per_s, users, items, seed
        self._open: dict[tuple[str, int], list[tuple[int, float]]] = {}
        self._covered: dict[tuple[str, int], tuple[int, float]] = {}
        self._reader = self._at_the_end()
        self.sent = 0
        self.answered: list[Waited] = []
        self.levels: dict[str, int] = {}

    def run(self, seconds: float, *, every_s: float = 1.0, tell: Callable[[float], None] = lambda _: None) -> None:
        """Sends for so long; calls `tell` with the seconds passed, about every `every_s`."""
        begun_s, due = time.monotonic(), int(self._per_s * seconds)
        told_s = begun_s
        for number in range(due):
            due_s = begun_s + number / self._per_s
            while (now_s := time.monotonic()) < due_s:
                self._turn(0.001)
            if now_s >= told_s + every_s:
                told_s = now_s
                tell(now_s - begun_s)
            self._send(due_s)

    def settle(self) -> None:
        """Waits for the answers that are still open; how many stay so tells `waiting`."""
        self._world.producer.flush(5)
        until_s = time.monotonic() + LAST_ANSWER_S
        while self.waiting and time.monotonic() < until_s:
            self._turn(0.05)

    @property
    def waiting(self) -> int:
        """Triggers without an answer."""
        return self.sent - len(self.answered)

    def close(self) -> None:
        """Leaves the broker."""
        self._reader.close()

    def _send(self, due_s: float) -> None:
        user = f"u{self.sent * 7919 % self._users}"
        key, value = action(f"{self._seed}-{self.sent}", user, f"i{self.sent * 31 % self._items}")
        self.sent += 1
        self._world.producer.produce(
            self._world.prefix + "user_actions", value, key, on_delivery=self._noted(user, due_s)
        )
        self._world.producer.poll(0)

    def _noted(self, user: str, at_s: float) -> Callable[[object, object], None]:
        def note(error: object, message: object) -> None:
            assert error is None, error
            key, offset = (user, message.partition()), message.offset()
            covered, now_s = self._covered.get(key, (-1, 0.0))
            if offset <= covered:  # the answer came before the delivery report
                self.answered.append(Waited(at_s, (now_s - at_s) * 1000))
            else:
                self._open.setdefault(key, []).append((offset, at_s))

        return note

    def _turn(self, timeout_s: float) -> None:
        self._world.producer.poll(0)
        for message in self._reader.consume(200, timeout=timeout_s):
            if message.error() is None:
                self._take(msgspec.json.decode(message.value(), type=Recommendation), time.monotonic())

    def _take(self, answer: Recommendation, now_s: float) -> None:
        self.levels[answer.level] = self.levels.get(answer.level, 0) + 1
        if answer.trigger is None:
            return
        key, upto = (answer.user_id, answer.trigger.partition), answer.trigger.offset
        self._covered[key] = max(self._covered.get(key, (-1, 0.0)), (upto, now_s))
        waiting = self._open.pop(key, [])
        self.answered.extend(Waited(at_s, (now_s - at_s) * 1000) for offset, at_s in waiting if offset <= upto)
        if later := [each for each in waiting if each[0] > upto]:
            self._open[key] = later

    def _at_the_end(self) -> Consumer:
        reader = Consumer(
            {"bootstrap.servers": self._world.bootstrap, "group.id": "paced", "fetch.wait.max.ms": 5, "log_level": 0}
        )
        name = self._world.prefix + RECOMMENDATIONS
        parts = reader.list_topics(name, timeout=5).topics[name].partitions
        ends = [reader.get_watermark_offsets(TopicPartition(name, part))[1] for part in parts]
        reader.assign([TopicPartition(name, part, end) for part, end in zip(parts, ends, strict=True)])
        return reader
