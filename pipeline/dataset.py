"""A data set folder: the topics as files, `items`, `impressions` and `user_actions` as `.jsonl.gz` or `.jsonl`.

Each file is one JSON object a line, sorted by `ts_ms`. They are read as one stream in time order; at equal `ts_ms`
items go first, then impressions, then actions. A row that stands out of order keeps its place within its file.
Everything streams: memory does not grow with the folder.
"""

from __future__ import annotations

import gzip
import heapq
import io
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple, cast

import msgspec

from features.schema import IMPRESSIONS, ITEMS, USER_ACTIONS, InputRecord, Refused, UserAction, decode

MERGE_ORDER = (ITEMS, IMPRESSIONS, USER_ACTIONS)
LINE_BYTES_MAX = 16 * 1024 * 1024
BLANK_LINES_MAX = 100_000  # 10 MB of gzip hold ten thousand million
SUFFIXES = (".jsonl.gz", ".jsonl")
_BUFFER_BYTES = 1 << 20
_UNZIPPED_BYTES = 1 << 16
UNREADABLE = (EOFError, OSError, zlib.error)  # a file that breaks off, is no gzip, is damaged


class DataSetError(ValueError):
    """A folder or a line that is not what a data set holds; the message names file:line."""


class Row(NamedTuple):
    """One line of a data set. `raw` has no line end."""

    topic: str
    raw: bytes
    ts_ms: int


class _Stamp(msgspec.Struct):
    ts_ms: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]  # what the contract wants is the reader's business


_STAMP = msgspec.json.Decoder(_Stamp)


def files(directory: Path) -> dict[str, Path]:
    """The folder's files by topic, in merge order. Raises `DataSetError` where there is none, or a topic has two."""
    if not directory.is_dir():
        raise DataSetError(f"{directory}: no such folder")
    found = {}
    for topic in MERGE_ORDER:
        paths = [path for suffix in SUFFIXES if (path := directory / f"{topic}{suffix}").is_file()]
        if len(paths) > 1:
            raise DataSetError(f"{directory}: {paths[0].name} and {paths[1].name}: which one?")
        if paths:
            found[topic] = paths[0]
    if not found:
        raise DataSetError(f"{directory}: none of {', '.join(f'{topic}.jsonl.gz' for topic in MERGE_ORDER)} is here")
    return found


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The non-empty lines of a plain or gzip file with their numbers from 1, without line ends.

    Raises `DataSetError` naming file:line for a line over 16 MiB, and the last good line of a file that breaks off.
    """
    with opened(path) as stream:
        yield from numbered(stream, str(path))


def numbered(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """`lines` of an open stream that messages call `name`."""
    number = blank = 0
    while True:
        number += 1
        try:
            line = stream.readline(LINE_BYTES_MAX + 2)
        except UNREADABLE as error:
            raise DataSetError(f"{name}: after line {number - 1}: {error}") from None
        if not line:
            return
        line = line.rstrip(b"\r\n")
        if len(line) > LINE_BYTES_MAX:
            raise DataSetError(f"{name}:{number}: a line of more than {LINE_BYTES_MAX} bytes")
        if line:
            blank = 0
            yield number, line
        elif (blank := blank + 1) > BLANK_LINES_MAX:
            raise DataSetError(f"{name}:{number}: more than {BLANK_LINES_MAX} blank lines in a row")


def read(directory: Path) -> Iterator[Row]:
    """Every line of the folder in merge order, undecoded but for `ts_ms`.

    Raises `DataSetError` naming file:line for a line that is no JSON object with an integer `ts_ms`.
    """
    return (row for row, _ in _merged(directory, _strict))


def read_as_is(directory: Path) -> Iterator[Row]:
    """`read` for those who pass broken lines on: a line without a readable `ts_ms` takes that of the line before."""
    return (row for row, _ in _merged(directory, _lenient))


def records(directory: Path, *, refused: Callable[[str, Refused], None] | None = None) -> Iterator[InputRecord]:
    """The folder's records, decoded and checked, in merge order.

    `refused` is called with file:line for each line that breaks the contract; without it the first such line raises
    `DataSetError`.
    """
    for row, where in _merged(directory, _lenient if refused else _strict):
        try:
            yield decode(row.topic, row.raw)
        except Refused as error:
            if refused is None:
                raise DataSetError(f"{where}: {error}") from None
            refused(where, error)


def entries(
    directory: Path, *, actions: Collection[str], refused: Callable[[str, Refused], None]
) -> Iterator[tuple[str, InputRecord | None]]:
    """(topic, record) for a replay; (topic, None), after `refused`, for what the worker would call a dead letter."""
    for row, where in _merged(directory, _lenient):
        try:
            record = decode(row.topic, row.raw)
            _check_action(record, actions)
        except Refused as error:
            refused(where, error)
            yield row.topic, None
        else:
            yield row.topic, record


def _check_action(record: InputRecord, actions: Collection[str]) -> None:
    if isinstance(record, UserAction) and record.action not in actions:
        raise Refused("action", f"unknown action {record.action!r}")


class Writer:
    """Writes a folder in the order it is given; a context manager. Files appear with their first row."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if any(_present(directory)):
            raise DataSetError(f"{directory}: already holds a data set")
        self._directory = directory
        self._streams: dict[str, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def add(self, topic: str, raw: bytes) -> None:
        """Appends one record; its bytes must hold no line end."""
        stream = self._streams.get(topic)
        if stream is None:
            if topic not in MERGE_ORDER:
                raise DataSetError(f"{topic}: no topic of a data set folder")
            path = self._directory / f"{topic}{SUFFIXES[0]}"
            stream = cast("BinaryIO", self._stack.enter_context(gzip.GzipFile(path, "wb", compresslevel=4)))
            self._streams[topic] = stream
        stream.write(raw + b"\n")


def write(directory: Path, rows: Iterable[tuple[str, bytes]]) -> dict[str, int]:
    """Writes (topic, record) pairs as a folder; returns the rows per topic."""
    counts: dict[str, int] = {}
    with Writer(directory) as writer:
        for topic, raw in rows:
            writer.add(topic, raw)
            counts[topic] = counts.get(topic, 0) + 1
    return counts


_Stamper = Callable[[bytes, int, str], int]


def _strict(raw: bytes, _: int, where: str) -> int:
    try:
        return _STAMP.decode(raw).ts_ms
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataSetError(f"{where}: {error}") from None


def _lenient(raw: bytes, before: int, _: str) -> int:
    try:
        return _STAMP.decode(raw).ts_ms
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return before


def _merged(directory: Path, stamp: _Stamper) -> Iterator[tuple[Row, str]]:
    streams = [_stamped(topic, path, stamp) for topic, path in files(directory).items()]
    # heapq.merge takes equal keys from the earlier stream first: items, impressions, actions.
    return ((row, where) for _, row, where in heapq.merge(*streams, key=lambda entry: entry[0]))


def _stamped(topic: str, path: Path, stamp: _Stamper) -> Iterator[tuple[int, Row, str]]:
    """A file's rows under their merge key: the running maximum of ts_ms, so that no row overtakes its file."""
    key = before = 0
    for number, raw in lines(path):
        where = f"{path}:{number}"
        before = stamp(raw, before, where)
        key = max(key, before)
        yield key, Row(topic, raw, before), where


def _present(directory: Path) -> Iterator[Path]:
    return (path for topic in MERGE_ORDER for suffix in SUFFIXES if (path := directory / f"{topic}{suffix}").exists())


class _Unzipped(io.RawIOBase):
    """A gzip file in small pieces: what stands before the damage is given out first."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.GzipFile(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read1(min(len(buffer), _UNZIPPED_BYTES))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(path: Path) -> BinaryIO:
    """A plain or gzip file for reading. Raises `DataSetError` where it cannot be opened, or is no file."""
    if path.exists() and not path.is_file():  # a pipe would be read twice or waited for, a device never ends
        raise DataSetError(f"{path}: not a file; `-` reads what is piped in")
    try:
        if path.suffix == ".gz":
            return io.BufferedReader(_Unzipped(path), _BUFFER_BYTES)
        return path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as error:
        raise DataSetError(f"{path}: {error.strerror}") from None
