"""Compressed batches: every codec that producers use, and none of them without a bound."""

import gzip
import resource
import struct

import cramjam
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from pipeline.kafka import codecs
from pipeline.kafka.codecs import BatchDamaged

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
TEXT = b'{"user_id":"u"}' * 1_000


def xerial(raw):
    blocks = [raw[start : start + 4_096] for start in range(0, len(raw), 4_096)]
    packed = [bytes(cramjam.snappy.compress_raw(block)) for block in blocks]
    head = codecs.XERIAL_HEAD + struct.pack("!ii", 1, 1)
    return head + b"".join(struct.pack("!i", len(block)) + block for block in packed)


FOLDED = {
    "gzip": (codecs.gzip_decode, gzip.compress),
    "lz4": (codecs.lz4_decode, lambda raw: bytes(cramjam.lz4.compress(raw))),
    "zstd": (codecs.zstd_decode, lambda raw: bytes(cramjam.zstd.compress(raw))),
    "snappy": (codecs.snappy_decode, lambda raw: bytes(cramjam.snappy.compress_raw(raw))),
    "snappy in blocks": (codecs.snappy_decode, xerial),
}


@pytest.mark.parametrize("codec", FOLDED)
def test_what_was_folded_unfolds(codec):
    unfold, fold = FOLDED[codec]
    assert unfold(fold(TEXT)) == TEXT
    assert unfold(memoryview(fold(b""))) == b""


@pytest.mark.parametrize("codec", FOLDED)
def test_what_unfolds_to_more_than_the_bound_is_refused(codec, monkeypatch):
    unfold, fold = FOLDED[codec]
    monkeypatch.setattr(codecs, "UNFOLDED_BYTES_MAX", len(TEXT))
    monkeypatch.setattr(codecs._unfolded, "__defaults__", (len(TEXT),))
    assert unfold(fold(TEXT)) == TEXT
    with pytest.raises(BatchDamaged, match=f"more than {len(TEXT)} bytes"):
        unfold(fold(TEXT + b"x"))


@pytest.mark.parametrize("codec", FOLDED)
def test_a_damaged_batch_is_refused(codec):
    unfold, fold = FOLDED[codec]
    raw = fold(TEXT)
    for spoilt in (raw[: len(raw) // 2], raw[:4], b"\xff" * 40, raw[:20] + b"\xff" * 20):
        with pytest.raises(BatchDamaged):
            unfold(spoilt)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_aiokafka_reads_batches_of_every_codec_through_it(codec, monkeypatch):
    codecs.register()
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 5, b"k", TEXT, [])
    raw = bytes(builder.build())
    assert len(raw) < len(TEXT)
    assert [bytes(record.value) for batch in batches(raw) for record in batch] == [TEXT]
    for name in codecs.NAMES:
        monkeypatch.setattr(codecs.__dict__["plain"], name, refuse)
        for module in compiled():
            monkeypatch.setattr(module, name, refuse)
    with pytest.raises(BatchDamaged):
        [record for batch in batches(raw) for record in batch]


def refuse(payload):
    raise BatchDamaged("asked")


def compiled():
    """The C module that unfolds where it is built; the Python one is there always."""
    try:
        from aiokafka.record._crecords import default_records
    except ImportError:
        return []
    return [default_records]


def batches(raw):
    records = MemoryRecords(bytes(raw))
    while (batch := records.next_batch()) is not None:
        yield batch


def test_a_bomb_of_gigabytes_costs_no_memory():
    bomb = bytes(cramjam.zstd.compress(bytes(64 << 20))) * 40  # frames may stand one after another
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BatchDamaged, match="more than"):
        codecs.zstd_decode(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
