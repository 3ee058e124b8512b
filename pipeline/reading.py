"""From raw records to facts for the state, questions for the recommender, and refusals for the dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from features.domain import Action
from features.facts import Fact, Forget, Gone
from features.schema import (
    ITEMS,
    TS_MS_MAX,
    USER_ACTIONS,
    Impression,
    InputRecord,
    Item,
    RecommendationRequest,
    Refused,
    UserAction,
    check_id,
    check_time,
    decode,
)
from features.store.port import Part
from pipeline.kafka.slices import LogRecord, Unreadable

BATCH = "batch"  # what is refused where nobody can read a batch of records


class Ask(NamedTuple):
    """A record that wants an answer, and where it stands in the log."""

    part: Part
    offset: int
    log_ts_ms: int
    record: UserAction | RecommendationRequest

    @property
    def is_request(self) -> bool:
        """Whether somebody asked; otherwise an action did."""
        return isinstance(self.record, RecommendationRequest)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run of records says: one fact each, and what is still to be sent: the dead letters and the answers."""

    facts: list[Fact]
    refused: list[tuple[LogRecord, Refused]]
    asks: list[Ask]
    miskeyed: int


def read(
    kind: str, part: Part, records: Sequence[LogRecord], *, actions: Mapping[str, Action], answer_from: int
) -> Reading:
    """Reads `records` of `part`, a partition of the input topic `kind` (its name in the contract).

    One answer a user for the newest of its triggering actions, one for each request; records below `answer_from`
    have their answer, or their dead letter. A record that cannot be read is a fact without content: it is counted, nothing else.
    """
    facts, refused, newest, requests = [], [], {}, []
    miskeyed = 0
    for record in records:
        try:
            content = _content(kind, record, actions)
        except Refused as error:
            if record.offset >= answer_from:
                refused.append((record, error))
            facts.append(Fact(record.offset, None))
            continue
        facts.append(Fact(record.offset, content, _ahead_ms(content, record)))
        miskeyed += _is_miskeyed(content, record.key)
        if record.offset < answer_from:
            continue
        if isinstance(content, UserAction):
            if actions[content.action].trigger:
                newest[content.user_id] = Ask(part, record.offset, record.timestamp, content)
        elif isinstance(content, RecommendationRequest):
            requests.append(Ask(part, record.offset, record.timestamp, content))
    return Reading(facts, refused, [*newest.values(), *requests], miskeyed)


def _content(kind: str, record: LogRecord, actions: Mapping[str, Action]) -> InputRecord | Forget | Gone:
    if isinstance(record, Unreadable):
        raise Refused(BATCH, record.why)
    if record.value is None:
        return _tombstone(kind, record)
    try:
        content = decode(kind, record.value)
    except Refused:
        raise
    except Exception as error:  # whatever a reader may trip over: poison never stops the stream
        raise Refused("$", f"cannot be read: {type(error).__name__}: {error}") from error
    check_time(content, log_ts_ms=record.timestamp)
    if isinstance(content, UserAction) and content.action not in actions:
        raise Refused("action", f"unknown action {content.action!r}")
    return content


def _tombstone(kind: str, record: LogRecord) -> Forget | Gone:
    """A null value: forget the key's user, or the key's item is gone; it means nothing on the other topics."""
    if kind not in (USER_ACTIONS, ITEMS):
        raise Refused("$", "null value")
    if record.key is None:
        raise Refused("key", "null value without a key")
    try:
        key = record.key.decode()
    except UnicodeDecodeError:
        raise Refused("key", "not valid UTF-8") from None
    check_id("key", key)
    if not 0 <= record.timestamp <= TS_MS_MAX:  # CreateTime takes -1 (none) and any other: no time that can be packed
        raise Refused("timestamp", f"{record.timestamp} is no time (the topic needs LogAppendTime)")
    return Forget(key, record.timestamp) if kind == USER_ACTIONS else Gone(key, record.timestamp)


def _ahead_ms(content: InputRecord | Forget | Gone, record: LogRecord) -> int:
    if isinstance(content, (UserAction, Impression)) and content.ts_ms > record.timestamp:
        return content.ts_ms - record.timestamp
    return 0


def _is_miskeyed(content: InputRecord | Forget | Gone, key: bytes | None) -> bool:
    if isinstance(content, (UserAction, Impression, RecommendationRequest)):
        return key != content.user_id.encode()
    return isinstance(content, Item) and key != content.item_id.encode()
