"""What one fetch brought, taken out of aiokafka within bounds: three of its names are replaced by what is here.

- A run of records ends at 16 MiB: stock counts records only, and 2 000 of them, compressed, may be gigabytes unfolded.
- A batch that its producer wrote so that nobody can read it comes out as one record, for the dead letters. One that was
  damaged since (its checksum says so) is named with its partition and offset, for its head tells nothing for sure.
- A record whose header names are not UTF-8 is read without its headers: stock raises, and nobody reads them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

from pipeline.kafka.slices import Unreadable

TAKEN_BYTES_MAX = 16 << 20  # as much as a fetch holds of one partition where nothing is compressed
DAMAGE = "headrace_damage"
WITH_HEADERS = 2  # the batch format


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
        if not records and (unreadable := source.unreadable(error)) is None:
            setattr(state, DAMAGE, f"{source.place}: {type(error).__name__}: {error}")
            return []
        result._partition_records = None  # what is behind is fetched anew
        records = records or [unreadable]
    state.consumed_to(source.next_fetch_offset)
    return records


def damage(state: Any) -> str | None:
    """Why nothing can be read at the position of a partition (aiokafka's state of it), and where that is."""
    return getattr(state, DAMAGE, None)


def forget_damage(state: Any) -> None:
    """The position is another one now."""
    setattr(state, DAMAGE, None)


class Fetched:
    """The batches of one partition, as aiokafka reads them, and the bytes that they are in."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._records = MemoryRecords(raw)
        self.has_next, self.next_batch = self._records.has_next, self._records.next_batch
        self.size_in_bytes = self._records.size_in_bytes


class Readable(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition; from a foreign header on they are read without headers."""

    _records: Any
    next_fetch_offset: int

    @property
    def place(self) -> str:
        """Partition and offset of what comes next."""
        return f"{self._tp.topic}-{self._tp.partition}, offset {self.next_fetch_offset}"

    def unreadable(self, error: Exception) -> Unreadable | None:
        """The batch that comes next as one record, and on behind it; None where it is not what its producer wrote."""
        try:
            batch = _Headerless(self._raw, self.next_fetch_offset).next_batch()
            if not batch.validate_crc():
                return None
        except Exception:  # not even its head can be read
            return None
        first, self.next_fetch_offset = self.next_fetch_offset, batch.next_offset
        why = f"offsets {first} to {batch.next_offset - 1} cannot be read: {type(error).__name__}: {error}"
        return Unreadable(
            batch.next_offset - 1, batch.max_timestamp, None, bytes(batch._buffer), (("why", why.encode()),)
        )

    def _unpack_records(self) -> Iterator[Any]:
        self._raw = self._records.raw
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:
            self._records = _Headerless(self._raw, self.next_fetch_offset)
            yield from super()._unpack_records()


class _Headerless(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of `raw` from the one on that holds `offset`."""

    def __init__(self, raw: bytes, offset: int) -> None:
        super().__init__(raw)
        self._offset = offset
        while (batch := self._peek()) is not None and batch.next_offset <= offset:
            self._cache_next()

    def _peek(self) -> _PlainBatch | None:
        piece = self._next_slice
        if piece is None or piece[self.MAGIC_OFFSET] < WITH_HEADERS:
            return None
        return _PlainBatch(piece)

    def next_batch(self) -> Any:
        batch = self._peek()
        if batch is None:
            return super().next_batch()
        self._cache_next()
        return batch


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
