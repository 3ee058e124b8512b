"""The slice transport: a Faust driver that hands an agent slices instead of single messages, under our start rule.

Registered as `headrace://`. It stays a Faust agent (groups, rebalance, timers, web); what differs from the aiokafka
driver it subclasses:

- `getmany` yields one message for each (partition, <= slice_max records) slice.
- No seek to the committed offset: where to start comes from the state (`Edge.start`), looked up by the fetch loop, so
  it may wait for the store as long as that takes; Recovery's own `perform_seek` has a time limit and only marks.
- What gets committed is what the edge says is answered, not Faust's acks: an agent that raised, gaps in the offsets
  and skipped events cannot move it. A commit that fails is tried again; it never takes the worker down.

`consumer_thread.py` is the half of it that talks to the broker. Both lean on private names of faust-streaming 0.15.3:
`tests/pipeline/kafka/test_driver.py` names each of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage

from features.store.port import Part
from pipeline.kafka import codecs, fetched
from pipeline.kafka.consumer_thread import BACKOFF_S, SliceThread
from pipeline.kafka.slices import Cursor, Slice
from pipeline.logs import get_logger

log = get_logger(__name__)

SCHEME = "headrace"
IDLE_FETCH_S = 0.2  # a fetch call ends at the latest then, so that partitions whose queue has drained are asked again
BUSY_FETCH_S = 0.02
NOTHING_ACTIVE_S = 0.005  # stock sleeps 1 s here: at 8 queued slices that would be most of the time
ASKING_S = 0.02  # a broker answers within a millisecond; then nothing else is kept waiting
CUT_S = 10.0  # followers of a healthy broker fetch every half second


class Consumer(stock.Consumer):  # type: ignore[misc]
    """Where to read from, what to read, what to commit: on the app's own loop."""

    def _new_consumer_thread(self) -> SliceThread:
        self._unplaced: set[TP] = set()
        self._seek_nos: dict[TP, int] = {}
        self._seeks = 0
        self._hold_to: dict[TP, int] = {}
        self._asking: tuple[dict[TP, int], asyncio.Future[Any]] | None = None  # what is asked for, by its seek number
        self._ask_at_s = 0.0  # when partitions whose leader gave no answer are to be asked for again
        self._doubted_s: dict[TP, float] = {}  # since when a log seems to end before what is applied
        return SliceThread(self, loop=self.loop, beacon=self.beacon)

    # --- where to read from

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribes once the edge is ready; not at all when the worker ends before."""
        await self.app.edge.ready()
        if not self.app.should_stop:
            await super().subscribe(topics)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Recovery's word for "start": every assigned partition is to be placed by the fetch loop."""
        for tp in self.assignment():
            self.replace(tp)
        return {}

    def replace(self, tp: TP) -> None:
        """Have `tp` placed anew by the state's start rule; slices already on their way are void from here on."""
        self._seeks += 1
        self._seek_nos[tp] = self._seeks
        self._unplaced.add(tp)

    def seek_no(self, part: Part) -> int:
        """The number that a slice of `part` must carry to count; -1 when the part is not held."""
        return self._seek_nos.get(TP(*part), -1)

    def is_placed(self, part: Part) -> bool:
        """Whether reading of `part` has begun, after the newest assignment or seek."""
        return self.seek_no(part) >= 0 and TP(*part) not in self._unplaced

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the consumer's thread, None while there need be none."""
        return None if self.should_stop else self._thread.thread_loop

    def log_end(self, part: Part) -> int | None:
        """The end offset of `part` as the newest fetch saw it."""
        end: int | None = self._thread.log_end(TP(*part))
        return end

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Slices of revoked partitions are void."""
        for tp in revoked:
            self._seek_nos.pop(tp, None)
            self._unplaced.discard(tp)
            self._hold_to.pop(tp, None)
            self._doubted_s.pop(tp, None)
        await self._thread.call_thread(self._thread.forget, tuple(revoked))
        await super().on_partitions_revoked(revoked)

    async def _place_waiting(self) -> None:
        """Of what waits, those whose log can be asked. The asking goes on while the others are read: neither a partition
        without a leader nor a broker that does not answer holds them up.
        """
        if self._asking is None:
            waiting = {tp: self._seek_nos[tp] for tp in self._unplaced & self.assignment()}
            if not waiting or time.monotonic() < self._ask_at_s:
                return
            call = self._thread.call_thread(self._thread.standing, tuple(waiting))
            self._asking = waiting, asyncio.ensure_future(call)
        waiting, asking = self._asking
        if not (await asyncio.wait({asking}, timeout=ASKING_S))[0]:
            return
        self._asking = None
        try:
            standing = asking.result()
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("the broker does not say where the log stands, asking again", cause=repr(error))
            self._ask_at_s = time.monotonic() + BACKOFF_S
            return
        if len(standing) < len(waiting):
            self._ask_at_s = time.monotonic() + BACKOFF_S
        for tp, at in standing.items():
            await self._place(tp, waiting[tp], *at)

    async def _place(self, tp: TP, seek_no: int, committed: int | None, log_start: int) -> None:
        resume = await self.app.edge.start(Part(*tp), committed=committed, log_start=log_start)
        if self._seek_nos.get(tp) != seek_no or tp not in self.assignment():
            return  # a rebalance, or another seek, came in between
        cursor = Cursor(Part(*tp), seek_no, resume.start - 1, self.app.edge_options.slice_max, hold_to=resume.hold_to)
        try:
            await self._thread.call_thread(self._thread.place, tp, cursor)
        except IllegalStateError:
            return  # revoked meanwhile
        if self._seek_nos.get(tp) != seek_no:
            return  # to be placed once more already: it must stay among the unplaced
        self._committed_offset[tp] = committed
        self._hold_to[tp] = max(resume.hold_to, resume.start - 1)
        self._unplaced.discard(tp)
        log.info("reading", topic=tp.topic, partition=tp.partition, start=resume.start, hold_to=resume.hold_to)

    def _check_end(self, tp: TP) -> None:
        """Marks beyond the log's end mean that the log was cut: what comes next would be taken for known.

        A fetch that was under way before the seek tells an older end, and so does a new leader until its followers have
        caught up: an end has to stay too low for CUT_S.
        """
        if (applied := self._hold_to.get(tp)) is None or (end := self._thread.log_end(tp)) is None:
            return
        if applied >= end and time.monotonic() - self._doubted_s.setdefault(tp, time.monotonic()) < CUT_S:
            self._thread.forget_end(tp)
            return
        self._doubted_s.pop(tp, None)
        del self._hold_to[tp]
        if applied >= end:
            self.app.edge.refuse_log(Part(*tp), f"the state has applied offset {applied}, the log ends at {end}")

    # --- reading

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ARG002 - stock's signature
        """The slices of one fetch, round robin over topics and partitions."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        await self._place_waiting()
        active = self._get_active_partitions() - self._unplaced
        if self.should_stop or not active:
            await asyncio.sleep(NOTHING_ACTIVE_S)
            return
        patience_s = BUSY_FETCH_S if self._buffered_partitions else IDLE_FETCH_S
        slices = await self._getmany(active_partitions=active, timeout=patience_s)
        for tp in active & self._hold_to.keys():
            self._check_end(tp)
        for tp, piece in self.scheduler.iterate(slices):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return  # a rebalance: the start rule will place everything anew
            self._read_offset[tp] = None  # stock compares with it to drop and to note gaps; seek numbers do that here
            yield tp, self._message(tp, piece, generation)

    def _message(self, tp: TP, piece: Slice, generation: int) -> ConsumerMessage:
        newest_ms = piece.records[-1].timestamp if piece.records else 0
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            piece.last,
            newest_ms / 1000.0,
            0,
            (),
            None,
            piece,
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    # --- committing

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterable[TP]:
        held = self.assignment() if self._thread.cursors else ()  # none before the thread has started, either
        return [tp for tp in held if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        """None before `tp` is placed: another worker may have answered more since we held it."""
        offset: int | None = None if tp in self._unplaced else self.app.edge.committable(Part(*tp))
        return offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - stock's signature
        if not await self._commit(offsets):
            return False
        self._committed_offset.update(offsets)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Not used: gaps between records are no business of our own progress."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Not used: `pipeline/watchdog.py` tells a stall from a pause with a cause."""


class Transport(stock.Transport):  # type: ignore[misc]
    """The driver behind `headrace://host:port`."""

    Consumer = Consumer


class Untouched(faust.Schema):  # type: ignore[misc]
    """Hands the slice through: decoding is the agent's, so that poison becomes a dead letter with a reason."""

    def compile(self, app: Any, **_: Any) -> Any:
        """A decode function in Faust's form."""

        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return app.create_event(None, message.value, headers={}, message=message)

        return decode


def topic(app: faust.App, name: str) -> faust.TopicT:
    """An input, in slices. Without Faust's acks: it keeps each in a list and a set until it commits by them, here for ever
    (11 MB an hour at 40 slices/s).
    """
    return app.topic(name, schema=Untouched(), acks=False)


def register() -> None:
    """Make `headrace://` known to Faust, and how much a fetch and a compressed batch may bring."""
    codecs.register()
    fetched.register()
    TRANSPORTS.aliases[SCHEME] = "pipeline.kafka.driver:Transport"
