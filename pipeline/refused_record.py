"""A dead letter read back: what was refused, why, and where it stands in the log."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import Message

DIGITS_MAX = 18


class RefusedRecord(NamedTuple):
    """One dead letter. `sha256` is set where `value` is only the head of what was refused."""

    offset: int
    reason: str
    field: str
    topic: str
    source_partition: int
    source_offset: int
    key: bytes | None
    value: bytes | None
    sha256: str

    @property
    def cut(self) -> bool:
        """Whether the value is only the head of the record's."""
        return bool(self.sha256)


def refused_record(message: Message) -> RefusedRecord:
    """The dead letter in a message of the dead letter topic; absent headers read as empty, what is no number as 0."""
    headers = {name: bytes(value or b"").decode("utf-8", "replace") for name, value in message.headers() or ()}
    return RefusedRecord(
        offset=message.offset() or 0,
        reason=headers.get("reason", ""),
        field=headers.get("field", ""),
        topic=headers.get("topic", ""),
        source_partition=_number(headers.get("partition", "")),
        source_offset=_number(headers.get("offset", "")),
        key=message.key(),
        value=message.value(),
        sha256=headers.get("sha256", ""),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0
