"""The consumer's thread: reads records and stamps them as slices, seeks, commits; waits for a broker that is away.

The half of the driver (`driver.py`) that talks to the broker, on an event loop of its own.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import aiokafka
from aiokafka import OffsetAndMetadata
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from features.store.port import Part
from pipeline.kafka.fetched import damage, forget_damage
from pipeline.kafka.leaders import NOBODY, begins, by_leader, paced
from pipeline.kafka.silence import LOOK_S as LISTEN_S
from pipeline.kafka.silence import Silence
from pipeline.kafka.slices import Cursor, Slice
from pipeline.kafka.topics import FORBIDDEN
from pipeline.logs import get_logger

log = get_logger(__name__)

ROUND_SLICES = 4  # of one partition, before the others get their turn
BACKOFF_S = 0.5
BACKOFF_S_MAX = 5.0
LOOK_S = 0.2  # how often a wait for the broker looks whether the worker is to stop
SILENCE_S = 2.0  # a connection that takes longer is said to be waited for
ANSWER_S = 10.0
DENIED_S = 5.0  # a topic that was denied is tried again all the time: so long without a word, and it is allowed
GOODBYE_S = 3.0
APPLIED_S = 10.0
METADATA_A_SECOND = 5
IDENTITY = re.compile("[0-9a-f]{16}")  # of a log, as the metadata of a commit
END = "\0"  # confluent-kafka 2.16 reads a commit's metadata up to a zero, beyond its end: UnicodeDecodeError (seen)


class SliceThread(stock.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Runs beside the app's loop; Faust calls it from there."""

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
            if self._consumer is not None:
                self._look_at_metadata(self._consumer._client.cluster, self._consumer.assignment())

    def _look_at_metadata(self, cluster: ClusterMetadata, held: Iterable[aiokafka.TopicPartition]) -> None:
        """What of ours is led by nobody, or denied: neither is fetched any more, so no fetch tells.

        What the metadata lack for another cause is not told of: a topic that is gone has its own word, a new one comes.
        """
        self.app.edge.leaders_away(sorted(Part(*tp) for tp in held if cluster.leader_for_partition(tp) == NOBODY))
        if denied := cluster.unauthorized_topics & {tp.topic for tp in held}:
            self._deny(TopicAuthorizationFailedError(*sorted(denied)))

    def _deny(self, error: TopicAuthorizationFailedError) -> None:
        self.app.edge.broker_away(f"broker: {error}: {FORBIDDEN}")
        self._denied_s = time.monotonic()

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
        consumer._client._metadata_update = paced(consumer._client._metadata_update, a_second=METADATA_A_SECOND)
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
        except TopicAuthorizationFailedError as error:
            self._deny(error)
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
            self._refuse_damage(tp, cursor)
            if tp in active_partitions:
                fresh = records.get(tp, ())
                slices[tp] = cursor.cut(fresh, now_s=now_s) if fresh or cursor.held else cursor.skip(self._passed(tp))
        return {tp: cut for tp, cut in slices.items() if cut}

    def _passed(self, tp: TP) -> int:
        """The last offset that the client has read beyond; what it did not hand out of it is no record: a transaction's
        marker or what it took back. Left alone it would count as waiting, and as lost where retention takes it.
        """
        state = self._state(tp)
        return state.position - 1 if state is not None and state.has_valid_position else -1

    async def _a_round(self, consumer: Any, active: set[TP], timeout: float | None) -> dict[TP, list[Any]]:
        """Of every partition that has some at most ROUND_SLICES slices' worth: a long one neither fills the memory with
        records nor keeps the others waiting until it is empty.
        """
        most = ROUND_SLICES * self.app.edge_options.slice_max
        records: dict[TP, list[Any]] = await super()._fetch_records(consumer, active, timeout, most)
        for tp in [tp for tp in consumer._fetcher._records if tp in active and tp not in records]:
            # what is taken already must go out; the next fetch, or `_hear_group`, says it again
            with suppress(KafkaError):
                records.update(await super()._fetch_records(consumer, {tp}, 0, most))
        return records

    def _refuse_damage(self, tp: TP, cursor: Cursor) -> None:
        """Not before all that was handed out is answered, and applied where it was answered in an earlier life: what is
        damaged may have to be deleted with all before it.
        """
        found = damage(self._state(tp))
        if found is None or cursor.held or time.monotonic() - found.since_s < APPLIED_S:
            return
        answered = self.app.edge.committable(Part(*tp))
        if answered is not None and answered > cursor.last:
            self.app.edge.refuse_batch(found.why)

    def _refuse(self, error: OffsetOutOfRangeError) -> None:
        for tp, offset in error.args[0].items():
            self.app.edge.refuse_log(Part(*tp), f"offset {offset} is no longer, or not yet, in the log")

    async def standing(self, tps: Iterable[TP]) -> dict[TP, tuple[int | None, int]]:
        """For each partition whose leader answers the committed offset (None: never) and the log's first offset."""
        consumer, tps = self._ensure_consumer(), list(tps)
        led = by_leader(consumer._client.cluster, tps)
        known = [tp for together in led.values() for tp in together]
        if len(known) < len(tps):
            consumer._client.force_metadata_update()
        starts, commits = await asyncio.gather(
            begins(consumer, led.values(), answer_s=ANSWER_S),
            asyncio.wait_for(consumer._coordinator.fetch_committed_offsets(known), ANSWER_S),
        )
        return {
            tp: (self._own(tp, commits.get(stock.ensure_aiokafka_TP(tp))), starts[tp]) for tp in known if tp in starts
        }

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
        forget_damage(self._state(tp))
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
