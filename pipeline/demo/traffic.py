"""The demo's traffic: records on their way into the topics, paced, bounded, booked by their delivery reports.

One thread publishes. It goes through phases in order: a log, or the simulated shop's past (as fast as the worker
takes it), then the live shop (at a rate). The shop is touched by this thread alone; recommendations reach it by a
queue.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from features.domain import Domain
from features.schema import (
    Impression,
    InputRecord,
    Item,
    Recommendation,
    RecommendationRequest,
    Refused,
    check_time,
    decode,
)
from pipeline.cli.escaping import escaped
from pipeline.dataset import Row, Writer
from pipeline.demo.ledger import Ledger
from pipeline.demo.shoppers import TOPIC_OF, Shop

BACKLOG_MAX = 20_000  # records published but not yet applied: bounds the broker's memory and the final wait
PAUSE_S = 0.002
FLUSH_S = 30.0
WARM_UP_SPAN_MS = 2 * 60 * 60 * 1000
TITLE_NAMES = ("title", "name", "description", "product_type")
TITLES_MAX = 100_000

_ENCODER = msgspec.json.Encoder()


class Post(NamedTuple):
    """One record to publish. `user_id` is set where it triggers an answer, `request_id` where it asks for one."""

    topic: str
    key: bytes | None
    raw: bytes
    user_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of traffic. `rate` in records/s (None: as fast as they are taken). `live`: its latency is measured."""

    name: str
    posts: Iterable[Post]
    rate: float | None
    live: bool


class Judge:
    """Makes posts of records and knows which ones trigger an answer, by the rules that the worker has in its settings.

    A record that breaks the contract and an action that nobody configured trigger nothing. A known event_id does: the
    record stands in the log, and whoever sent it again may not have got the first answer.
    """

    def __init__(self, domain: Domain) -> None:
        self.titles: dict[str, str] = {}
        self._triggers = frozenset(action.name for action in domain.actions if action.trigger)

    def post(self, record: InputRecord, raw: bytes | None = None) -> Post:
        """The post of a record that keeps the contract."""
        topic = TOPIC_OF[type(record)]
        raw = _ENCODER.encode(record) if raw is None else raw
        if isinstance(record, Item):
            self._title(record)
            return Post(topic, record.item_id.encode(), raw)
        key = record.user_id.encode()
        if isinstance(record, RecommendationRequest):
            return Post(topic, key, raw, record.user_id, record.request_id)
        if isinstance(record, Impression):
            return Post(topic, key, raw)
        return Post(topic, key, raw, record.user_id if record.action in self._triggers else None)

    def post_of_row(self, row: Row, *, log_ts_ms: int) -> Post:
        """The post of a data set's line, whether it keeps the contract or not."""
        try:
            record = decode(row.topic, row.raw)
            check_time(record, log_ts_ms=log_ts_ms)
        except Refused:
            return Post(row.topic, None, row.raw)
        return self.post(record, row.raw)

    def _title(self, record: Item) -> None:
        attributes = record.attributes or {}
        title = next((value for name in TITLE_NAMES if isinstance(value := attributes.get(name), str)), None)
        if title and len(self.titles) < TITLES_MAX:
            self.titles[record.item_id] = escaped(title)


def past(shop: Shop, judge: Judge, *, records: int, now_ms: int) -> Iterator[Post]:
    """The catalogue and the shop's last two hours, `records` of them, ending at `now_ms`."""
    start_ms = now_ms - WARM_UP_SPAN_MS
    yield from map(judge.post, shop.opening(ts_ms=start_ms))
    made = 0
    while made < records:
        for record in shop.step(now_ms=start_ms + WARM_UP_SPAN_MS * made // records):
            made += 1
            yield judge.post(record)


def live(shop: Shop, judge: Judge, inbox: deque[Recommendation], clock_ms: Callable[[], int]) -> Iterator[Post]:
    """The shop from now on, without an end; shows its visitors what comes in by `inbox`. Hit rates count from here."""
    shop.count_afresh()
    last_ms = 0
    while True:
        while inbox:
            answer = inbox.popleft()
            ids = [item.item_id for item in answer.items]
            shop.receive(answer.user_id, answer.rec_id, ids, request_id=answer.request_id)
        # A clock that steps back must not put a kept log out of order.
        last_ms = max(last_ms, clock_ms())
        yield from map(judge.post, shop.step(now_ms=last_ms))


def recorded(rows: Iterable[Row], judge: Judge, clock_ms: Callable[[], int]) -> Iterator[Post]:
    """A data set's rows in their order."""
    for row in rows:
        yield judge.post_of_row(row, log_ts_ms=clock_ms())


class Traffic:
    """Publishes the phases in a thread of its own until they end or `stop` is called; then `done` is set.

    `backlog` says how many published records are not yet applied; above 20 000 publishing waits. `settled` says
    whether everything so far is applied and answered: a live phase after another begins then. `keep` gets every
    record in the order of publishing, but for requests, which a data set folder does not have.
    """

    def __init__(
        self,
        producer: Producer,
        ledger: Ledger,
        phases: Iterable[Phase],
        *,
        backlog: Callable[[], int],
        settled: Callable[[], bool],
        keep: Writer | None = None,
    ) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None
        self.phase = ""
        self.sent = 0
        self.live_since_s: float | None = None
        self._producer = producer
        self._ledger = ledger
        self._phases = phases
        self._backlog = backlog
        self._settled = settled
        self._keep = keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the traffic; returns at once, `done` follows when all delivery reports are in."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            for number, phase in enumerate(self._phases):
                self._enter(phase, first=number == 0)
                self._publish(phase)
            self._producer.flush(FLUSH_S)
        except Exception as error:
            self.error = error
        finally:
            self.done.set()

    def _enter(self, phase: Phase, *, first: bool) -> None:
        if phase.live and not first:
            while not (self._stop.is_set() or (self._producer.flush(PAUSE_S) == 0 and self._settled())):
                time.sleep(PAUSE_S)
        self.phase = phase.name
        if phase.live:
            self.live_since_s = time.monotonic()
            self._ledger.measure_from(self.live_since_s)

    def _publish(self, phase: Phase) -> None:
        begun_s = time.monotonic()
        for number, post in enumerate(phase.posts):
            if not self._await_turn(phase.rate, begun_s, number):
                return
            self._send(post)

    def _await_turn(self, rate: float | None, begun_s: float, number: int) -> bool:
        """Waits for the schedule and for room in the backlog; False once stopped."""
        while not self._stop.is_set():
            early_s = begun_s + number / rate - time.monotonic() if rate else 0.0
            if early_s <= 0 and (self.sent % 64 or self._backlog() < BACKLOG_MAX):
                return True
            self._producer.poll(0)
            time.sleep(min(max(early_s, 0.0005), PAUSE_S))
        return False

    def _send(self, post: Post) -> None:
        report = partial(self._delivered, post, time.monotonic())
        while True:
            try:
                self._producer.produce(post.topic, post.raw, key=post.key, on_delivery=report)
                break
            except BufferError:  # librdkafka's queue is full: let it work
                self._producer.poll(0.05)
        self.sent += 1
        if self._keep is not None and post.topic != TOPIC_OF[RecommendationRequest]:
            self._keep.add(post.topic, post.raw)
        self._producer.poll(0)

    def _delivered(self, post: Post, at_s: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._ledger.lost()
            return
        self._ledger.delivered(
            post.topic,
            message.partition(),
            message.offset(),
            at_s=at_s,
            user_id=post.user_id,
            request_id=post.request_id,
        )


def producer(bootstrap: str) -> Producer:
    """A producer that loses nothing, sends at once and keys like every other client of the topics."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "message.max.bytes": 16_777_216,
            "delivery.timeout.ms": 120_000,
            "log_level": 2,
        }
    )
