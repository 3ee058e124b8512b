"""A fetch is taken in runs of bounded size; what cannot be read is named, after all that stands before it."""

from types import SimpleNamespace

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka import codecs, fetched
from pipeline.kafka.fetched import Fetched, Readable, RecordsDamaged

PART = TopicPartition("user_actions", 3)
ZSTD = 4


class Foreign(str):
    """A header's name in whatever bytes, as producers in C may write it."""

    def encode(self, *_):
        return b"\xff\xfe"


FOREIGN = Foreign("foreign")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for owner, name in ((fetcher, "MemoryRecords"), (fetcher, "PartitionRecords"), (fetcher.FetchResult, "getall")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    codecs.register()
    fetched.register()


def batch(first, values, *, header=None, codec=0, transactional=False):
    """A batch of records at offsets `first` on, the last with a header."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, transactional, 7 if transactional else -1, 0, 0, 1 << 24)
    for at, value in enumerate(values):
        headers = [(header, b"h")] if header and at == len(values) - 1 else []
        builder.append(at, 1_000 + at, b"k", value, headers)
    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    return bytes(raw)


def result(raw, *, at=0, isolation=READ_UNCOMMITTED, aborted=None):
    """A fetch's result at `at`, as aiokafka makes it."""
    records = fetcher.PartitionRecords(PART, fetcher.MemoryRecords(raw), aborted, at, None, None, False, isolation)
    state = SimpleNamespace(has_valid_position=True, position=at, paused=False, resume_fut=None)
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


def test_what_stands_before_a_damaged_batch_comes_out_and_then_it_is_named():
    raw = batch(0, [b"a", b"b"]) + spoilt(batch(2, [b"c" * 99] * 3, codec=ZSTD))
    taken, state = result(raw)
    assert [record.value for record in taken.getall(1_000)] == [b"a", b"b"]
    assert state.position == 2
    assert not taken.has_more()
    with pytest.raises(RecordsDamaged, match=r"user_actions-3, offsets 2 to 4: BatchDamaged: zstd"):
        result(raw, at=2)[0].getall(1_000)


def spoilt(raw):
    return raw[:-9] + bytes(9)


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


def test_a_record_that_ends_elsewhere_is_damage_also_without_headers():
    raw = bytearray(batch(0, [b"abc"], header=FOREIGN))
    raw[61] += 2  # the record's length
    with pytest.raises(RecordsDamaged, match=r"user_actions-3, offsets 0 to 0: CorruptRecord"):
        result(bytes(raw))[0].getall(1)
