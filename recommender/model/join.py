"""Which shown item the user then acted on: lists and actions of a log, joined by DuckDB.

- Only actions with a grade count; a repeat of an event counts once, a repeat of a list not at all (the first is kept).
- An action labels the list whose impression_id it carries, on the item it names, wherever that item stands. Where no
  action carries one: the newest list of the same user that shows the item, within the action's horizon.
- An action labels only a list that it comes after: by event time at or after it, and after it in the log, for a row is
  built from all that the log holds before it. Later than that it may come as late as it likes.
- Of several actions on one item the highest grade holds.
- While a log goes on (`closed_at_ms`), horizons hold for every action, and a list whose horizon is open waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from recommender.model.log_columns import ActionColumns, Ints, ListColumns

Columns = dict[str, NDArray[Any]]

THREADS = 2
MEMORY = "4GB"  # 10 M shown items and 4 M actions take half of it (measured)
NEVER_MS = 1 << 62  # no horizon

NO_LABEL = "lists without a label"
WAITING = "lists whose label horizon is open"
REPEATED_LISTS = "repeated lists"
REPEATED_ACTIONS = "repeated events"
NO_LIST = "actions that found no list"

KEPT = """
CREATE TABLE list AS
SELECT * FROM lists
QUALIFY row_number() OVER (PARTITION BY impression, if(impression = 0, query, NULL) ORDER BY ts_ms, logged, query) = 1;

CREATE TABLE graded AS SELECT actions.*, grade, horizon_ms FROM actions JOIN kinds USING (kind) WHERE grade > 0;

CREATE TABLE action AS
SELECT * FROM graded QUALIFY row_number() OVER (PARTITION BY "user", event ORDER BY ts_ms, logged, row) = 1;
"""

BY_IMPRESSION = """
CREATE TABLE answer AS
SELECT row, query FROM action JOIN list USING (impression) WHERE impression <> 0;
"""

BY_USER_AND_ITEM = """
CREATE TABLE seen AS
SELECT list."user", places.item, ts_ms, query FROM list JOIN places USING (query)
SEMI JOIN action ON action."user" = list."user" AND action.item = places.item
QUALIFY row_number() OVER (PARTITION BY list."user", places.item, ts_ms ORDER BY logged DESC, query DESC) = 1;

CREATE TABLE answer AS
SELECT row, query FROM action ASOF JOIN seen
ON action."user" = seen."user" AND action.item = seen.item AND action.ts_ms >= seen.ts_ms;
"""

LABELS = """
CREATE TABLE label AS
SELECT row, query, place, grade, list.shown_ms + $horizon_max_ms >= $closed_at_ms AS waits
FROM answer JOIN action USING (row) JOIN list USING (query) JOIN places USING (query, item)
WHERE action.ts_ms >= list.ts_ms AND action.logged > list.logged AND action.ts_ms - list.shown_ms <= horizon_ms;
"""

FOUND = """
SELECT query, place, max(grade) AS grade FROM label WHERE NOT waits GROUP BY query, place ORDER BY query, place
"""

DROPPED = """
SELECT
  (SELECT count(*) FROM list WHERE shown_ms + $horizon_max_ms < $closed_at_ms)
    - (SELECT count(DISTINCT query) FROM label WHERE NOT waits),
  (SELECT count(*) FROM list WHERE shown_ms + $horizon_max_ms >= $closed_at_ms),
  (SELECT count(*) FROM lists) - (SELECT count(*) FROM list),
  (SELECT count(*) FROM graded) - (SELECT count(*) FROM action),
  (SELECT count(*) FROM action) - (SELECT count(DISTINCT row) FROM label)
"""


class Labels(NamedTuple):
    """L labels, by list and place: query int64[L] is the list's index, place int64[L] the item's within it, grade
    int32[L] above 0. dropped: what became no label, and why, with counts.
    """

    query: Ints
    place: Ints
    grade: NDArray[np.int32]
    dropped: Mapping[str, int]


def labels(
    lists: ListColumns,
    actions: ActionColumns,
    domain: Domain,
    *,
    closed_at_ms: int | None = None,
    shown_ms: Ints | None = None,
) -> Labels:
    """The labels of a log's lists. `at` is the order in the log of lists and actions alike.

    closed_at_ms: up to which event time the log is known; None: it is complete, nothing waits, and an action that names
    its list labels it however late. shown_ms int64[m]: from when each list's horizon runs; default: its ts_ms.
    """
    kinds = _kinds(domain)
    horizon_max_ms = int(kinds["horizon_ms"].max(initial=0, where=kinds["grade"] > 0))
    by_impression = bool((actions.impression[kinds["grade"][actions.kind] > 0] != 0).any())
    if closed_at_ms is None and by_impression:
        kinds["horizon_ms"][:] = NEVER_MS
    bounds = {
        "horizon_max_ms": horizon_max_ms,
        "closed_at_ms": NEVER_MS if closed_at_ms is None else closed_at_ms,
    }
    with database() as tables:
        tables.register("lists", _lists(lists, shown_ms))
        tables.register("places", _places(lists))
        tables.register("actions", _actions(actions))
        tables.register("kinds", kinds)
        tables.execute(KEPT)
        tables.execute(BY_IMPRESSION if by_impression else BY_USER_AND_ITEM)
        tables.execute(LABELS, bounds)
        found = tables.execute(FOUND).fetchnumpy()
        counts = tables.execute(DROPPED, bounds).fetchall()[0]
    reasons = NO_LABEL, WAITING, REPEATED_LISTS, REPEATED_ACTIONS, NO_LIST
    dropped = {reason: count for reason, count in zip(reasons, counts, strict=True) if count}
    return Labels(found["query"], found["place"], found["grade"], dropped)


def database() -> duckdb.DuckDBPyConnection:
    """A database of its own in memory; it writes no file, reads none, and fetches no extension."""
    tables = duckdb.connect(":memory:", config={"threads": THREADS, "memory_limit": MEMORY})
    tables.execute("SET temp_directory = ''; SET preserve_insertion_order = false; SET enable_external_access = false")
    return tables


def _kinds(domain: Domain) -> Columns:
    """Grade and horizon of each configured action; what says no to an item is no label."""
    return {
        "kind": np.arange(len(domain.actions)),
        "grade": np.array([0 if action.negative else action.grade for action in domain.actions], np.int32),
        "horizon_ms": np.array([action.horizon_ms for action in domain.actions], np.int64),
    }


def _lists(lists: ListColumns, shown_ms: Ints | None) -> Columns:
    return {
        "query": np.arange(len(lists)),
        "logged": lists.at,
        "ts_ms": lists.ts_ms,
        "shown_ms": lists.ts_ms if shown_ms is None else shown_ms,
        "user": lists.user,
        "impression": lists.impression,
    }


def _places(lists: ListColumns) -> Columns:
    """One row a shown item."""
    first = np.cumsum(lists.sizes) - lists.sizes
    return {
        "query": np.repeat(np.arange(len(lists)), lists.sizes),
        "place": np.arange(len(lists.items)) - np.repeat(first, lists.sizes),
        "item": lists.items,
    }


def _actions(actions: ActionColumns) -> Columns:
    names = ("ts_ms", "user", "item", "event", "impression", "kind")
    return {"row": np.arange(len(actions)), "logged": actions.at, **{name: getattr(actions, name) for name in names}}
