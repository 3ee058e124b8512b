"""From a trigger to a question, and from a ranking to the records that go out."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from features.scene import UserHistory
from features.schema import ModelRef, Recommendation, RecommendationRequest, RecommendedItem, Trigger
from pipeline.kafka.publisher import Outgoing
from pipeline.reading import Ask
from recommender.query import Query, question
from recommender.recommend import NO_VERSION, Ranked
from recommender.served import is_backlog, pack

IDENTITY_HEX = 4

_ENCODER = msgspec.json.Encoder()


class Stamp(NamedTuple):
    """The clocks of one micro-batch: when it was read, and how long an answer took since."""

    read_ms: int
    now_ms: int
    latency_ms: float


def rec_id(ask: Ask, identity: str) -> str:
    """topic-partition-offset and the first 4 hex of the log's identity: the same after a crash, never anothers.

    >>> from features.store.port import Part
    >>> rec_id(Ask(Part("user_actions", 3), 17, 0, None), "0a1b2c3d4e5f6071")
    'user_actions-3-17-0a1b'
    """
    return f"{ask.part.topic}-{ask.part.partition}-{ask.offset}-{identity[:IDENTITY_HEX]}"


def query(ask: Ask, *, identity: str, user: UserHistory, k: int) -> Query:
    """The question of a trigger; its answer goes out under `rec_id`."""
    return question(ask.record, query_id=rec_id(ask, identity), user=user, k=k)


def recommendation(ask: Ask, ranked: Ranked, *, topic: str, stamp: Stamp) -> Outgoing:
    """The answer as it goes out, keyed by the user."""
    return Outgoing(topic, ask.record.user_id.encode(), encoded(ask, ranked, stamp=stamp))


def encoded(ask: Ask, ranked: Ranked, *, stamp: Stamp) -> bytes:
    """The answer as JSON."""
    answer = Recommendation(
        rec_id=ranked.query_id,
        user_id=ask.record.user_id,
        ts_ms=stamp.now_ms,
        items=_items(ranked),
        model=ModelRef(ranked.model_version, ranked.features_hash),
        level=ranked.level,
        cause=ranked.cause,
        event_age_ms=age_ms(ask, stamp),
        latency_ms=round(stamp.latency_ms, 3),
        trigger=Trigger(ask.part.topic, ask.part.partition, ask.offset, ask.record.ts_ms),
        request_id=ask.record.request_id if isinstance(ask.record, RecommendationRequest) else None,
    )
    return _ENCODER.encode(answer)


def _items(ranked: Ranked) -> list[RecommendedItem]:
    explained = ranked.explained or [None] * len(ranked.item_ids)
    return [
        RecommendedItem(item_id, score, source, why.reasons if why else None, why.rest if why else None)
        for item_id, score, source, why in zip(
            ranked.item_ids, ranked.scores.tolist(), ranked.sources, explained, strict=True
        )
    ]


def served(ask: Ask, ranked: Ranked, *, topic: str, stamp: Stamp) -> Outgoing | None:
    """The rows behind the answer; None where nothing was shown, or nothing scored."""
    if not len(ranked.matrix):
        return None
    record = ask.record
    rows = pack(
        ranked,
        user_id=record.user_id,
        ts_ms=record.ts_ms,
        event_age_ms=age_ms(ask, stamp),
        backlog=not ranked.is_whole or is_backlog(read_ms=stamp.read_ms, log_ts_ms=ask.log_ts_ms, ts_ms=record.ts_ms),
    )
    return Outgoing(topic, record.user_id.encode(), rows)


def without_answer(ask: Ask, *, identity: str, cause: str, features_hash: str) -> Ranked:
    """An empty answer that says why: better than silence, which a consumer cannot tell from a loss."""
    return Ranked(
        query_id=rec_id(ask, identity),
        item_ids=[],
        scores=np.empty(0),
        sources=[],
        level="popular",
        cause=cause,
        model_version=NO_VERSION,
        features_hash=features_hash,
        matrix=np.empty((0, 0), np.float32),
    )


def age_ms(ask: Ask, stamp: Stamp) -> int:
    """Wall time between the log's timestamp of the trigger and its reading."""
    return max(0, stamp.read_ms - ask.log_ts_ms)
