"""What is asked and what is found: the words that sources, filters and the path share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.ids import hash64
from features.scene import Floats, Hashes, UserHistory
from features.schema import RecommendationRequest, UserAction
from features.view import StateView


@dataclass(frozen=True, slots=True)
class Query:
    """One question: for whom, when, with what context; `given` = the caller's own list (no source, no filter).

    `salt` puts equal scores in order: the id of the record that asks, so that a replay answers as the worker did.
    `acted_on`: the hash of the item whose action asks, None where no action does.
    """

    query_id: str
    user_id: str
    now_ms: int
    user: UserHistory
    k: int
    given: Sequence[str] | None = None
    context: Mapping[str, float | str] = field(default_factory=dict)
    item_context: Mapping[str, Floats] = field(default_factory=dict)
    position: Floats | None = None
    salt: str = ""  # "": query_id
    acted_on: int | None = None

    @property
    def current(self) -> Hashes:
        """uint64[0 or 1]: the item the user is on: just acted on, else the last of a session that is not over.

        The log alone does not tell: of actions at one ts_ms the last by its order need not be the one that asks.
        """
        if self.acted_on is not None:
            return np.array([self.acted_on], np.uint64)
        return self.user.items[-1:][self.user.in_session[-1:]]


def question(record: UserAction | RecommendationRequest, *, query_id: str, user: UserHistory, k: int) -> Query:
    """What a trigger or a request asks, `now` being its event time. A given list is answered whole unless it says `k`."""
    if isinstance(record, UserAction):
        acted_on = hash64(record.item_id)
        return Query(query_id, record.user_id, record.ts_ms, user, k, salt=record.event_id, acted_on=acted_on)
    return Query(
        query_id,
        record.user_id,
        record.ts_ms,
        user,
        record.k or (len(record.item_ids) if record.item_ids else k),
        given=record.item_ids,
        context=record.context or {},
        item_context=item_columns(record.item_context),
        salt=record.request_id,
    )


def item_columns(item_context: Mapping[str, Sequence[float | None]] | None) -> dict[str, Floats]:
    """{name: float32[n]}: the wire's per-item context as columns, NaN for null.

    >>> item_columns({"price": [1, None]})
    {'price': array([ 1., nan], dtype=float32)}
    """
    return {name: np.array(column, np.float32) for name, column in (item_context or {}).items()}


@dataclass(frozen=True, slots=True)
class Found:
    """All that one source knows for one query: distinct items uint64[n], best first, with scores float32[n] > 0.

    The head of it is proposed, and the score of any item, proposed or given by the caller, is looked up in it: so a
    source's number means the same both ways.
    """

    items: Hashes
    scores: Floats


EMPTY = Found(np.empty(0, np.uint64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Candidates:
    """The merged candidates of one query: items uint64[n], `source` int16[n] (index of the first source that proposed
    it; -1 = given), scores {source name: float32[n]} (0 where the source does not know the item).
    """

    items: Hashes
    source: NDArray[np.int16]
    scores: Mapping[str, Floats]

    def only(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Candidates:
        """The candidates at a mask or at indices."""
        scores = {name: column[keep] for name, column in self.scores.items()}
        return Candidates(self.items[keep], self.source[keep], scores)


class CandidateSource(Protocol):
    """One way to find candidates. Works on the whole micro-batch: few big reads, then numpy per query."""

    @property
    def name(self) -> str:
        """As quotas, features (`source_<name>`) and recommendations call it."""
        ...

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """What the source knows for each query, bounded by the source (a few hundred items), best first."""
        ...


class Filter(Protocol):
    """Keeps what may be shown. `keep` is bool[n] over the query's candidates."""

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        ...

    @property
    def personal(self) -> bool:
        """Whether it asks for the user; otherwise it keeps the same for all."""
        ...

    def keep(self, query: Query, items: Hashes, view: StateView) -> NDArray[np.bool_]:
        """bool[n]: False where the item must not be shown."""
        ...
