"""A micro-batch on its way into the state: parted where order matters, sorted by shard and user.

What a batch may hold at once and in which pieces it is applied follows from its facts and marks alone; `state.py`
applies the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.facts import Fact, Forget, Gone
from features.fold import Folded
from features.ids import hash64
from features.schema import Impression, Item, RecommendationRequest, UserAction
from features.store.port import Part, UserCall


class Piece(NamedTuple):
    """Facts of a batch that are applied at once. `forgets`: the first of them forgets a user."""

    facts: Sequence[Fact]
    last: int
    forgets: bool


@dataclass(slots=True)
class MicroBatch:
    """One `apply` under way."""

    part: Part
    facts: Sequence[Fact]
    last: int
    fresh: NDArray[np.bool_]
    by_user: dict[int, dict[str, list[int]]] = field(default_factory=dict)  # shard -> user -> indices of facts
    counted: dict[int, list[int]] = field(default_factory=dict)  # shard -> indices of facts without a user's log
    blobs: dict[str, bytes] = field(default_factory=dict)
    forgets: set[str] = field(default_factory=set)  # the users whom a fact forgets
    folded: dict[str, Folded] = field(default_factory=dict)


def came_before(batch: MicroBatch, call: UserCall) -> bool:
    """Whether users of the call have facts at or before its mark. Then the fold took the log as it stands for one that
    holds them, and the store has to say so: one that was away and came back without them would have events taken for
    cut ones, and refused ones for counted.
    """
    users = batch.by_user.get(call.shard, {})
    return any(indices and batch.facts[indices[0]].offset <= call.prev for indices in users.values())


def is_delicate(batch: MicroBatch) -> bool:
    """Whether a later redo of the batch could go wrong: it has repeats whose event may be cut off the log by then, or
    cut off events of which a repeat may come. So that there is none, all marks move beyond it.
    """
    return not batch.fresh.all() or any(folded.cut for folded in batch.folded.values())


def halves(piece: Piece) -> list[Piece]:
    """A piece of two facts or more, in two; it forgets before the first."""
    middle = len(piece.facts) // 2
    return [
        Piece(piece.facts[:middle], piece.facts[middle - 1].offset, piece.forgets),
        Piece(piece.facts[middle:], piece.last, False),
    ]


def pieces(facts: Sequence[Fact], last: int, *, settled: int, seen: int) -> Iterator[Piece]:
    """A batch, parted before each run of facts that forget a user, and behind `settled` and `seen`: a redo begins behind
    what all items have, and ends where the users' logs end. What is settled has no effect again; folded with the rest
    it would put events back into the log that it cut off long since, and their next repeat would find them.
    """
    forgets = {
        at
        for at, fact in enumerate(facts)
        if isinstance(fact.record, Forget) and (at == 0 or not isinstance(facts[at - 1].record, Forget))
    }
    beyond = {next((at for at, fact in enumerate(facts) if fact.offset > edge), 0) for edge in (settled, seen)}
    first = 0
    for start in sorted(forgets | beyond):
        if start > first:
            yield Piece(facts[first:start], facts[start - 1].offset, first in forgets)
        first = start
    yield Piece(facts[first:] if first else facts, last, first in forgets)


def sorted_out(part: Part, facts: Sequence[Fact], last: int, shards: int) -> MicroBatch:
    """Which shard has to do with which fact: a user's log, a catalogue entry's item; the rest is counted in shard 0."""
    batch = MicroBatch(part, facts, last, np.ones(len(facts), np.bool_))
    for index, (_, record, _) in enumerate(facts):
        if isinstance(record, (UserAction, Impression, Forget)):
            users = batch.by_user.setdefault(hash64(record.user_id) % shards, {})
            users.setdefault(record.user_id, []).append(index)
            if isinstance(record, Forget):
                batch.forgets.add(record.user_id)
            continue
        shard = hash64(record.item_id) % shards if isinstance(record, (Item, Gone)) else 0
        batch.counted.setdefault(shard, []).append(index)
        if isinstance(record, RecommendationRequest):
            users = batch.by_user.setdefault(hash64(record.user_id) % shards, {})
            users.setdefault(record.user_id, [])
    return batch
