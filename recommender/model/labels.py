"""From a log and its plan to labelled rows: every question is asked of the live path at its own moment.

A question whose right answer no source found counts as lost recall and teaches nothing; nothing is injected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.ids import hash64
from features.scene import Floats, Hashes
from features.schema import Impression, UserAction
from recommender.model.plan import Plan
from recommender.model.rows import TrainingRows, hashed_order
from recommender.query import Query
from recommender.recommend import Hydrated
from recommender.replay import Entry, Replayer

LOST = "questions whose answer no source found"
PROGRESS_EVERY = 1_000


class Question(NamedTuple):
    """One labelled question: its rows float32[n, features], items uint64[n], grades int32[n], places int32[n]."""

    query_id: str
    matrix: Floats
    items: Hashes
    grades: NDArray[np.int32]
    places: NDArray[np.int32]


def asked(
    records: Iterable[Entry], replayer: Replayer, plan: Plan, *, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[int, Query]]:
    """Feeds the log and yields (question, query) in the plan's order, each when the state is that of its moment.

    progress(records so far) is called every 1 000 records.
    """
    places = plan.at.tolist()
    waiting = 0
    for ordinal, (topic, record) in enumerate(records):
        due = waiting < len(places) and places[waiting] == ordinal
        if due and plan.kind != "next":
            yield waiting, _query(record, replayer, plan)
        replayer.feed(topic, record)
        if due and plan.kind == "next":
            yield waiting, _query(record, replayer, plan)
        waiting += due
        if progress is not None and ordinal % PROGRESS_EVERY == PROGRESS_EVERY - 1:
            progress(ordinal + 1)
    replayer.settle()


def training_rows(
    records: Iterable[Entry],
    replayer: Replayer,
    plan: Plan,
    *,
    negatives_max: int = 100,
    progress: Callable[[int], None] | None = None,
) -> TrainingRows:
    """Replays the log and returns the plan's questions as labelled rows, oldest first."""
    stack = Stack(len(replayer.catalog.names), plan, negatives_max=negatives_max)
    for question, query in asked(records, replayer, plan, progress=progress):
        stack.add(question, query, replayer.rows(query))
    return stack.rows()


class Stack:
    """Collects labelled questions; beyond `negatives_max` a question's negatives are thinned by a hash, free of rank."""

    def __init__(self, width: int, plan: Plan, *, negatives_max: int = 100) -> None:
        self._width, self._plan, self._negatives_max = width, plan, negatives_max
        self._questions: list[Question] = []
        self._asked: list[int] = []
        self.lost = 0

    def add(self, number: int, query: Query, ready: Hydrated) -> None:
        """Takes the rows of the plan's question of that number."""
        items = ready.candidates.items
        grades = grades_of(items, *self._plan.answer(number))
        if not grades.any():
            self.lost += 1
            return
        places = np.arange(len(items), dtype=np.int32)
        question = Question(query.query_id, ready.matrix, items, grades, places)
        self._questions.append(thinned(question, self._negatives_max))
        self._asked.append(number)

    def rows(self) -> TrainingRows:
        """All of them as training rows, by (ts_ms, order in the log): a late record is no reason not to learn."""
        plan = self._plan
        in_time = np.argsort(plan.ts_ms[self._asked], kind="stable").tolist()
        asked, numbers = [self._questions[each] for each in in_time], [self._asked[each] for each in in_time]
        return TrainingRows(
            np.concatenate([np.empty((0, self._width), np.float32), *(each.matrix for each in asked)]),
            np.concatenate([np.empty(0, np.int32), *(each.grades for each in asked)]),
            np.concatenate([np.empty(0, np.uint64), *(each.items for each in asked)]),
            np.array([len(each.items) for each in asked], np.int64),
            plan.ts_ms[numbers],
            plan.users[numbers],
            tuple(each.query_id for each in asked),
            {**plan.dropped, **({LOST: self.lost} if self.lost else {})},
            np.concatenate([np.empty(0, np.int32), *(each.places for each in asked)]) if plan.kind == "lists" else None,
        )


def grades_of(items: Hashes, labelled: Hashes, grades: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32[n]: the grade of each item, 0 for what is not labelled.

    >>> grades_of(np.array([7, 8, 9], np.uint64), np.array([9, 1], np.uint64), np.array([2, 1], np.int32)).tolist()
    [0, 0, 2]
    """
    order = np.argsort(labelled)
    place = np.minimum(np.searchsorted(labelled[order], items), len(labelled) - 1)
    found: NDArray[np.int32] = np.where(labelled[order][place] == items, grades[order][place], 0).astype(np.int32)
    return found


def thinned(question: Question, negatives_max: int) -> Question:
    """All labelled rows and `negatives_max` of the others, chosen by hash(question, item): reproducible, free of rank."""
    query_id, matrix, items, grades, places = question
    if len(items) - np.count_nonzero(grades) <= negatives_max:
        return question
    order = hashed_order(items, matrix, np.array([len(items)]), [query_id])
    negatives = order[grades[order] == 0][:negatives_max]
    kept = np.sort(np.concatenate([np.flatnonzero(grades > 0), negatives]))
    return Question(query_id, matrix[kept], items[kept], grades[kept], places[kept])


def _query(record: object, replayer: Replayer, plan: Plan) -> Query:
    """The question at a record of the log: an impression's own list, else what the sources find."""
    replayer.settle()
    if isinstance(record, Impression):
        return replayer.list_query(record)
    if not isinstance(record, UserAction):
        raise TypeError(
            f"a plan of {plan.kind} asks at {type(record).__name__}: the log is not the one it was made from"
        )
    acted_on = hash64(record.item_id) if plan.kind == "next" else None
    return replayer.query(record.event_id, record.user_id, record.ts_ms, acted_on=acted_on)
