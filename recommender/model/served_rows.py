"""Rows as served, labelled: the very bytes that were scored and shown, with what was done about them.

Labels first, rows second: served lists, impressions and actions are joined by ids and times alone (`labelled`), then
`served_features` is read once more for the bytes of the labelled lists and of no other (`stacked`). What is trained on
is what was served, byte for byte.

Never trained on: a backlog, rows that lack a source, rows of another feature catalogue, what was not shown, the lists of a forgotten user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.ids import hash64
from features.scene import Floats
from recommender.model.join import database, labels
from recommender.model.log_columns import ActionColumns, Ints, ListColumns
from recommender.model.rows import TrainingRows
from recommender.model.served_lists import Acted, LogEntry, ServedLists, Shown
from recommender.served import unpack

NOT_SHOWN = "served lists that no impression shows"
FORGOTTEN = "served lists of forgotten users"
BEYOND = "labelled lists older than the newest asked for"
GONE = "labelled lists that the broker holds no more"

REALLY_SHOWN = """
SELECT query, rank, min(position) AS position FROM places JOIN seen USING (record, item)
GROUP BY query, rank ORDER BY query, rank
"""


class Picked(NamedTuple):
    """One labelled list: ranks int64[n] of its shown items in the served record, the positions int64[n] at which they
    were shown, their grades int32[n].
    """

    ts_ms: int
    user: int
    ranks: Ints
    positions: Ints
    grades: NDArray[np.int32]


class Choice(NamedTuple):
    """The labelled lists by where their records lie, (partition, offset), oldest first; what was dropped, and why."""

    picked: Mapping[tuple[int, int], Picked]
    dropped: Mapping[str, int]


class _Places(NamedTuple):
    """Shown items by list and rank: index of the list, rank in its record, position on display; all int64[n]."""

    query: Ints
    rank: Ints
    position: Ints

    def only(self, rows: NDArray[np.bool_] | slice) -> _Places:
        return _Places(*(column[rows] for column in self))


def labelled(served: ServedLists, shown: Shown, acted: Acted, domain: Domain, *, lists_max: int) -> Choice:
    """The newest `lists_max` labelled lists by event time.

    Where the front end sends impressions with rec_ids, only what they show was shown, else each whole list. An action
    may carry the id of an impression, or the rec_id itself. Only an action that the broker took after the served record
    counts: had it come before, the row could know of it. The same millisecond is not after: the row may have been built
    at its end, and nobody reads a list and clicks within one. Of repeats of a rec_id the first holds, as for consumers.
    """
    fine = _not_forgotten(served.lists, acted.forgotten)
    places = _places(served.lists, shown)
    there = np.bincount(places.query, minlength=len(served.lists)) > 0
    chosen = np.flatnonzero(fine & there)
    places = places.only((fine & there)[places.query])
    lists = _only(served.lists, chosen, places)
    found = labels(
        lists,
        _naming_records(acted.actions, shown.record_of),
        domain,
        closed_at_ms=acted.newest_ts_ms,
        shown_ms=_shown_ms(lists, shown.first_ms),
    )
    first = np.cumsum(lists.sizes) - lists.sizes
    grades = np.zeros(len(lists.items), np.int32)
    grades[first[found.query] + found.place] = found.grade
    asked = np.unique(found.query)
    newest = asked[np.argsort(lists.ts_ms[asked], kind="stable")][max(0, len(asked) - lists_max) :]
    picked = {}
    for each in newest.tolist():
        rows = slice(int(first[each]), int(first[each] + lists.sizes[each]))
        mine = places.only(rows)
        at = int(served.partition[chosen[each]]), int(served.offset[chosen[each]])
        picked[at] = Picked(int(lists.ts_ms[each]), int(lists.user[each]), mine.rank, mine.position, grades[rows])
    counts = {
        NOT_SHOWN: int((fine & ~there).sum()),
        FORGOTTEN: int((~fine).sum()),
        BEYOND: len(asked) - len(newest),
    }
    counted = {why: count for why, count in counts.items() if count}
    return Choice(picked, {**served.dropped, **counted, **found.dropped})


def stacked(choice: Choice, entries: Iterable[LogEntry], *, columns: int) -> TrainingRows:
    """The labelled lists with the bytes of their records, oldest first. `entries` is read until all are found."""
    found: dict[tuple[int, int], tuple[str, list[int], Floats]] = {}
    for entry in entries if choice.picked else ():
        at = entry.partition, entry.offset
        if at not in choice.picked:
            continue
        served, _, rows = unpack(entry.value or b"")
        ranks = choice.picked[at].ranks
        found[at] = served.rec_id, [hash64(served.item_ids[rank]) for rank in ranks.tolist()], rows[ranks]
        if len(found) == len(choice.picked):
            break
    there = [(each, *found[at]) for at, each in choice.picked.items() if at in found]
    gone = len(choice.picked) - len(there)
    none = np.empty(0, np.int32)
    return TrainingRows(
        np.concatenate([np.empty((0, columns), np.float32), *(rows for *_, rows in there)]),
        np.concatenate([none, *(each.grades for each, *_ in there)]),
        np.array([item for _, _, items, _ in there for item in items], np.uint64),
        np.array([len(each.ranks) for each, *_ in there], np.int64),
        np.array([each.ts_ms for each, *_ in there], np.int64),
        np.array([each.user for each, *_ in there], np.uint64),
        tuple(rec_id for _, rec_id, *_ in there),
        {**choice.dropped, **({GONE: gone} if gone else {})},
        np.concatenate([none, *(each.positions.astype(np.int32) for each, *_ in there)]),
    )


def _places(lists: ListColumns, shown: Shown) -> _Places:
    """Every item that was shown."""
    query = np.repeat(np.arange(len(lists)), lists.sizes)
    rank = np.arange(len(lists.items)) - np.repeat(np.cumsum(lists.sizes) - lists.sizes, lists.sizes)
    if not shown.sent:
        return _Places(query, rank, rank)
    with database() as tables:
        places = {"query": query, "rank": rank, "item": lists.items, "record": lists.impression[query]}
        tables.register("places", places)
        tables.register("seen", {"record": shown.record, "item": shown.item, "position": shown.position})
        found = tables.execute(REALLY_SHOWN).fetchnumpy()
    return _Places(found["query"], found["rank"], found["position"])


def _only(lists: ListColumns, chosen: Ints, places: _Places) -> ListColumns:
    """The chosen lists with no items but those in `places`."""
    items = lists.items[(np.cumsum(lists.sizes) - lists.sizes)[places.query] + places.rank]
    sizes = np.bincount(places.query, minlength=len(lists))[chosen]
    return ListColumns(
        lists.at[chosen], lists.ts_ms[chosen], lists.user[chosen], lists.impression[chosen], sizes, items
    )


def _not_forgotten(lists: ListColumns, forgotten: Mapping[int, int]) -> NDArray[np.bool_]:
    """bool[m]: lists whose user was not forgotten after them."""
    after = zip(lists.user.tolist(), lists.at.tolist(), strict=True)
    return np.array([forgotten.get(user, -1) < at for user, at in after], np.bool_)


def _naming_records(actions: ActionColumns, record_of: Mapping[int, int]) -> ActionColumns:
    """The actions with the record that their impression shows in the impression's place."""
    named = [record_of.get(impression, impression) for impression in actions.impression.tolist()]
    return replace(actions, impression=np.array(named, np.uint64))


def _shown_ms(lists: ListColumns, first_ms: Mapping[int, int]) -> Ints:
    """int64[m]: the event time from which a list's horizon runs: of its first impression, else its own."""
    first = np.array([first_ms.get(record, 0) for record in lists.impression.tolist()], np.int64)
    return np.maximum(first, lists.ts_ms)
