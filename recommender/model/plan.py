"""Which questions a log answers, and the right answers, known before any feature is computed: labels first, rows second.

Three kinds. `lists`: a shown list on which the user acted; asked just before it was shown. `next`: an action whose
session goes on to another item; asked just after it, the label is that item. `baskets`: a session; asked just before its
first action, the labels are its distinct items. Only actions with a grade count, each event_id once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.scene import Hashes
from recommender.model.join import labels
from recommender.model.log_columns import ActionColumns, Ints, LogColumns

Kind = Literal["lists", "next", "baskets"]
LEFT = "actions with no other item after them in the session"
REPEATED = "repeated events"


@dataclass(frozen=True, slots=True)
class Plan:
    """Q questions in log order. at int64[Q]: the ordinal of the record at which each is asked, ascending; ts_ms
    int64[Q]; users uint64[Q]; question q is answered by items[start[q]:start[q + 1]] with those `grades` int32.
    dropped: what is no question, and why, with counts.
    """

    kind: Kind
    at: Ints
    ts_ms: Ints
    users: Hashes
    start: Ints
    items: Hashes
    grades: NDArray[np.int32]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many questions."""
        return len(self.at)

    def answer(self, question: int) -> tuple[Hashes, NDArray[np.int32]]:
        """The labelled items and their grades."""
        rows = slice(int(self.start[question]), int(self.start[question + 1]))
        return self.items[rows], self.grades[rows]

    def part(self, first: int, last: int) -> Plan:
        """The questions first..last-1."""
        ends = self.start[first : last + 1]
        rows = slice(int(ends[0]), int(ends[-1]))
        at, ts_ms, users = self.at[first:last], self.ts_ms[first:last], self.users[first:last]
        return Plan(self.kind, at, ts_ms, users, ends - ends[0], self.items[rows], self.grades[rows], self.dropped)

    def newest(self, at_most: int) -> Plan:
        """The last `at_most` questions."""
        return self.part(max(0, len(self) - at_most), len(self))

    def after(self, ts_ms: int) -> Plan:
        """The questions behind the last one of event time up to `ts_ms`: where a record is late, some fewer."""
        older = np.flatnonzero(self.ts_ms <= ts_ms)
        return self.part(int(older[-1]) + 1 if len(older) else 0, len(self))


def plan(
    log: LogColumns,
    domain: Domain,
    kind: Kind,
    *,
    new_to_user: bool = False,
    known: LogColumns | None = None,
    without: Hashes | None = None,
) -> Plan:
    """All questions of one kind. new_to_user (`next`): only where the label is an item that the user never acted on
    before, in this log or in the earlier one `known`. without: items that count as nobody's answer.
    """
    if kind == "lists":
        return _lists(log, domain)
    actions, dropped = positive(log.actions, domain, without)
    if kind == "baskets":
        return _baskets(actions, domain, dropped)
    if not new_to_user:
        return _next(actions, domain, dropped)
    before = None if known is None else positive(known.actions, domain, without)[0]
    return _next(actions, domain, dropped, answers=_first_touch(actions, before))


def sessions(actions: ActionColumns, *, gap_ms: int) -> Hashes:
    """uint64[n]: equal numbers for actions of one session: by session_id, else parted by a gap in the user's time."""
    without = np.flatnonzero(actions.session == 0)
    order = without[np.lexsort((actions.at[without], actions.ts_ms[without], actions.user[without]))]
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(actions.ts_ms[order]) > gap_ms) | (np.diff(actions.user[order]) != 0)
    found = actions.session.copy()
    found[order] = np.cumsum(new).astype(np.uint64)
    return found


def positive(actions: ActionColumns, domain: Domain, without: Hashes | None) -> tuple[ActionColumns, dict[str, int]]:
    """The actions that say yes to an item, each event of a user once: of two users' ids, equal ones are two events."""
    graded = np.array([action.grade > 0 and not action.negative for action in domain.actions], np.bool_)
    kept = graded[actions.kind] if len(graded) else np.zeros(len(actions), np.bool_)
    if without is not None:
        kept &= ~np.isin(actions.item, without)
    positive = actions.only(kept)
    first = _first_of_pairs(positive.user, positive.event)
    repeated = len(positive) - int(first.sum())
    return positive.only(first), {REPEATED: repeated} if repeated else {}


def _lists(log: LogColumns, domain: Domain) -> Plan:
    """By the ids that actions carry, else by user and item within the action's horizon (`recommender.model.join`)."""
    found = labels(log.lists, log.actions, domain)
    lists = log.lists
    start = np.concatenate([[0], np.cumsum(lists.sizes)])
    order = np.lexsort((found.place, found.query))
    query, place, grades = found.query[order], found.place[order], found.grade[order]
    asked, first = np.unique(query, return_index=True)
    return Plan(
        "lists",
        lists.at[asked],
        lists.ts_ms[asked],
        lists.user[asked],
        np.append(first, len(query)).astype(np.int64),
        lists.items[start[query] + place],
        grades,
        found.dropped,
    )


def _next(
    actions: ActionColumns, domain: Domain, dropped: dict[str, int], *, answers: NDArray[np.bool_] | None = None
) -> Plan:
    """Answers bool[n]: which actions may be a question's answer; None: all."""
    session = sessions(actions, gap_ms=domain.session_gap_ms)
    order = np.lexsort((actions.at, session))
    now, then = order[:-1], order[1:]
    goes_on = (session[now] == session[then]) & (actions.item[now] != actions.item[then])
    dropped = {**dropped, LEFT: len(actions) - int(goes_on.sum())}
    if answers is not None:
        goes_on &= answers[then]
    now, then = now[goes_on], then[goes_on]
    in_order = np.argsort(actions.at[now], kind="stable")
    now, then = now[in_order], then[in_order]
    start = np.arange(len(now) + 1)
    grades = _grades(domain)[actions.kind[then]]
    return Plan(
        "next", actions.at[now], actions.ts_ms[now], actions.user[now], start, actions.item[then], grades, dropped
    )


def _first_touch(actions: ActionColumns, before: ActionColumns | None) -> NDArray[np.bool_]:
    """bool[n]: the user's first action on this item, in the earlier log `before` and in this one."""
    if before is None:
        return _first_of_pairs(actions.user, actions.item)
    users, items = np.concatenate([before.user, actions.user]), np.concatenate([before.item, actions.item])
    return _first_of_pairs(users, items)[len(before) :]


def _first_of_pairs(one: Hashes, other: Hashes) -> NDArray[np.bool_]:
    """bool[n]: where a pair of numbers stands for the first time.

    >>> _first_of_pairs(np.array([7, 8, 7], np.uint64), np.array([1, 1, 1], np.uint64)).tolist()
    [True, True, False]
    """
    order = np.lexsort((np.arange(len(one)), other, one))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(one[order]) != 0) | (np.diff(other[order]) != 0)
    found = np.empty(len(order), np.bool_)
    found[order] = first
    return found


def _baskets(actions: ActionColumns, domain: Domain, dropped: dict[str, int]) -> Plan:
    session = sessions(actions, gap_ms=domain.session_gap_ms)
    grades = _grades(domain)[actions.kind]
    # one row per session and item, the one of the highest grade; sessions in the order of their first action
    _, opened, of = np.unique(session, return_index=True, return_inverse=True)
    opened_at = actions.at[opened]  # np.unique names the first row, and rows are in log order
    order = np.lexsort((-grades, actions.item, opened_at[of]))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(of[order]) != 0) | (np.diff(actions.item[order]) != 0)
    rows = order[first]
    basket = opened_at[of[rows]]
    asked, start = np.unique(basket, return_index=True)
    heads = opened[np.argsort(opened_at)]
    ends = np.append(start, len(rows)).astype(np.int64)
    return Plan(
        "baskets", asked, actions.ts_ms[heads], actions.user[heads], ends, actions.item[rows], grades[rows], dropped
    )


def _grades(domain: Domain) -> NDArray[np.int32]:
    return np.array([action.grade for action in domain.actions], np.int32)
