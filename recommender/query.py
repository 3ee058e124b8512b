"""What is asked and what is found: the words that sources, filters and the path share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from features.view import StateView
from numpy.typing import NDArray

from features.scene import Floats, Hashes, UserHistory


@dataclass(frozen=True, slots=True)
class Query:
    """One question: for whom, when, with what context; `given` = the caller's own list (no source, no filter)."""

    query_id: str
    user_id: str
    now_ms: int
    user: UserHistory
    k: int
    given: Sequence[str] | None = None
    context: Mapping[str, float | str] = field(default_factory=dict)
    item_context: Mapping[str, Floats] = field(default_factory=dict)
    position: Floats | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What one source proposes for one query: items uint64[n], best first, scores float32[n]."""

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


class CandidateSource(Protocol):
    """One way to find candidates. Works on the whole micro-batch: few big reads, then numpy per query."""

    name: str

    def find(self, queries: Sequence[Query], view: StateView, *, limit: int) -> list[Found]:
        """At most `limit` items for each query, best first."""
        ...

    def scores(self, queries: Sequence[Query], items: Sequence[Hashes], view: StateView) -> list[Floats]:
        """The source's score of given items, query by query: the same number that `find` would give; 0 = unknown."""
        ...


class Filter(Protocol):
    """Keeps what may be shown. `keep` is bool[n] over the query's candidates."""

    name: str

    def keep(self, query: Query, items: Hashes, view: StateView) -> NDArray[np.bool_]:
        """bool[n]: which of the candidates may be shown."""
        ...
