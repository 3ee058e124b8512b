"""The slice driver leans on private names of faust-streaming 0.15.3; here each of them is called by name.

When one of these fails after an upgrade: read what became of the name in the new release, then move the pin.
"""

import asyncio
import inspect
from importlib.metadata import version

import aiokafka
import faust
import pytest
from faust import streams
from faust.transport import consumer as base
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as stock

from features.store.port import Part
from pipeline.kafka import driver
from pipeline.kafka.slices import LogRecord, Slice


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


async def test_what_the_edge_has_answered_is_what_gets_committed(consumer):
    part0, part1 = faust.types.TP("t", 0), faust.types.TP("t", 1)
    assert consumer._filter_committable_offsets([part0, part1]) == {part0: 7}


async def test_a_partition_that_waits_to_be_placed_is_not_committed_somebody_else_may_have_answered_more(consumer):
    part = faust.types.TP("t", 0)
    consumer.replace(part)
    assert consumer._filter_committable_offsets([part]) == {}


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


@pytest.mark.parametrize("compiled", [True, False])
async def test_what_was_handed_out_leaves_nothing_behind_in_the_consumer(consumer, monkeypatch, compiled):
    if compiled and streams._CStreamIterator is None:
        pytest.skip("this faust-streaming is not compiled")
    if not compiled:
        monkeypatch.setattr(streams, "_CStreamIterator", None)
    app, part = consumer.app, faust.types.TP("t", 0)
    stream = app.stream(driver.topic(app, "t"))
    app.topics.add(stream.channel)
    await app.topics._update_indices()
    app.flow_control.resume()
    decode = driver.Untouched().compile(app)
    slices = [Slice(Part(*part), at - 1, 1, [LogRecord(at, 0, None, b"")], at) for at in range(3)]
    for each in slices:
        await stream.channel.put(await decode(consumer._message(part, each, app.consumer_generation_id)))
    handed_out = []
    async for each in stream:
        handed_out.append(each)
        if len(handed_out) == len(slices):
            break
    assert handed_out == slices
    assert [dict(consumer._acked), dict(consumer._acked_index), set(consumer.unacked)] == [{}, {}, set()]


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


async def test_a_broker_that_does_not_answer_keeps_nobody_waiting_who_is_read(consumer, monkeypatch):
    part, answer, placed = faust.types.TP("t", 0), asyncio.get_running_loop().create_future(), []

    async def call_thread(method, tps):
        return await answer

    async def place(tp, seek_no, committed, log_start):
        placed.append((tp, seek_no, committed, log_start))

    monkeypatch.setattr(consumer, "assignment", lambda: {part})
    monkeypatch.setattr(consumer._thread, "call_thread", call_thread)
    monkeypatch.setattr(consumer, "_place", place)
    consumer.replace(part)
    await consumer._place_waiting()  # returns, though the answer is not there
    assert placed == []
    answer.set_result({part: (7, 3)})
    await consumer._place_waiting()
    assert placed == [(part, consumer.seek_no(Part(*part)), 7, 3)]


async def test_a_part_that_is_not_held_has_no_seek_number(consumer):
    assert consumer.seek_no(faust.types.TP("t", 5)) == -1


async def test_a_partition_without_a_leader_waits_and_the_others_are_placed(consumer, monkeypatch):
    led, alone = faust.types.TP("t", 0), faust.types.TP("t", 1)
    leaders, placed, asked = {led}, [], []

    async def call_thread(method, tps):
        asked.append(set(tps))
        return {tp: (None, 0) for tp in tps if tp in leaders}

    async def place(tp, seek_no, committed, log_start):
        placed.append(tp)
        consumer._unplaced.discard(tp)

    monkeypatch.setattr(consumer, "assignment", lambda: {led, alone})
    monkeypatch.setattr(consumer._thread, "call_thread", call_thread)
    monkeypatch.setattr(consumer, "_place", place)
    consumer.replace(led)
    consumer.replace(alone)
    await consumer._place_waiting()
    await consumer._place_waiting()  # too early to ask again
    assert (placed, asked) == ([led], [{led, alone}])
    leaders.add(alone)
    consumer._ask_at_s = 0.0
    await consumer._place_waiting()
    assert (placed, asked[1:]) == ([led, alone], [{alone}])
