"""Everything that a feature may look at, as columns over the candidates of one query.

`features/view.py` fills it from the state; `features/catalog.py` lists the functions that read it. All arrays are
aligned: row i of every (n, ...) array is candidate i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class UserHistory:
    """One user's log, oldest first, masked to the retention and to ts_ms <= now.

    ts_ms int64[m], items uint64[m], actions uint8[m] (codes of `Layout`), sessions int32[m] (ordinal of the session:
    equal numbers = same session; by session_id where given, else parted by the gap), session_start: first index of the
    newest session (m when it is over: the gap has passed), weights float32[m] (the action's configured weight),
    bought uint64[b], impressions_ts_ms int64[j].
    """

    ts_ms: NDArray[np.int64]
    items: Hashes
    actions: NDArray[np.uint8]
    sessions: NDArray[np.int32]
    in_session: NDArray[np.bool_]
    weights: Floats
    bought: Hashes
    impressions_ts_ms: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SetColumn:
    """One set attribute over n items, sparse: the value codes of item i are codes[start[i]:start[i + 1]]."""

    start: NDArray[np.int64]
    codes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """What the state knows of n items at `now`.

    counts float32[n, columns, 4] (5 min, 1 h, 24 h, 7 d), decayed float32[n, columns, 3] (half-lives 1, 7, 30 d),
    lifetime float32[n, columns], first_ts_ms int64[n] (0 = unknown), known bool[n] (has an item record), available
    bool[n], numbers {attribute: float32[n], NaN = absent}, sets {attribute: SetColumn} (categories are sets of one).
    """

    hashes: Hashes
    counts: Floats
    decayed: Floats
    lifetime: Floats
    first_ts_ms: NDArray[np.int64]
    known: NDArray[np.bool_]
    available: NDArray[np.bool_]
    numbers: Mapping[str, Floats]
    sets: Mapping[str, SetColumn]


@dataclass(frozen=True, slots=True)
class Past:
    """What several features need of a user's m events, computed once a query (`features/history.py`: past).

    actions intp[m]: the event's place in `domain.actions` (their number for one no longer configured). taste
    float64[m]: what the event says of the user's taste (weight x decay, 0 for a negative action). dwell_s float64[m]:
    seconds to the next event of the session (NaN: its last). distinct uint64[d]: the touched items, ascending, and
    `of` intp[m]: each event's place among them.
    """

    actions: NDArray[np.intp]
    taste: NDArray[np.float64]
    dwell_s: NDArray[np.float64]
    distinct: Hashes
    of: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Scene:
    """One query's whole view: the candidates, their world, the user and the context.

    world: the global ring as one row. touched: the records of the items of the user's events, aligned with
    `user.items`, without counts. idf {set attribute: float32[codes]}. value_rates {attribute: float32[n, columns - 1]}:
    each action's rate through the attribute's values where `rate = true`. sources {name: float32[n]}: every candidate
    source's score (0 = not found), co-visitation with the session among them.
    context: numbers and texts. item_context {name: float32[n], NaN = absent}. position float32[n] or None.
    """

    domain: Domain
    now_ms: int
    items: ItemColumns
    world: ItemColumns
    user: UserHistory
    past: Past
    touched: ItemColumns
    idf: Mapping[str, Floats]
    value_rates: Mapping[str, Floats]
    sources: Mapping[str, Floats]
    context: Mapping[str, float | str]
    item_context: Mapping[str, Floats]
    position: Floats | None = None

    @property
    def size(self) -> int:
        """How many candidates."""
        return len(self.items.hashes)
