"""What a log record means for the state: one fact an offset."""

from __future__ import annotations

from typing import NamedTuple

from features.schema import Impression, Item, RecommendationRequest, UserAction


class Forget(NamedTuple):
    """A null value on `user_actions`: the key's user is forgotten."""

    user_id: str


class Gone(NamedTuple):
    """A null value on `items`; `ts_ms` is the log's own timestamp, since the record has no other."""

    item_id: str
    ts_ms: int


Record = UserAction | Impression | Item | RecommendationRequest | Gone | Forget


class Fact(NamedTuple):
    """One log record. `record` None: a dead letter, which is counted and changes nothing else."""

    offset: int
    record: Record | None
