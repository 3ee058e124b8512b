"""A fetch is taken in runs of bounded size; what cannot be read is one record, after all that stands before it."""

import struct
from types import SimpleNamespace

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka import codecs, fetched
from pipeline.kafka.fetched import Fetched, Readable
from tests.raw_batches import FOREIGN, ZSTD, batch

PART = TopicPartition("user_actions", 3)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for owner, name in ((fetcher, "MemoryRecords"), (fetcher, "PartitionRecords"), (fetcher.FetchResult, "getall")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    codecs.register()
    fetched.register()


def result(raw, *, at=0, isolation=READ_UNCOMMITTED, aborted=None, state=None):
    """A fetch's result at `at`, as aiokafka makes it."""
    records = fetcher.PartitionRecords(PART, fetcher.MemoryRecords(raw), aborted, at, None, None, False, isolation)
    state = state or SimpleNamespace(has_valid_position=True, position=at, paused=False, resume_fut=None)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    return fetcher.FetchResult(PART, assignment=assignment, partition_records=records, backoff=0), state


def read(raw, **how):
    """Offsets and values in runs until nothing is left."""
    taken, runs = result(raw, **how)[0], []
    while taken.has_more():
        runs.append([(record.offset, record.value) for record in taken.getall(1_000)])
    return runs


def test_the_client_still_makes_its_results_of_what_is_replaced():
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (Fetched, Readable)
    assert isinstance(result(batch(0, [b"a"]))[0]._partition_records, Readable)


def test_a_run_ends_at_its_bytes_and_goes_on_where_it_ended(monkeypatch):
    monkeypatch.setattr(fetched, "TAKEN_BYTES_MAX", 250)
    raw = batch(5, [b"x" * 100] * 4, codec=ZSTD) + batch(9, [b"y" * 900, b"z"])
    assert [[offset for offset, _ in run] for run in read(raw, at=5)] == [[5, 6, 7], [8, 9], [10]]


def test_a_run_ends_at_its_number_of_records():
    taken, state = result(batch(0, [b"v"] * 5))
    assert [record.offset for record in taken.getall(2)] == [0, 1]
    assert state.position == 2
    assert taken.has_more()
    assert [record.offset for record in taken.getall(9)] == [2, 3, 4]
    assert not taken.has_more()


def spoilt(raw):
    """What unfolds to nothing."""
    return raw[:-9] + bytes(9)


def signed(raw):
    """With the checksum that a producer would have given it."""
    return raw[:17] + struct.pack(">I", calc_crc32c(raw[21:])) + raw[21:]


def test_a_batch_that_was_written_so_that_nobody_can_read_it_is_one_record_behind_all_before_it():
    folded = signed(spoilt(batch(2, [b"c" * 99] * 3, codec=ZSTD)))
    taken, state = result(batch(0, [b"a", b"b"]) + folded)
    assert [record.value for record in taken.getall(1_000)] == [b"a", b"b", folded]
    assert (state.position, taken.has_more()) == (5, False)
    taken, state = result(folded + batch(5, [b"d"]), at=2)
    [unreadable] = taken.getall(1_000)
    assert (unreadable.offset, unreadable.timestamp, unreadable.value) == (4, 1_002, folded)
    assert unreadable.why.startswith("offsets 2 to 4 cannot be read: BatchDamaged: zstd")
    assert (state.position, taken.has_more()) == (5, False)


def test_a_batch_that_was_damaged_since_is_named_and_not_passed_until_a_seek():
    raw = batch(0, [b"a", b"b"]) + spoilt(batch(2, [b"c" * 99] * 3, codec=ZSTD)) + batch(5, [b"d"])
    taken, state = result(raw)
    assert [record.value for record in taken.getall(1_000)] == [b"a", b"b"]
    assert fetched.damage(state).why.startswith("user_actions-3, offset 2: BatchDamaged: zstd")
    assert (state.position, taken.has_more()) == (2, False)
    again, _ = result(raw, at=2, state=state)
    assert again.getall(1_000) == again.getall(1_000) == []
    assert (state.position, again.has_more()) == (2, True)
    fetched.forget_damage(state)
    assert fetched.damage(state) is None


def test_what_lies_behind_the_last_record_of_a_batch_costs_the_next_batch_nothing():
    odd = batch(0, [b"a", b"b"]) + b"more"
    odd = signed(odd[:8] + struct.pack(">i", len(odd) - 12) + odd[12:])
    taken, state = result(odd + batch(2, [b"c"]))
    assert [record.value for record in taken.getall(2)] == [b"a", b"b"]
    assert taken.getall(2) == []
    assert (state.position, taken.has_more(), fetched.damage(state)) == (2, False, None)


def test_a_record_with_foreign_header_names_is_read_without_headers():
    foreign = batch(2, [b"c", b"d"], header=FOREIGN, codec=ZSTD) + batch(4, [b"e"])
    assert read(batch(0, [b"a", b"b"], header="utf-8") + foreign) == [
        [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d"), (4, b"e")]
    ]
    assert read(foreign, at=3) == [[(3, b"d"), (4, b"e")]]


def test_what_was_taken_back_stays_so_behind_a_foreign_header():
    gone = batch(3, [b"gone"], transactional=True)
    raw = batch(0, [b"a", b"kept", b"b"], header=FOREIGN, transactional=True) + gone
    assert read(raw, isolation=READ_COMMITTED, aborted=[(7, 3)]) == [[(0, b"a"), (1, b"kept"), (2, b"b")]]


@given(
    st.lists(
        st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=5
    ),
    st.data(),
)
def test_whatever_the_headers_the_records_are_those_that_were_written(batches, data):
    codecs.register(), fetched.register()
    raw, offset, expected = b"", 0, []
    for values in batches:
        texts = [value for value, _ in values]
        raw += batch(offset, texts, header=FOREIGN if values[-1][1] else "plain")
        expected += list(enumerate(texts, offset))
        offset += len(values)
    start = data.draw(st.integers(0, len(batches[0]) - 1))  # a broker begins with the batch that holds it
    assert [record for run in read(raw, at=start) for record in run] == expected[start:]


def test_a_record_that_ends_elsewhere_is_unreadable_also_without_headers():
    raw = bytearray(batch(0, [b"abc"], header=FOREIGN))
    raw[61] += 2  # the record's length
    [unreadable] = result(signed(bytes(raw)))[0].getall(1)
    assert unreadable.why.startswith("offsets 0 to 0 cannot be read: CorruptRecord")
