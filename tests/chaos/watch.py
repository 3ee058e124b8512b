"""How far the state is, as its own marks tell, and how long it takes to move again after a fault."""

from __future__ import annotations

import time
from contextlib import suppress

import redis

from features.schema import INPUT_TOPICS
from features.store import layout as names
from features.store.port import PHASES, Part
from features.store.redis_dial import dial
from features.store.redis_replies import good
from pipeline.config import Settings

LOOK_S = 0.1
ANSWER_S = 0.3


class Watch:
    """`look` often. `positions`: the next offset not applied everywhere, by part; `applied`: all of them added up, the
    most that was ever seen (a Redis that lost its tail goes back).
    """

    def __init__(self, settings: Settings, *, partitions: int) -> None:
        self._settings = settings
        self._wire = dial(settings.redis.url, timeout_s=ANSWER_S)
        prefix = settings.kafka.topic_prefix
        self.parts = [Part(prefix + topic, number) for topic in INPUT_TOPICS for number in range(partitions)]
        self.positions: dict[Part, int] = dict.fromkeys(self.parts, 0)
        self.applied = 0
        self.recoveries_s: list[float] = []
        self.moved_s = time.monotonic()
        self._looked_s = 0.0
        self._goal: int | None = None
        self._ended_s = 0.0

    def look(self, *, at_once: bool = False) -> None:
        """Asks Redis, at most ten times a second; one that does not answer tells nothing new."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S and not at_once:
            return
        self._looked_s = now_s
        with suppress(redis.RedisError, OSError, ValueError):
            positions = self._read()
            if positions != self.positions:
                self.moved_s, self.positions = now_s, positions
            total = sum(positions.values())
            self.applied = max(self.applied, total)
            if self._goal is not None and self._ended_s and total > self._goal:
                self.recoveries_s.append(now_s - self._ended_s)
                self._goal = None

    def fault_begins(self) -> None:
        """The state has recovered when it is beyond where it ever was when the fault had ended."""
        self._goal, self._ended_s = self.applied, 0.0

    def fault_ended(self) -> None:
        """The clock of the recovery starts."""
        if self._goal is not None:
            self._ended_s = 0.0
            self.look(at_once=True)  # what was done meanwhile, from buffers, is no recovery
            self._goal, self._ended_s = self.applied, time.monotonic()

    def all_applied(self) -> None:
        """There is nothing left to move beyond: the recovery that waits is over."""
        if self._goal is not None and self._ended_s:
            self.recoveries_s.append(time.monotonic() - self._ended_s)
            self._goal = None

    def close(self) -> None:
        """Hangs up."""
        self._wire.close()

    def _read(self) -> dict[Part, int]:
        app, shards = self._settings.redis.app, self._settings.redis.shards
        (generation,) = good(self._wire.exchange([("HGET", names.meta_key(app), "generation")]))
        prefixes = names.prefixes(app, int(generation or 1), shards)
        replies = good(self._wire.exchange([("HGETALL", f"{prefix}hwm") for prefix in prefixes]))
        marks = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
        fields = {part: [names.mark_field(phase, part).encode() for phase in PHASES] for part in self.parts}
        return {
            part: min(int(held.get(field, -1)) for held in marks for field in wanted) + 1
            for part, wanted in fields.items()
        }
