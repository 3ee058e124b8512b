"""The demo's own books: what was published, which trigger was answered, how long that took.

"Answered": for a triggering event there is a recommendation for that user whose trigger lies in the same partition at
the same or a later offset, so an answer covers every earlier trigger of its user and partition. A request is answered
by its request_id. The books are kept outside the worker, from delivery reports and from the output topic alone: they
are what the state's own counts are held against.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import Counter, deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from features.schema import Recommendation

RECENT_MAX = 4_000


class Key(NamedTuple):
    """Where answers cover triggers: one user in one partition."""

    user_id: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the publishing of a trigger to the receipt of the answer that covers it."""

    p50: float | None
    p99: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Totals:
    """A consistent reading of the books."""

    published: int
    failed: int
    triggers: int
    answered: int
    recommendations: int
    repeats: int
    older: int
    levels: dict[str, int]

    @property
    def unanswered(self) -> int:
        """Triggers that still wait."""
        return self.triggers - self.answered


class Ledger:
    """Written by the publishing and the consuming thread, read by the view; one lock around all of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Key, deque[tuple[int, float]]] = {}
        self._covered: dict[Key, tuple[int, float]] = {}
        self._requests: dict[str, float] = {}
        self._early: dict[str, float] = {}
        self._seen: set[int] = set()
        self._published: Counter[str] = Counter()
        self._ends: dict[tuple[str, int], int] = {}
        self._levels: Counter[str] = Counter()
        self._failed = self._triggers = self._answered = self._repeats = self._older = 0
        self._measured_from_s = math.inf
        self._latencies_ms = array("f")
        self._recent_ms: deque[float] = deque(maxlen=RECENT_MAX)

    def measure_from(self, at_s: float) -> None:
        """Latencies are kept of triggers published from this moment on, of none before: a backlog measures itself."""
        self._measured_from_s = at_s

    def delivered(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        at_s: float,
        user_id: str | None,
        request_id: str | None = None,
    ) -> None:
        """A record stands in the log since a send at `at_s`; `user_id` is given where it triggers an answer."""
        with self._lock:
            self._published[topic] += 1
            self._ends[topic, partition] = max(offset, self._ends.get((topic, partition), -1))
            if user_id is None:
                return
            self._triggers += 1
            if request_id is not None:
                received_s = self._early.pop(request_id, None)
                if received_s is None:
                    self._requests[request_id] = at_s
                else:
                    self._close(at_s, received_s)
                return
            key = Key(user_id, topic, partition)
            covered, received_s = self._covered.get(key, (-1, 0.0))
            if offset <= covered:  # the answer came before the delivery report
                self._close(at_s, received_s)
            else:
                self._waiting.setdefault(key, deque()).append((offset, at_s))

    def lost(self) -> None:
        """A record that the broker did not take, after all retries."""
        with self._lock:
            self._failed += 1

    def received(self, recommendation: Recommendation, *, at_s: float) -> bool:
        """Books an answer; False for one that says nothing new (a known rec_id, or an older trigger than covered)."""
        with self._lock:
            name = hash(recommendation.rec_id)
            if name in self._seen:
                self._repeats += 1
                return False
            self._seen.add(name)
            self._levels[recommendation.level] += 1
            if recommendation.request_id is not None:
                self._answer_request(recommendation.request_id, at_s)
                return True
            if recommendation.trigger is None:
                return True
            trigger = recommendation.trigger
            key = Key(recommendation.user_id, trigger.topic, trigger.partition)
            if trigger.offset <= self._covered.get(key, (-1, 0.0))[0]:
                self._older += 1
                return False
            self._covered[key] = (trigger.offset, at_s)
            self._cover(key, trigger.offset, at_s)
            return True

    def totals(self) -> Totals:
        """All counts at one moment."""
        with self._lock:
            return Totals(
                published=sum(self._published.values()),
                failed=self._failed,
                triggers=self._triggers,
                answered=self._answered,
                recommendations=len(self._seen),
                repeats=self._repeats,
                older=self._older,
                levels=dict(self._levels),
            )

    def published_by_topic(self) -> dict[str, int]:
        """Delivered records by topic."""
        with self._lock:
            return dict(self._published)

    def ends(self) -> dict[tuple[str, int], int]:
        """The last delivered offset by (topic, partition)."""
        with self._lock:
            return dict(self._ends)

    def latency(self, *, recent: bool = False) -> Latency:
        """Quantiles over all measured triggers, or over the newest 4 000."""
        with self._lock:
            values = np.array(self._recent_ms if recent else self._latencies_ms, dtype=np.float64)
        if not len(values):
            return Latency(None, None, 0)
        p50, p99 = np.percentile(values, [50, 99])
        return Latency(float(p50), float(p99), len(values))

    def oldest_unanswered(self, limit: int = 5) -> list[str]:
        """A few of the triggers that still wait, oldest first, for the error message."""
        with self._lock:
            waiting = [
                (at_s, f"{key.topic}-{key.partition}-{offset} of {key.user_id}")
                for key, queue in self._waiting.items()
                for offset, at_s in queue
            ]
            waiting += [(at_s, f"request {request_id}") for request_id, at_s in self._requests.items()]
        return [name for _, name in sorted(waiting)[:limit]]

    def _cover(self, key: Key, offset: int, received_s: float) -> None:
        queue = self._waiting.get(key)
        if queue is None:
            return
        while queue and queue[0][0] <= offset:
            self._close(queue.popleft()[1], received_s)
        if not queue:
            del self._waiting[key]

    def _answer_request(self, request_id: str, received_s: float) -> None:
        at_s = self._requests.pop(request_id, None)
        if at_s is None:
            self._early[request_id] = received_s
        else:
            self._close(at_s, received_s)

    def _close(self, at_s: float, received_s: float) -> None:
        self._answered += 1
        if at_s < self._measured_from_s:
            return
        latency_ms = (received_s - at_s) * 1000.0
        self._latencies_ms.append(latency_ms)
        self._recent_ms.append(latency_ms)
