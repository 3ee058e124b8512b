"""The slice transport: a Faust driver that hands an agent slices instead of single messages, under our start rule.

Registered as `headrace://`. It stays a Faust agent (groups, rebalance, timers, web); what differs from the aiokafka
driver it subclasses:

- `getmany` yields one message for each (partition, <= slice_max records) slice.
- No seek to the committed offset: where to start comes from the state (`Edge.start`), looked up by the fetch loop, so
  it may wait for the store as long as that takes; Recovery's own `perform_seek` has a time limit and only marks.
- What gets committed is what the edge says is answered, not Faust's acks: an agent that raised, gaps in the offsets
  and skipped events cannot move it. A commit that fails is tried again; it never takes the worker down.

It leans on private names of faust-streaming 0.15.3: `tests/pipeline/kafka/test_driver.py` names each of them.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import aiokafka
import faust
from aiokafka import OffsetAndMetadata
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage

from features.store.port import Part
from pipeline.kafka import codecs
from pipeline.kafka.codecs import BatchDamaged
from pipeline.kafka.silence import LOOK_S as LISTEN_S
from pipeline.kafka.silence import Silence
from pipeline.kafka.slices import Cursor, Slice
from pipeline.kafka.topics import FORBIDDEN
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from features.state import Resume

log = get_logger(__name__)

SCHEME = "headrace"
ROUND_SLICES = 4  # of one partition, before the others get their turn
IDLE_FETCH_S = 0.2  # a fetch call ends at the latest then, so that partitions whose queue has drained are asked again
BUSY_FETCH_S = 0.02
NOTHING_ACTIVE_S = 0.005  # stock sleeps 1 s here: at 8 queued slices that would be most of the time
BACKOFF_S = 0.5
BACKOFF_S_MAX = 5.0
LOOK_S = 0.2  # how often a wait for the broker looks whether the worker is to stop
SILENCE_S = 2.0  # a connection that takes longer is said to be waited for
ANSWER_S = 10.0
CUT_S = 10.0  # followers of a healthy broker fetch every half second
DENIED_S = 5.0  # a topic that was denied is tried again all the time: so long without a word, and it is allowed
GOODBYE_S = 3.0
IDENTITY = re.compile("[0-9a-f]{16}")  # of a log, as the metadata of a commit
END = "\0"  # confluent-kafka 2.16 reads a commit's metadata up to a zero, beyond its end: UnicodeDecodeError (seen)


class Options(NamedTuple):
    """What the driver takes from the settings, beyond Faust's own."""

    fetch_wait_ms: int
    fetch_max_bytes: int
    slice_max: int


class Edge(Protocol):
    """What the driver asks of the pipeline."""

    async def ready(self) -> None:
        """Returns when the worker may subscribe: topics there, their identity known to the state."""
        ...

    async def start(self, part: Part, *, committed: int | None, log_start: int) -> Resume:
        """Where reading starts; waits while the store is away."""
        ...

    def committable(self, part: Part) -> int | None:
        """The next offset that is not yet answered, None while unknown. Never moves back."""
        ...

    def identity(self, part: Part) -> str:
        """Which log it is: 16 hex that change when the topic is created anew."""
        ...

    def broker_away(self, cause: str | None) -> None:
        """Why the broker cannot be reached; None: it can. Called on the consumer's thread."""
        ...

    def refuse_batch(self, cause: str) -> None:
        """What the broker holds cannot be unfolded: stops the worker loudly."""
        ...

    def refuse_log(self, part: Part, cause: str) -> None:
        """The log contradicts the state: stops the worker loudly."""
        ...

    def refuse_group(self, cause: str) -> None:
        """The worker may no longer be a member of its group: stops it loudly."""
        ...


class SliceThread(stock.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The consumer's thread: stamps what it reads, seeks, commits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cursors: dict[TP, Cursor] = {}
        self._denied_s = math.inf  # when the broker last denied a topic
        self._silence: Silence | None = None

    async def on_start(self) -> None:
        """Connects, and waits for a broker that is away: stock would take the worker down. Ends when the worker does."""
        delay_s = BACKOFF_S
        self.add_future(self._listen())
        while not self._is_ending:
            connecting = asyncio.ensure_future(super().on_start())
            if not await self._wait(connecting, SILENCE_S):
                self.app.edge.broker_away(f"broker: {self.app.conf.broker[0].host} does not answer")
                await self._wait(connecting)
            if not connecting.done():
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                return
            try:
                connecting.result()
            except (KafkaError, OSError) as error:
                self.app.edge.broker_away(f"broker: {error}")
                await self._consumer.stop()
                await self._wait(asyncio.ensure_future(asyncio.sleep(delay_s)))
                delay_s = min(delay_s * 2, BACKOFF_S_MAX)
            else:
                self.app.edge.broker_away(None)
                return

    async def _listen(self) -> None:
        """Has half-open connections closed (nobody else notices them for a minute and a half), and hears the group."""
        while not self._is_ending:
            await asyncio.sleep(LISTEN_S)
            if self._silence is not None:
                self._silence.look(time.monotonic())
            self._hear_group()

    def _hear_group(self) -> None:
        """The client's part in the group rests after an error until somebody asks for it; only fetches that wait at that
        moment are told. Its own getmany asks, Faust's way around it does not.
        """
        coordinator = getattr(self._consumer, "_coordinator", None)  # there is none before the client has started
        try:
            if coordinator is not None:
                coordinator.check_errors()
        except GroupAuthorizationFailedError as error:
            self.app.edge.refuse_group(f"broker: {error}: {FORBIDDEN}")
        except KafkaError as error:
            log.warning("the group refused something, asking again", cause=repr(error))

    async def on_thread_stop(self) -> None:
        """Leaves the group; a broker that does not answer is not waited for: it misses us when the session ends."""
        leaving = asyncio.ensure_future(super().on_thread_stop())
        if not (await asyncio.wait({leaving}, timeout=GOODBYE_S))[0]:
            log.warning("the broker does not answer our goodbye", waited_s=GOODBYE_S)
            await self._ensure_consumer()._client.close()
            await asyncio.wait({leaving}, timeout=GOODBYE_S)

    @property
    def _is_ending(self) -> bool:
        return bool(self.should_stop or self.app.should_stop)

    async def _wait(self, task: asyncio.Future[Any], seconds: float = math.inf) -> bool:
        """Waits until `task` is done, so long, or until the worker ends; whether it is done."""
        until_s = time.monotonic() + seconds
        while not task.done() and not self._is_ending and time.monotonic() < until_s:
            await asyncio.wait({task}, timeout=LOOK_S)
        return task.done()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        """As stock, with the settings that stock hard-codes."""
        consumer = super()._create_worker_consumer(transport)
        options = self.app.edge_options
        consumer._fetch_max_wait_ms = options.fetch_wait_ms
        consumer._fetch_max_bytes = max(options.fetch_max_bytes, consumer._fetch_max_bytes)
        consumer._max_partition_fetch_bytes = options.fetch_max_bytes
        consumer._isolation_level = "read_committed"
        consumer._auto_offset_reset = "none"
        join_s = self.app.conf.broker_rebalance_timeout + ANSWER_S
        fetch_s = options.fetch_wait_ms / 1000 + ANSWER_S
        self._silence = Silence(consumer._client, answer_s=fetch_s, join_s=join_s)
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,  # noqa: ARG002 - stock's signature
    ) -> dict[TP, list[Slice]]:
        """Slices instead of records, stamped in the same step as they leave the client: no loss goes unseen."""
        try:
            records = await self._a_round(consumer, active_partitions, timeout)
        except NoOffsetForPartitionError:
            return {}  # assigned but not placed yet
        except OffsetOutOfRangeError as error:
            self._refuse(error)
            return {}
        except BatchDamaged as error:
            self.app.edge.refuse_batch(
                f"a batch of one of {', '.join(sorted({tp.topic for tp in active_partitions}))}: {error}"
            )
            return {}
        except TopicAuthorizationFailedError as error:
            self.app.edge.broker_away(f"broker: {error}: {FORBIDDEN}")
            self._denied_s = time.monotonic()
            await asyncio.sleep(BACKOFF_S)
            return {}
        except GroupAuthorizationFailedError:
            return {}  # `_hear_group` says so
        now_s = time.monotonic()
        if now_s - self._denied_s > DENIED_S:
            self._denied_s = math.inf
            self.app.edge.broker_away(None)
        slices = {}
        for tp, cursor in self.cursors.items():
            fresh = records.get(tp, ())
            if (fresh or cursor.held) and tp in active_partitions:
                slices[tp] = cursor.cut(fresh, now_s=now_s)
        return {tp: cut for tp, cut in slices.items() if cut}

    async def _a_round(self, consumer: Any, active: set[TP], timeout: float | None) -> dict[TP, list[Any]]:
        """Of every partition that has some at most ROUND_SLICES slices' worth: a long one neither fills the memory with
        records nor keeps the others waiting until it is empty.
        """
        most = ROUND_SLICES * self.app.edge_options.slice_max
        records: dict[TP, list[Any]] = await super()._fetch_records(consumer, active, timeout, most)
        for tp in [tp for tp in consumer._fetcher._records if tp in active and tp not in records]:
            with suppress(
                KafkaError
            ):  # what is taken already must go out; the next fetch, or `_hear_group`, says it again
                records.update(await super()._fetch_records(consumer, {tp}, 0, most))
        return records

    def _refuse(self, error: OffsetOutOfRangeError) -> None:
        for tp, offset in error.args[0].items():
            self.app.edge.refuse_log(Part(*tp), f"offset {offset} is no longer, or not yet, in the log")

    async def standing(self, tps: Iterable[TP]) -> dict[TP, tuple[int | None, int]]:
        """For each partition the committed offset (None: never) and the log's first offset."""
        consumer, tps = self._ensure_consumer(), list(tps)
        begins, commits = await asyncio.wait_for(
            asyncio.gather(consumer.beginning_offsets(tps), consumer._coordinator.fetch_committed_offsets(tps)),
            ANSWER_S,
        )
        return {tp: (self._own(tp, commits.get(stock.ensure_aiokafka_TP(tp))), begins[tp]) for tp in tps}

    def _own(self, tp: TP, commit: OffsetAndMetadata | None) -> int | None:
        """The offset, unless it was committed for another log of this name: a group keeps it beyond a deletion, and
        a worker that has not seen that yet commits once more. What lies below was never answered.
        """
        if commit is None or commit.offset < 0:
            return None
        of_log = (commit.metadata or "").rstrip(END)
        if IDENTITY.fullmatch(of_log) and of_log != self.app.edge.identity(Part(*tp)):
            log.warning("the commit is of another log", topic=tp.topic, partition=tp.partition, offset=commit.offset)
            return None
        return int(commit.offset)

    async def place(self, tp: TP, cursor: Cursor) -> None:
        """Seek to right after `cursor.last`; what was buffered of the partition is gone."""
        self._ensure_consumer().seek(tp, cursor.last + 1)
        self.forget_end(tp)
        self.cursors[tp] = cursor

    async def forget(self, tps: Iterable[TP]) -> None:
        """Nothing more is stamped for these until they are placed again."""
        for tp in tps:
            self.cursors.pop(tp, None)

    def log_end(self, tp: TP) -> int | None:
        """The end of the log as the newest fetch reported it (right even where ListOffsets is stale)."""
        state = self._state(tp)
        end = state.highwater if state is not None else None
        return None if end is None or end < 0 else int(end)

    def forget_end(self, tp: TP) -> None:
        """Nobody knows the end until the next fetch: others may have applied more than the last one saw."""
        if (state := self._state(tp)) is not None:
            state.highwater = None

    def _state(self, tp: TP) -> Any:
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(tp) if assignment is not None else None  # asked by another thread: it may go

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commits; a failure is logged and tried again by the next interval, never a crash."""
        held = self.assignment()
        due = {
            stock.ensure_aiokafka_TP(tp): (offset, self.app.edge.identity(Part(*tp)) + END)
            for tp, offset in offsets.items()
            if tp in held
        }
        try:
            await asyncio.wait_for(self._ensure_consumer().commit(due), ANSWER_S)
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("commit failed, will be tried again", cause=repr(error))
            return False
        return True


class Consumer(stock.Consumer):  # type: ignore[misc]
    """See the module."""

    def _new_consumer_thread(self) -> SliceThread:
        self._unplaced: set[TP] = set()
        self._seek_nos: dict[TP, int] = {}
        self._seeks = 0
        self._hold_to: dict[TP, int] = {}
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
        waiting = {tp: self._seek_nos[tp] for tp in self._unplaced & self.assignment()}
        if not waiting:
            return
        try:
            standing = await self._thread.call_thread(self._thread.standing, tuple(waiting))
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("the broker does not say where the log stands, asking again", cause=repr(error))
            await asyncio.sleep(BACKOFF_S)
            return
        for tp, seek_no in waiting.items():
            await self._place(tp, seek_no, *standing[tp])

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
        newest = piece.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            newest.offset,
            newest.timestamp / 1000.0,
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

    def ack(self, message: ConsumerMessage) -> bool:
        """Faust's acks count for nothing here; kept from piling up."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterable[TP]:
        held = self.assignment() if self._thread.cursors else ()  # none before the thread has started, either
        return [tp for tp in held if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        offset: int | None = self.app.edge.committable(Part(*tp))
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


def register() -> None:
    """Make `headrace://` known to Faust, and what compressed batches may unfold to."""
    codecs.register()
    TRANSPORTS.aliases[SCHEME] = "pipeline.kafka.driver:Transport"
