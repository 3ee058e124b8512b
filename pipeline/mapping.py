"""Rows of other people's files as wire records: `--map field=column` for CSV and JSON lines.

A mapping names where each field of the record comes from: `user_id=visitorid`, `attributes.price=amount`, or a
constant: `action==view`. Fields that no mapping names keep their own column of the same name. A CSV cell becomes a
number for `ts_ms`, `value`, `k`, and for `attributes.*` and `context.*` where it reads as one; `item_ids` and the
values of a set are split at `|`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOBase
from typing import Any

import msgspec
import orjson

from features.schema import RECORD_OF_TOPIC
from pipeline.dataset import LINE_BYTES_MAX, UNREADABLE, DataSetError

TIME_MAX = 2**53  # as milliseconds: the year 287 396
SECONDS_BELOW = 100_000_000_000  # as milliseconds: March 1973; as seconds: the year 5138
_NUMBERS = frozenset(("value", "k"))
_TABLES = ("attributes", "context")
_EVENT_ID = {"user_actions": "event_id", "impressions": "impression_id", "recommendation_requests": "request_id"}


class MappingError(ValueError):
    """A mapping that names no field of the topic's record, or stands wrong."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where one field comes from: a column, or a constant."""

    field: str
    column: str
    constant: bool = False


def parse(entries: Iterable[str], *, topic: str) -> tuple[Mapped, ...]:
    """The mappings of `field=column` and `field==constant` texts for the records of `topic`.

    Raises `MappingError` naming the entry.

    >>> parse(["user_id=visitor", "action==view"], topic="user_actions")[1]
    Mapped(field='action', column='view', constant=True)
    """
    return tuple(_parsed(entry, topic) for entry in entries)


def _parsed(entry: str, topic: str) -> Mapped:
    field, separator, column = entry.partition("=")
    try:
        entry.encode()
    except UnicodeEncodeError:
        raise MappingError(f"--map {entry!r}: not valid UTF-8") from None
    if not separator or not column.removeprefix("="):
        raise MappingError(f"--map {entry}: write field=column, or field==constant")
    head = field.partition(".")[0]
    fields = RECORD_OF_TOPIC[topic].__struct_fields__
    if head not in fields or ("." in field) != (head in _TABLES):
        raise MappingError(f"--map {entry}: {topic} has no field {field} (it has {', '.join(fields)})")
    return Mapped(field, column.removeprefix("="), constant=column.startswith("="))


def json_rows(lines: Iterable[tuple[int, bytes]], mapping: tuple[Mapped, ...]) -> Iterator[bytes]:
    """JSON lines with their fields renamed; a line that is no JSON object passes as it is, to be refused by name."""
    for _, raw in lines:
        try:
            row = orjson.loads(raw)
        except orjson.JSONDecodeError:
            row = None
        yield raw if not isinstance(row, dict) else orjson.dumps(_renamed(row, mapping))


def _renamed(row: dict[str, Any], mapping: tuple[Mapped, ...]) -> dict[str, Any]:
    taken = {mapped.column for mapped in mapping if not mapped.constant}
    record = {name: value for name, value in row.items() if name not in taken}
    for mapped in mapping:
        if "." in mapped.field and not isinstance(record.get(mapped.field.partition(".")[0], {}), dict):
            del record[mapped.field.partition(".")[0]]  # a column of that name that is no table
        if mapped.constant or mapped.column in row:
            _put(record, mapped.field, mapped.column if mapped.constant else row[mapped.column])
    return record


def csv_rows(
    lines: Iterable[str], mapping: tuple[Mapped, ...], *, topic: str, name: str, ids: str = "", delimiter: str = ","
) -> Iterator[bytes]:
    """Records of a CSV text with a header line; messages call it `name`.

    Rows without an id of their own get `ids:line` (default: the name), stable on a rerun.
    """
    csv.field_size_limit(LINE_BYTES_MAX)
    bounded = _Lines(lines)
    reader = csv.DictReader(bounded, delimiter=delimiter)
    try:
        for row in _csv_rows(reader, mapping, topic, name, ids or name):
            yield row
            bounded.chars = 0
    except (csv.Error, *UNREADABLE) as error:
        raise DataSetError(f"{name}: after line {reader.line_num}: {error}") from None


class _Lines:
    """Lines of a text; one row may take `LINE_BYTES_MAX` characters, over however many lines its quotes reach."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = _pieces(lines) if isinstance(lines, TextIOBase) else iter(lines)
        self.chars = 0  # since the last row

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.chars += len(line)
        if self.chars > LINE_BYTES_MAX:
            raise csv.Error(f"a row of more than {LINE_BYTES_MAX} characters")
        return line


def _pieces(text: TextIOBase) -> Iterator[str]:
    """A text's lines, never more of one than `_Lines` takes."""
    while line := text.readline(LINE_BYTES_MAX + 2):
        yield line


def _csv_rows(
    reader: csv.DictReader[str], mapping: tuple[Mapped, ...], topic: str, name: str, ids: str
) -> Iterator[bytes]:
    columns = tuple(reader.fieldnames or ())
    absent = [mapped.column for mapped in mapping if not mapped.constant and mapped.column not in columns]
    if absent:
        raise MappingError(f"{name}: no column {absent[0]} (it has {', '.join(columns)})")
    mapping = (*_same_names(columns, mapping, topic), *mapping)
    own_id = _EVENT_ID.get(topic, "")
    for row in reader:
        record: dict[str, Any] = {own_id: f"{ids}:{reader.line_num}"} if own_id else {}
        for mapped in mapping:
            cell = mapped.column if mapped.constant else row[mapped.column]
            if cell:
                _put(record, mapped.field, cell_value(mapped.field, cell))
        yield orjson.dumps(record)


def _same_names(columns: tuple[str, ...], mapping: tuple[Mapped, ...], topic: str) -> Iterator[Mapped]:
    named = {mapped.field for mapped in mapping}
    for field in RECORD_OF_TOPIC[topic].__struct_fields__:
        if field in columns and field not in named and field not in _TABLES:
            yield Mapped(field, field)


def cell_value(field: str, cell: str) -> Any:
    """A CSV cell as the field's type; what does not read as one stays text, for the worker to refuse by name.

    >>> cell_value("ts_ms", "1541548955"), cell_value("ts_ms", "2018-11-07T00:02:35Z"), cell_value("item_ids", "a|b")
    (1541548955000, 1541548955000, ['a', 'b'])
    """
    if field == "ts_ms":
        return _time(cell)
    if field == "available":
        return cell.lower() in ("true", "1", "yes")
    if field == "item_ids":
        return cell.split("|")
    if field in _NUMBERS or field.partition(".")[0] in _TABLES:
        return _number(cell) if "|" not in cell else cell.split("|")
    return cell


def _number(cell: str) -> float | str:
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if number == number and abs(number) != float("inf") else cell


def _time(cell: str) -> int | str:
    """Epoch seconds, epoch milliseconds or ISO 8601 (without a zone: UTC) as epoch milliseconds."""
    number = _number(cell)
    if isinstance(number, float):
        if abs(number) > TIME_MAX:
            return cell
        return round(number * 1000) if abs(number) < SECONDS_BELOW else round(number)
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return cell
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _put(record: dict[str, Any], field: str, value: Any) -> None:
    table, _, name = field.partition(".")
    if name:
        record.setdefault(table, {})[name] = value
    else:
        record[field] = value


class _Envelope(msgspec.Struct):
    user_id: str | None = None
    item_id: str | None = None
    ts_ms: int | None = None


_DECODER = msgspec.json.Decoder(_Envelope)
KeyOf = Callable[[bytes], tuple[bytes | None, int | None]]


def key_and_time(topic: str) -> KeyOf:
    """What gives a record's Kafka key and event time; (None, None) for bytes that are no such record.

    >>> key_and_time("items")(b'{"item_id": "a", "ts_ms": 5}')
    (b'a', 5)
    """
    name = "item_id" if topic == "items" else "user_id"

    def read(raw: bytes) -> tuple[bytes | None, int | None]:
        try:
            envelope = _DECODER.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None, None
        key = getattr(envelope, name)
        return (key.encode("utf-8", "replace") if key else None), envelope.ts_ms

    return read
