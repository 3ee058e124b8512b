"""What `headrace publish` sends: the rows of a path, each with its topic, key and time, and the pace they go out at."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from features.ids import hash64
from features.schema import INPUT_TOPICS, USER_ACTIONS
from pipeline.config import ConfigError
from pipeline.dataset import files, lines, numbered, opened, read_as_is
from pipeline.mapping import Mapped, MappingError, csv_rows, json_rows, key_and_time, parse

STDIN = Path("-")
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Row(NamedTuple):
    """One row on its way: the file it comes from, its topic, key and event time (None where unreadable)."""

    label: str
    topic: str
    key: bytes | None
    raw: bytes
    ts_ms: int | None


def topic_of(path: Path) -> str | None:
    """The topic a file is named after.

    >>> topic_of(Path("items.jsonl.gz")), topic_of(Path("clicks.csv"))
    ('items', None)
    """
    stem = path.name.partition(".")[0]
    return stem if stem in INPUT_TOPICS else None


def topics_of(path: Path, topic: str | None) -> list[str]:
    """The topics that `path` (a folder, a file, stdin) goes into; `topic` is the one asked for by name."""
    if path.is_dir():
        return list(files(path))
    return [topic or topic_of(path) or USER_ACTIONS]


def rows(path: Path, *, topic: str | None, entries: tuple[str, ...]) -> Iterator[Row]:
    """The rows of `path`, lines as they are but for the mapping `entries`.

    Raises `ConfigError` for a path that cannot be read or a mapping that does not fit it.
    """
    try:
        yield from _folder(path, entries) if path.is_dir() else _file(path, topics_of(path, topic)[0], entries)
    except MappingError as error:
        raise ConfigError(str(error)) from None


def _folder(path: Path, entries: tuple[str, ...]) -> Iterator[Row]:
    if entries:
        raise MappingError("--map is for single files: a data set folder has the fields' own names")
    readers = {topic: key_and_time(topic) for topic in INPUT_TOPICS}
    names = {topic: file.name for topic, file in files(path).items()}
    for topic, raw, ts_ms in read_as_is(path):
        yield Row(names[topic], topic, readers[topic](raw)[0], raw, ts_ms)


def _file(path: Path, topic: str, entries: tuple[str, ...]) -> Iterator[Row]:
    mapping = parse(entries, topic=topic)
    label = "stdin" if path == STDIN else path.name
    read = key_and_time(topic)
    for raw in _records(path, topic, mapping, label):
        key, ts_ms = read(raw)
        yield Row(label, topic, key, raw, ts_ms)


def _records(path: Path, topic: str, mapping: tuple[Mapped, ...], label: str) -> Iterator[bytes]:
    suffix = next((suffix for suffix in path.suffixes if suffix in DELIMITERS), None)
    if suffix:
        with _text(path) as text:
            delimiter = DELIMITERS[suffix]
            yield from csv_rows(text, mapping, topic=topic, name=str(path), ids=_ids(path), delimiter=delimiter)
        return
    found = numbered(sys.stdin.buffer, label) if path == STDIN else lines(path)
    yield from json_rows(found, mapping) if mapping else (raw for _, raw in found)


def _ids(path: Path) -> str:
    """What the ids of a CSV's rows begin with: the same on a rerun, another for a file of that name elsewhere."""
    return f"{path.name}-{hash64(str(path.resolve())):016x}"


def _text(path: Path) -> TextIO:
    return io.TextIOWrapper(opened(path), encoding="utf-8-sig", errors="replace", newline="")


class Pace:
    """When the next row is due: by rows a second, by event time times a factor, or at once."""

    def __init__(self, *, rate: float | None, speedup: float | None) -> None:
        self._rate, self._speedup = rate, speedup
        self._begun_s = time.monotonic()
        self._rows = 0
        self._first_ms: int | None = None

    def wait_s(self, ts_ms: int | None) -> float:
        """Seconds until a row of event time `ts_ms` is due, 0 when it is late; counts the row."""
        due_s = 0.0
        if self._rate:
            due_s = self._rows / self._rate
        if self._speedup and ts_ms:  # 0 is an item of unknown time: at once
            if self._first_ms is None:
                self._first_ms = ts_ms
            due_s = max(due_s, (ts_ms - self._first_ms) / 1000 / self._speedup)
        self._rows += 1
        return max(0.0, self._begun_s + due_s - time.monotonic())
