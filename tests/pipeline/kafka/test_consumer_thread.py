"""The consumer's thread: rounds that leave every partition its turn, commits that name their log, a group that is lost."""

import asyncio
import inspect
import math
from contextlib import nullcontext
from types import SimpleNamespace

import aiokafka
import faust
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as stock

from features.store.port import Part
from pipeline.kafka import consumer_thread
from pipeline.kafka.fetched import Damage
from pipeline.kafka.leaders import NOBODY
from pipeline.kafka.slices import Cursor, LogRecord


async def test_a_worker_without_the_right_to_its_group_ends_though_no_fetch_waited_when_it_was_refused(
    consumer, monkeypatch
):
    told, refused, ends = [GroupAuthorizationFailedError("g"), KafkaConnectionError()], [], iter([False] * 3 + [True])

    def check_errors():
        if told:
            raise told.pop()

    monkeypatch.setattr(consumer_thread, "LISTEN_S", 0.0)
    monkeypatch.setattr(consumer_thread.SliceThread, "_is_ending", property(lambda _: next(ends)))
    monkeypatch.setattr(consumer.app.edge, "refuse_group", refused.append, raising=False)
    monkeypatch.setattr(consumer.app.edge, "leaders_away", lambda parts: None, raising=False)
    consumer._thread._consumer = SimpleNamespace(
        _coordinator=SimpleNamespace(check_errors=check_errors),
        assignment=set,
        _client=SimpleNamespace(cluster=ClusterMetadata()),
    )
    await consumer._thread._listen()
    assert told == []
    assert refused == [f"broker: {GroupAuthorizationFailedError('g')}: {consumer_thread.FORBIDDEN}"]


def test_the_kafka_client_still_keeps_an_error_of_the_group_until_it_is_asked():
    source = inspect.getsource(GroupCoordinator)
    assert "self._pending_exception = exc" in source
    assert "self._error_consumed_fut" in inspect.getsource(GroupCoordinator.check_errors)
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)


async def test_a_broker_that_does_not_answer_the_goodbye_is_not_waited_for(consumer, monkeypatch):
    hung_up = asyncio.Event()

    class Client:
        async def close(self):
            hung_up.set()

    class Silent:
        _client = Client()

        async def stop(self):
            await hung_up.wait()

    thread = consumer._thread
    monkeypatch.setattr(consumer_thread, "GOODBYE_S", 0.05)
    monkeypatch.setattr(consumer_thread.SliceThread, "_ensure_consumer", lambda _: Silent())
    thread._consumer = Silent()
    await asyncio.wait_for(thread.on_thread_stop(), 30)
    assert hung_up.is_set()


class Fetcher:
    """aiokafka's fetcher as far as a round asks it: what was prefetched of each partition; an error instead of records."""

    def __init__(self, **records):
        self._records = {faust.types.TP(topic, 0): held for topic, held in records.items()}
        self._closed = False
        self._subscriptions = SimpleNamespace(fetch_context=nullcontext)

    async def fetched_records(self, partitions, timeout, max_records):
        taken = {}
        for tp in [tp for tp in self._records if tp in partitions]:
            if isinstance(self._records[tp], Exception):
                if taken:
                    return taken
                raise self._records.pop(tp)
            taken[tp] = self._records[tp][:max_records]
            del self._records[tp][:max_records]
            if not self._records[tp]:
                del self._records[tp]
            max_records -= len(taken[tp])
            if not max_records:
                break
        return taken


async def test_a_long_partition_leaves_the_others_their_turn(consumer, monkeypatch):
    monkeypatch.setattr(type(consumer), "flow_active", True, raising=False)
    fetcher = Fetcher(long=list(range(5_000)), short=[1, 2], refused=OffsetOutOfRangeError({}))
    parts = set(fetcher._records)
    client = SimpleNamespace(_fetcher=fetcher, _closed=False)
    sizes = []
    while fetcher._records:
        taken = await consumer._thread._a_round(client, parts, 0)
        sizes.append({tp.topic: len(records) for tp, records in taken.items()})
    assert sizes == [{"long": 2_000, "short": 2}, {"long": 2_000}, {"long": 1_000}]


class Coordinated:
    """A client whose group has committed, and which takes commits down."""

    def __init__(self, metadata):
        self._coordinator, self._metadata, self.commits = self, metadata, []
        self._client, self.cluster, self.leaders, self.looked = self, self, {}, 0

    def leader_for_partition(self, tp):
        return self.leaders.get(tp, 1)

    def force_metadata_update(self):
        self.looked += 1

    async def beginning_offsets(self, tps):
        return dict.fromkeys(tps, 0)

    async def fetch_committed_offsets(self, tps):
        return {stock.ensure_aiokafka_TP(tp): aiokafka.OffsetAndMetadata(5, self._metadata) for tp in tps}

    async def commit(self, offsets):
        self.commits.append(offsets)


@pytest.mark.parametrize(
    ("metadata", "committed"),
    [
        ("00112233445566aa", 5),
        ("ffeeddccbbaa9988", None),
        ("ffeeddccbbaa9988\0", None),
        ("", 5),
        (None, 5),
        ("by hand", 5),
    ],
)
async def test_a_commit_for_another_log_of_the_same_name_is_none(consumer, monkeypatch, metadata, committed):
    client, tp = Coordinated(metadata), faust.types.TP("t", 0)
    monkeypatch.setattr(consumer_thread.SliceThread, "_ensure_consumer", lambda _: client)
    assert await consumer._thread.standing([tp]) == {tp: (committed, 0)}


async def test_a_commit_says_which_log_it_is_of(consumer, monkeypatch):
    client, tp = Coordinated(""), faust.types.TP("t", 0)
    monkeypatch.setattr(consumer_thread.SliceThread, "_ensure_consumer", lambda _: client)
    monkeypatch.setattr(consumer_thread.SliceThread, "assignment", lambda _: {tp})
    assert await consumer._thread._commit({tp: 9})
    assert client.commits == [{stock.ensure_aiokafka_TP(tp): (9, "00112233445566aa\0")}]


@pytest.mark.parametrize("leader", [None, NOBODY])
async def test_a_partition_without_a_leader_is_left_out_and_looked_for(consumer, monkeypatch, leader):
    client, led, alone = Coordinated(""), faust.types.TP("t", 0), faust.types.TP("t", 1)
    client.leaders[alone] = leader
    monkeypatch.setattr(consumer_thread.SliceThread, "_ensure_consumer", lambda _: client)
    assert await consumer._thread.standing([led, alone]) == {led: (5, 0)}
    assert client.looked == 1


@pytest.mark.parametrize("silence", ["for ever", "refuses"])
async def test_partitions_are_placed_though_the_broker_of_others_does_not_answer(consumer, monkeypatch, silence):
    class Half(Coordinated):
        async def beginning_offsets(self, tps):
            if self.leader_for_partition(tps[0]) == 2:
                if silence == "refuses":
                    raise KafkaConnectionError
                await asyncio.Event().wait()
            return await super().beginning_offsets(tps)

    client, parts = Half(""), [faust.types.TP("t", n) for n in range(3)]
    client.leaders[parts[1]] = 2
    monkeypatch.setattr(consumer_thread, "ANSWER_S", 0.05)
    monkeypatch.setattr(consumer_thread.SliceThread, "_ensure_consumer", lambda _: client)
    assert await consumer._thread.standing(parts) == {parts[0]: (5, 0), parts[2]: (5, 0)}


def metadata(*, leaders=(), denied=()):
    """A cluster's, of topic t."""
    cluster = ClusterMetadata()
    cluster._partitions = {"t": {n: SimpleNamespace(leader=leader) for n, leader in enumerate(leaders)}}
    cluster.unauthorized_topics = set(denied)
    return cluster


HELD = [aiokafka.TopicPartition("t", n) for n in range(3)]


async def test_a_partition_that_loses_its_leader_while_it_is_read_is_told_of(consumer, monkeypatch):
    told = []
    monkeypatch.setattr(consumer.app.edge, "leaders_away", told.append, raising=False)
    for leaders in (
        [1, 1, 1],
        [1, NOBODY, 1],
        [1, 2],
        [],
    ):  # the last are not, or not yet, in the metadata
        consumer._thread._look_at_metadata(metadata(leaders=leaders), HELD)
    assert told == [[], [Part("t", 1)], [], []]


async def test_a_topic_that_is_denied_is_told_of_though_nothing_is_fetched_any_more(consumer, monkeypatch):
    told = []
    monkeypatch.setattr(consumer.app.edge, "leaders_away", lambda parts: None, raising=False)
    monkeypatch.setattr(consumer.app.edge, "broker_away", told.append, raising=False)
    consumer._thread._look_at_metadata(metadata(leaders=[1, 1, 1], denied=["another"]), HELD)
    assert told == []
    consumer._thread._look_at_metadata(metadata(denied=["t"]), HELD)
    assert told == [f"broker: {TopicAuthorizationFailedError('t')}: {consumer_thread.FORBIDDEN}"]
    assert consumer._thread._denied_s < math.inf


async def test_damage_is_refused_once_all_before_it_is_answered(consumer, monkeypatch):
    tp, refused = faust.types.TP("t", 0), []
    state = SimpleNamespace(headrace_damage=Damage("t-0, offset 8: damaged", 0.0))
    monkeypatch.setattr(consumer_thread, "APPLIED_S", -math.inf)
    monkeypatch.setattr(consumer.app.edge, "refuse_batch", refused.append, raising=False)
    monkeypatch.setattr(consumer._thread, "_state", lambda _: state)
    cursor = Cursor(Part(*tp), seek_no=1, last=7, slice_max=500)  # the edge has answered up to 7
    consumer._thread._refuse_damage(tp, cursor)
    assert refused == []
    cursor.last = 6
    cursor.held.append(LogRecord(6, 0, None, b""))
    consumer._thread._refuse_damage(tp, cursor)
    assert refused == []
    cursor.held.clear()
    consumer._thread._refuse_damage(tp, cursor)
    assert refused == ["t-0, offset 8: damaged"]
    monkeypatch.setattr(consumer_thread, "APPLIED_S", math.inf)
    consumer._thread._refuse_damage(tp, cursor)
    assert len(refused) == 1
