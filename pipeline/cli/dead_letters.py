"""`headrace dead-letters list|replay`: what was refused, and sending it again after a fix."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import click
from confluent_kafka import Message

from features.schema import DEAD_LETTERS
from pipeline.cli import with_settings
from pipeline.cli.escaping import escaped, printed
from pipeline.config import Settings
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.reading import Reader
from pipeline.reading import BATCH
from pipeline.refused_record import RefusedRecord, refused_record

VALUE_CHARS_SHOWN = 200


@click.group("dead-letters")
def command() -> None:
    """Look at what was refused, send it again after a fix."""


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which dead letters are meant."""
    for option in (
        click.option("--reason", help="Only those whose field or reason contains this."),
        click.option("--topic", help="Only those that came from this topic."),
        click.option("--from", "first", type=click.IntRange(min=0), default=0, help="From this dead letter's offset."),
        click.option("--to", "last", type=click.IntRange(min=0), help="Up to this dead letter's offset."),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many."),
        click.option("--json", "as_json", is_flag=True, help="JSON: an object a line (list), one object (replay)."),
    ):
        function = option(function)
    return function


@command.command("list")
@_selection
@with_settings
def show(*, settings: Settings, as_json: bool, **chosen: Any) -> None:
    """Show dead letters with field and reason, and how many of each."""
    reasons: Counter[str] = Counter()
    with Reader(settings.kafka) as reader:
        for letter in _chosen(reader, settings, **chosen):
            reasons[reason(letter)] += 1
            click.echo(printed(_described(letter)) if as_json else line(letter))
    if not as_json:
        click.echo(f"{sum(reasons.values())} dead letters")
        for why, count in reasons.most_common(20):
            click.echo(f"  {count:>7}  {why}")


@command.command("replay")
@_selection
@with_settings
def send_again(*, settings: Settings, as_json: bool, **chosen: Any) -> None:
    """Send dead letters to the topics they came from, byte for byte.

    Safe to repeat: one event_id counts once. A record whose value was cut is read again from its own topic; one that
    the broker holds no more is counted as lost, and so is a batch that nobody can read. Exit 1 when not all were delivered.
    """
    found = lost = 0
    with Reader(settings.kafka) as reader, Reader(settings.kafka) as sources, Delivery(settings.kafka) as delivery:
        for letter in _chosen(reader, settings, ends=_ends(reader, settings), **chosen):
            found += 1
            if letter.field == BATCH:
                lost += 1
                continue
            value = _whole(sources, letter) if letter.cut else letter.value
            if letter.cut and value is None:
                lost += 1
                continue
            delivery.send(letter.topic, letter.topic, key=letter.key, value=value)
    report = {"chosen": found, "delivered": delivery.delivered, "failed": delivery.failed, "lost": lost}
    if as_json:
        click.echo(printed(report))
    else:
        click.echo(
            f"{delivery.delivered} of {found} sent again, {delivery.failed} failed, {lost} no longer held, or batches that nobody can read"
        )
    if delivery.failed or lost:
        sys.exit(1)


def _chosen(
    reader: Reader,
    settings: Settings,
    *,
    reason: str | None,
    topic: str | None,
    first: int,
    last: int | None,
    limit: int | None,
    ends: Mapping[int, int] | None = None,
) -> Iterator[RefusedRecord]:
    """The dead letters that are meant, as they are read; `ends` leaves out what came in after those offsets."""
    found = 0
    for message in reader.existing(settings.kafka.topic_prefix + DEAD_LETTERS):
        if ends is not None and (message.offset() or 0) > ends.get(message.partition() or 0, -1):
            continue
        letter = refused_record(message)
        beyond = letter.offset < first or (last is not None and letter.offset > last)
        other = (reason and reason not in f"{letter.field}: {letter.reason}") or (topic and topic != letter.topic)
        if beyond or other:
            continue
        yield letter
        found += 1
        if found == limit:
            return


def _ends(reader: Reader, settings: Settings) -> dict[int, int]:
    """The last dead letter of each partition now: what is refused again while we send must not be sent again.

    Read through, for one broker's answer to "where is your end" is behind by a batch.
    """
    topic = settings.kafka.topic_prefix + DEAD_LETTERS
    return {message.partition() or 0: message.offset() or 0 for message in reader.existing(topic)}


def _whole(reader: Reader, letter: RefusedRecord) -> bytes | None:
    """The uncut value from the source offset, None where the broker holds it no more or it is another record."""
    held = reader.ranges(letter.topic).get(letter.source_partition)
    if held is None or letter.source_offset < held.start:
        return None
    message: Message | None = next(reader.to_end(letter.topic, {letter.source_partition: letter.source_offset}), None)
    value = message.value() if message and message.offset() == letter.source_offset else None
    return value if value is not None and sha256(value).hexdigest() == letter.sha256 else None


def _described(letter: RefusedRecord) -> dict[str, Any]:
    return {
        "offset": letter.offset,
        "reason": letter.reason,
        "field": letter.field,
        "topic": letter.topic,
        "partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "key": letter.key.decode("utf-8", "replace") if letter.key is not None else None,
        "value": letter.value.decode("utf-8", "replace") if letter.value is not None else None,
        "sha256": letter.sha256 or None,
    }


def reason(letter: RefusedRecord) -> str:
    """What is counted: where it came from, the field and what is wrong with it."""
    return escaped(f"{letter.topic} {letter.field}: {letter.reason}")


def line(letter: RefusedRecord) -> str:
    """One dead letter on one line; control characters are shown as escapes, never sent to the terminal."""
    value = "null" if letter.value is None else repr(letter.value[:VALUE_CHARS_SHOWN])[2:-1]
    source = f"{letter.topic}-{letter.source_partition}-{letter.source_offset}"
    return escaped(f"{letter.offset}  {source}  {letter.field}: {letter.reason}  {value}")
