"""What a log record means for the state: one fact an offset."""

from __future__ import annotations

from typing import NamedTuple

from features.schema import Impression, Item, RecommendationRequest, UserAction


class Forget(NamedTuple):
    """A null value on `user_actions`: the key's user is forgotten. `forgotten_ms`: the log's own timestamp."""

    user_id: str
    forgotten_ms: int


class Gone(NamedTuple):
    """A null value on `items`; `ts_ms` is the log's own timestamp, since the record has no other."""

    item_id: str
    ts_ms: int


Record = UserAction | Impression | Item | RecommendationRequest | Gone | Forget


class Fact(NamedTuple):
    """One log record. `record` None: a dead letter, which is counted and changes nothing else.

    `ahead_ms`: how far the record's own time lies ahead of the log's. 0 for most; a clock that runs ahead must not
    carry an action over the moment at which its user was forgotten.
    """

    offset: int
    record: Record | None
    ahead_ms: int = 0
