"""What one fetch brought, taken out of aiokafka within bounds: three of its names are replaced by what is here.

- A run of records ends at 16 MiB: stock counts records only, and 2 000 of them, compressed, may be gigabytes unfolded.
- A batch that its producer wrote so that nobody can read it comes out as one record, for the dead letters. One that was
  damaged since (its checksum says so) is named with its partition and offset, for its head tells nothing for sure.
- A record whose header names are not UTF-8 is read without its headers: stock raises, and nobody reads them here.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

from pipeline.kafka.slices import Unreadable

TAKEN_BYTES_MAX = 16 << 20  # as much as a fetch holds of one partition where nothing is compressed
DAMAGE = "headrace_damage"
LENGTH, LENGTH_AT, MAGIC_AT, HEAD_BYTES = struct.Struct(">i"), 8, 16, 61  # in a batch
WITH_HEADERS = 2  # the batch format


class Damage(NamedTuple):
    """Which batch was damaged, in words, and since when that is known, on the monotonic clock."""

    why: str
    since_s: float


def register() -> None:
    """Has aiokafka use what is here; raises `RuntimeError` where it no longer has what is replaced."""
    theirs: Any = fetcher
    for owner, name in ((theirs, "MemoryRecords"), (theirs, "PartitionRecords"), (theirs.FetchResult, "getall")):
        if not hasattr(owner, name):
            raise RuntimeError(f"aiokafka no longer has {owner.__name__}.{name}: fetches would be taken unbounded")
    theirs.MemoryRecords = Fetched
    theirs.PartitionRecords = Readable
    theirs.FetchResult.getall = taken


def taken(result: Any, max_records: int | None = None) -> list[Any]:
    """The next records of a partition's fetch, in place of `FetchResult.getall`; at least one where there is one.

    Where the next batch was damaged there is none, and `damage` of the partition's state says so until a seek.
    """
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return []
    source, records, held = result._partition_records, [], 0
    state = result._assignment.state_value(result._topic_partition)
    if damage(state):
        return []
    try:
        for record in source:
            records.append(record)
            held += len(record.key or b"") + len(record.value or b"")
            if len(records) == max_records or held >= TAKEN_BYTES_MAX:
                break
        else:
            result._partition_records = None
    except MemoryError:
        raise  # the batch may be as good as any
    except Exception as error:
        result._partition_records = None  # what is behind is fetched anew
        found = source.verdict(error)
        if isinstance(found, str):
            setattr(state, DAMAGE, Damage(found, time.monotonic()))
        elif found is not None:
            records.append(found)
    state.consumed_to(source.next_fetch_offset)
    return records


def damage(state: Any) -> Damage | None:
    """Why nothing can be read at the position of a partition (aiokafka's state of it)."""
    return getattr(state, DAMAGE, None)


def forget_damage(state: Any) -> None:
    """The position is another one now."""
    setattr(state, DAMAGE, None)


class Fetched:
    """The batches of one partition, as aiokafka reads them; `piece` is the bytes of the one that was handed out last."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._start, self._end = raw, 0, 0
        self._records = MemoryRecords(raw)
        self.has_next, self.size_in_bytes = self._records.has_next, self._records.size_in_bytes

    def next_batch(self) -> Any:
        """The next one, None behind the last."""
        if self._records.has_next():
            (size,) = LENGTH.unpack_from(self._raw, self._end + LENGTH_AT)
            self._start, self._end = self._end, self._end + LENGTH_AT + LENGTH.size + size
        return self._records.next_batch()

    @property
    def piece(self) -> bytes:
        """See the class."""
        return self._raw[self._start : self._end]

    def headerless(self) -> _Headerless:
        """The same again from the batch that was handed out last, without headers."""
        return _Headerless(self._raw[self._start :])


class Readable(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition; from a foreign header on they are read without headers."""

    _records: Any
    next_fetch_offset: int

    def verdict(self, error: Exception) -> Unreadable | str | None:
        """What becomes of the batch that `error` was met in: one record, and on behind it; the words that stop the worker,
        where it is not what its producer wrote; None where all its records came out before.
        """
        piece, first = self._records.piece, self.next_fetch_offset
        said = f"{type(error).__name__}: {error}"
        batch = _PlainBatch(piece) if len(piece) >= HEAD_BYTES and piece[MAGIC_AT] >= WITH_HEADERS else None
        if batch is None or not batch.validate_crc():
            return f"{self._tp.topic}-{self._tp.partition}, offset {first}: {said}"
        if batch.next_offset <= first:
            return None
        self.next_fetch_offset = batch.next_offset
        why = f"offsets {first} to {batch.next_offset - 1} cannot be read: {said}"
        return Unreadable(batch.next_offset - 1, batch.max_timestamp, None, piece, (("why", why.encode()),))

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except (UnicodeDecodeError, CorruptRecordException):
            # Without its C modules aiokafka calls the first the second.
            if isinstance(self._records, _Headerless):
                raise
            self._records = self._records.headerless()
            yield from super()._unpack_records()


class _Headerless(_MemoryRecordsPy):  # type: ignore[misc]
    piece = b""

    def next_batch(self) -> Any:
        if (piece := self._next_slice) is not None:
            self.piece = bytes(piece)
        if len(self.piece) < HEAD_BYTES or self.piece[MAGIC_AT] < WITH_HEADERS:
            return super().next_batch()
        self._cache_next()
        return None if piece is None else _PlainBatch(self.piece)


class _PlainBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _pos: int

    def _read_msg(self, decode_varint: Any = decode_varint) -> _DefaultRecordPy:
        """A record: length, attributes, time and offset less the batch's first, key, value, and headers to skip."""
        size, start = decode_varint(self._buffer, self._pos)
        _, at = decode_varint(self._buffer, start)
        after_ms, at = decode_varint(self._buffer, at)
        after, at = decode_varint(self._buffer, at)
        key, at = self._bytes(at)
        value, at = self._bytes(at)
        if not at < start + size <= len(self._buffer):
            raise CorruptRecordException(f"a record of {size} bytes ends elsewhere")
        self._pos = start + size
        is_appended = self.timestamp_type == self.LOG_APPEND_TIME
        ts_ms = self.max_timestamp if is_appended else self.first_timestamp + after_ms
        return _DefaultRecordPy(self.base_offset + after, ts_ms, self.timestamp_type, key, value, [])

    def _bytes(self, at: int) -> tuple[bytes | None, int]:
        size, at = decode_varint(self._buffer, at)
        return (None, at) if size < 0 else (bytes(self._buffer[at : at + size]), at + size)
