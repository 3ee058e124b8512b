"""`headrace tail`: the recommendations as they come."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import msgspec
import orjson

from features.schema import RECOMMENDATIONS, TS_MS_MAX, Recommendation
from pipeline.cli import with_settings
from pipeline.cli.escaping import escaped, printed
from pipeline.config import Settings
from pipeline.kafka.access import reach
from pipeline.kafka.reading import Reader

SHOWN = 5
_DECODER = msgspec.json.Decoder(Recommendation)


@click.command("tail")
@click.option("--user", help="Only this user's.")
@click.option("--from-start", is_flag=True, help="From the first one the broker holds; else from now on.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), help="End after so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Each as the JSON that stands on the topic.")
@with_settings
def command(
    *, settings: Settings, user: str | None, from_start: bool, limit: int | None, timeout_s: float | None, as_json: bool
) -> None:
    """Follow the recommendations, readable or as JSON lines."""
    topic = settings.kafka.topic_prefix + RECOMMENDATIONS
    shown = 0
    reach(settings.kafka)
    with Reader(settings.kafka) as reader:
        for message in reader.follow(topic, from_start=from_start, until_s=timeout_s):
            if message is None or (raw := message.value()) is None:
                continue
            try:
                answer = _DECODER.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                click.echo(
                    f"offset {message.offset()} of {topic} is no recommendation: {escaped(str(error))}", err=True
                )
                continue
            if user is not None and answer.user_id != user:
                continue
            click.echo(printed(orjson.loads(raw)) if as_json else line(answer))
            shown += 1
            if shown == limit:
                return


def line(answer: Recommendation) -> str:
    """One recommendation on one line: when, who, how good, how fast, the first items with their sources."""
    items = "  ".join(f"{item.item_id} {item.score:.3f} {item.source}" for item in answer.items[:SHOWN])
    more = f"  +{len(answer.items) - SHOWN}" if len(answer.items) > SHOWN else ""
    level = f"{answer.level} ({answer.cause})" if answer.cause else answer.level
    return escaped(
        f"{_clock(answer.ts_ms)}  {answer.user_id}  {level}  {answer.latency_ms:.1f} ms  {items or 'nothing'}{more}"
    )


def _clock(ts_ms: int) -> str:
    if not 0 <= ts_ms <= TS_MS_MAX:
        return str(ts_ms)
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
