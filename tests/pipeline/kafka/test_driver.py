"""The slice driver leans on private names of faust-streaming 0.15.3; here each of them is called by name.

When one of these fails after an upgrade: read what became of the name in the new release, then move the pin.
"""

import asyncio
import inspect
from contextlib import nullcontext
from importlib.metadata import version
from types import SimpleNamespace

import aiokafka
import faust
import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, OffsetOutOfRangeError
from faust.transport import consumer as base
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as stock

from pipeline.kafka import driver


def test_the_pinned_release_is_installed():
    assert version("faust-streaming") == "0.15.3"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (stock.AIOKafkaConsumerThread, "__post_init__"),
        (stock.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (stock.AIOKafkaConsumerThread, "_fetch_records"),
        (stock.AIOKafkaConsumerThread, "_ensure_consumer"),
        (stock.AIOKafkaConsumerThread, "_commit"),
        (stock.AIOKafkaConsumerThread, "call_thread"),
        (stock.Consumer, "_new_consumer_thread"),
        (base.Consumer, "perform_seek"),
        (base.Consumer, "seek_to_committed"),
        (base.Consumer, "getmany"),
        (base.Consumer, "_getmany"),
        (base.Consumer, "_get_active_partitions"),
        (base.Consumer, "_filter_tps_with_pending_acks"),
        (base.Consumer, "_new_offset"),
        (base.Consumer, "_should_commit"),
        (base.Consumer, "_commit_offsets"),
        (base.Consumer, "_add_gap"),
        (base.Consumer, "on_partitions_revoked"),
        (base.Consumer, "verify_event_path"),
        (base.Consumer, "ack"),
    ],
)
def test_faust_still_has_the_name(owner, name):
    assert callable(getattr(owner, name, None)), f"faust-streaming no longer has {owner.__name__}.{name}"


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (base.Consumer._drain_messages, ("_read_offset", "getmany", "suspend_flow")),
        (base.Consumer.perform_seek, ("seek_to_committed", "_committed_offset", "_read_offset")),
        (base.Consumer._commit_tps, ("_filter_committable_offsets", "_commit_offsets")),
        (base.Consumer._filter_committable_offsets, ("_new_offset", "_should_commit")),
        (base.Consumer.force_commit, ("_filter_tps_with_pending_acks", "_commit_tps")),
        (base.Consumer.on_buffer_full, ("_buffered_partitions",)),
        (stock.AIOKafkaConsumerThread.getmany, ("_fetch_records", "call_thread")),
    ],
)
def test_faust_still_calls_what_the_driver_overrides(method, names):
    source = inspect.getsource(method)
    for name in names:
        assert name in source, f"{method.__qualname__} no longer uses {name}"


def test_the_kafka_client_still_has_the_settings_that_the_driver_sets():
    parameters = inspect.signature(aiokafka.AIOKafkaConsumer.__init__).parameters
    source = inspect.getsource(aiokafka.AIOKafkaConsumer)
    for name in (
        "fetch_max_wait_ms",
        "fetch_max_bytes",
        "max_partition_fetch_bytes",
        "isolation_level",
        "auto_offset_reset",
    ):
        assert name in parameters
        assert f"self._{name} = {name}" in source, f"aiokafka no longer keeps {name} until start()"


def test_the_scheme_leads_to_the_driver():
    driver.register()
    assert TRANSPORTS.by_name(driver.SCHEME) is driver.Transport


class Edge:
    """An edge that has answered up to 7."""

    def committable(self, part):
        return 7 if part.partition == 0 else None

    def identity(self, part):
        return "00112233445566aa"


@pytest.fixture
async def consumer():
    driver.register()
    app = faust.App("t", broker=f"{driver.SCHEME}://127.0.0.1:1", topic_disable_leader=True)
    app.edge = Edge()
    app.edge_options = driver.Options(fetch_wait_ms=10, fetch_max_bytes=17_000_000, slice_max=500)
    yield app.consumer
    app.consumer._thread.thread_loop.close()  # made with the thread object, which is never started here


async def test_what_the_edge_has_answered_is_what_gets_committed(consumer):
    part0, part1 = faust.types.TP("t", 0), faust.types.TP("t", 1)
    assert consumer._filter_committable_offsets([part0, part1]) == {part0: 7}


async def test_a_log_that_keeps_ending_before_what_is_applied_is_refused(consumer, monkeypatch):
    part, ends, refused = faust.types.TP("t", 0), [], []
    monkeypatch.setattr(consumer._thread, "log_end", lambda tp: ends[-1] if ends else None)
    monkeypatch.setattr(consumer._thread, "forget_end", lambda tp: ends.clear())
    monkeypatch.setattr(consumer.app.edge, "refuse_log", lambda part, cause: refused.append(cause), raising=False)

    def fetch(*told):
        consumer._hold_to[part] = 100
        for end in told:
            ends[:] = end
            consumer._check_end(part)

    fetch([], [90], [90], [], [101])  # a fetch that began before the seek, or a new leader that has not caught up
    assert refused == []
    fetch([90])
    monkeypatch.setattr(driver, "CUT_S", 0.0)
    fetch([90])
    assert refused == ["the state has applied offset 100, the log ends at 90"]


async def test_a_worker_without_the_right_to_its_group_ends_though_no_fetch_waited_when_it_was_refused(
    consumer, monkeypatch
):
    told, refused, ends = [GroupAuthorizationFailedError("g"), KafkaConnectionError()], [], iter([False] * 3 + [True])

    def check_errors():
        if told:
            raise told.pop()

    monkeypatch.setattr(driver, "LISTEN_S", 0.0)
    monkeypatch.setattr(driver.SliceThread, "_is_ending", property(lambda _: next(ends)))
    monkeypatch.setattr(consumer.app.edge, "refuse_group", refused.append, raising=False)
    consumer._thread._consumer = SimpleNamespace(_coordinator=SimpleNamespace(check_errors=check_errors))
    await consumer._thread._listen()
    assert told == []
    assert refused == [f"broker: {GroupAuthorizationFailedError('g')}: {driver.FORBIDDEN}"]


def test_the_kafka_client_still_keeps_an_error_of_the_group_until_it_is_asked():
    source = inspect.getsource(GroupCoordinator)
    assert "self._pending_exception = exc" in source
    assert "self._error_consumed_fut" in inspect.getsource(GroupCoordinator.check_errors)
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)


async def test_a_commit_never_moves_back(consumer):
    part = faust.types.TP("t", 0)
    consumer._committed_offset[part] = 9
    assert consumer._filter_committable_offsets([part]) == {}


async def test_a_commit_that_failed_is_due_again(consumer, monkeypatch):
    part, outcomes = faust.types.TP("t", 0), [False, True]

    async def commit(offsets):
        return outcomes.pop(0)

    monkeypatch.setattr(consumer, "_commit", commit)
    assert not await consumer._commit_offsets({part: 7})
    assert consumer._filter_committable_offsets([part]) == {part: 7}
    assert await consumer._commit_offsets({part: 7})
    assert consumer._filter_committable_offsets([part]) == {}


async def test_a_restart_makes_slices_on_their_way_void(consumer):
    part = faust.types.TP("t", 0)
    consumer.replace(part)
    before = consumer.seek_no(part)
    consumer.replace(part)
    assert consumer.seek_no(part) > before


async def test_a_part_that_is_not_held_has_no_seek_number(consumer):
    assert consumer.seek_no(faust.types.TP("t", 5)) == -1


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
    monkeypatch.setattr(driver, "GOODBYE_S", 0.05)
    monkeypatch.setattr(driver.SliceThread, "_ensure_consumer", lambda _: Silent())
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
    monkeypatch.setattr(driver.SliceThread, "_ensure_consumer", lambda _: client)
    assert await consumer._thread.standing([tp]) == {tp: (committed, 0)}


async def test_a_commit_says_which_log_it_is_of(consumer, monkeypatch):
    client, tp = Coordinated(""), faust.types.TP("t", 0)
    monkeypatch.setattr(driver.SliceThread, "_ensure_consumer", lambda _: client)
    monkeypatch.setattr(driver.SliceThread, "assignment", lambda _: {tp})
    assert await consumer._thread._commit({tp: 9})
    assert client.commits == [{stock.ensure_aiokafka_TP(tp): (9, "00112233445566aa\0")}]
