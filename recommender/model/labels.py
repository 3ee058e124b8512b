"""From a log to labelled rows: which shown or found item the user then acted on.

Two ways, by what the log has. `lists`: a list that was shown is a question, asked of the state before it; an action
that carries its impression_id labels its item, one that carries none labels the newest list that showed the user this
item within the horizon. `triggers`: after each trigger action the live sources are asked, and the next other item of
the session is the label; where no source found it, the question counts as lost recall. Nothing is injected.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.ids import hash64
from features.scene import Floats, Hashes
from features.schema import Impression, UserAction
from recommender.model.rows import TrainingRows
from recommender.query import Query
from recommender.recommend import Hydrated
from recommender.replay import Ask, Entry, Replayer
from recommender.selection import best_first

LABEL_HORIZON_MS = 30 * 60 * 1000
OPEN_LISTS_MAX = 50_000
NO_LABEL = "without a label"
LOST = "whose next item no source found"
LEFT = "with no next item in the session"
OLDER = "older than the newest kept"


@dataclass(frozen=True, slots=True)
class Question:
    """One question that waits for its label. grades int32[n] is filled in as actions come."""

    query_id: str
    user: int
    ts_ms: int
    items: Hashes
    matrix: Floats
    grades: NDArray[np.int32]
    session_id: str | None = None
    current: int = 0

    def label(self, item: int, grade: int) -> bool:
        """Raises the grade of the item where it stands; False when the question does not have it."""
        here = self.items == np.uint64(item)
        np.maximum(self.grades, grade, out=self.grades, where=here)
        return bool(here.any())


@dataclass(slots=True)
class Kept:
    """The newest labelled questions, bounded by rows; the oldest go first."""

    rows_max: int
    negatives_max: int
    questions: deque[Question] = field(default_factory=deque)
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def keep(self, question: Question) -> None:
        """Takes a labelled question; beyond `negatives_max` its negatives are thinned by a hash, free of rank."""
        if len(question.items) > self.negatives_max + 1:
            question = _thinned(question, self.negatives_max)
        self.questions.append(question)
        self.rows += len(question.items)
        while self.rows > self.rows_max and len(self.questions) > 1:
            self.rows -= len(self.questions.popleft().items)
            self.dropped[OLDER] += 1

    def stacked(self, width: int) -> TrainingRows:
        """All of them as training rows, by event time (equal times: in the order of asking)."""
        ordered = sorted(self.questions, key=lambda question: question.ts_ms)
        empty = np.empty((0, width), np.float32)
        return TrainingRows(
            np.concatenate([empty, *(q.matrix for q in ordered)]),
            np.concatenate([np.empty(0, np.int32), *(q.grades for q in ordered)]),
            np.concatenate([np.empty(0, np.uint64), *(q.items for q in ordered)]),
            np.array([len(q.items) for q in ordered], np.int64),
            np.array([q.ts_ms for q in ordered], np.int64),
            np.array([q.user for q in ordered], np.uint64),
            tuple(q.query_id for q in ordered),
            dict(self.dropped),
        )


def training_rows(
    records: Iterable[Entry],
    replayer: Replayer,
    *,
    ask: Ask,
    from_ms: int = 0,
    rows_max: int = 500_000,
    negatives_max: int = 100,
    horizon_ms: int = LABEL_HORIZON_MS,
    progress: Callable[[int], None] | None = None,
) -> TrainingRows:
    """Replays the log and returns its labelled questions, oldest first.

    from_ms: questions before it are not asked (`newest_questions_ms` finds a good one). rows_max: bound on memory, the
    newest are kept. progress(records so far) is called every 1 000 records. `dropped` says what is missing and why.
    """
    kept = Kept(rows_max, negatives_max)
    asker: Lists | Triggers = (Lists if ask == "lists" else Triggers)(replayer, kept, horizon_ms)
    for count, (topic, record) in enumerate(records, start=1):
        asked = record is not None and getattr(record, "ts_ms", 0) >= from_ms
        asker.take(topic, record, asked=asked)
        if progress is not None and count % 1_000 == 0:
            progress(count)
    asker.finish()
    return kept.stacked(len(replayer.catalog.names))


def newest_questions_ms(records: Iterable[Entry], domain: Domain, *, ask: Ask, at_most: int = 20_000) -> int:
    """The event time from which on the log holds about `at_most` questions: a first, cheap pass for `from_ms`."""
    triggers = {action.name for action in domain.actions if action.trigger}
    newest: deque[int] = deque(maxlen=at_most)
    for _, record in records:
        listed = ask == "lists" and isinstance(record, Impression)
        if listed or (ask == "triggers" and isinstance(record, UserAction) and record.action in triggers):
            newest.append(record.ts_ms)  # type: ignore[union-attr]
    return newest[0] if len(newest) == at_most else 0


class Lists:
    """Asks before each shown list; labels by impression_id, else by user and item."""

    def __init__(self, replayer: Replayer, kept: Kept, horizon_ms: int) -> None:
        self._replayer = replayer
        self._kept = kept
        self._horizon_ms = horizon_ms
        self._grades = {action.name: action.grade for action in replayer.domain.actions}
        self._open: OrderedDict[str, Question] = OrderedDict()
        self._of_user: dict[int, list[str]] = {}

    def take(self, topic: str, record: object, *, asked: bool) -> None:
        """One record in time order: a question is asked before it is applied, a label given after."""
        if isinstance(record, Impression) and asked and record.impression_id not in self._open:
            self._close(before_ms=record.ts_ms - self._horizon_ms)
            self._replayer.settle()
            query = self._replayer.list_query(record)
            self._ask(query, self._replayer.rows(query))
        self._replayer.feed(topic, record)  # type: ignore[arg-type]
        if isinstance(record, UserAction) and self._grades.get(record.action, 0) > 0:
            self._label(record)

    def finish(self) -> None:
        """The log ends: what is open is decided by what is known."""
        self._replayer.settle()
        self._close(before_ms=None)

    def _ask(self, query: Query, ready: Hydrated) -> None:
        user = hash64(query.user_id)
        items = ready.candidates.items
        grades = np.zeros(len(items), np.int32)
        self._open[query.query_id] = Question(query.query_id, user, query.now_ms, items, ready.matrix, grades)
        self._of_user.setdefault(user, []).append(query.query_id)

    def _label(self, action: UserAction) -> None:
        item, grade = hash64(action.item_id), self._grades[action.action]
        if action.impression_id is not None:
            if question := self._open.get(action.impression_id):
                question.label(item, grade)
            return
        for query_id in reversed(self._of_user.get(hash64(action.user_id), [])):
            question = self._open[query_id]
            if action.ts_ms - question.ts_ms <= self._horizon_ms and question.label(item, grade):
                return

    def _close(self, *, before_ms: int | None) -> None:
        while self._open:
            question = next(iter(self._open.values()))
            if before_ms is not None and question.ts_ms >= before_ms and len(self._open) < OPEN_LISTS_MAX:
                return
            del self._open[question.query_id]
            self._of_user[question.user].remove(question.query_id)
            if not self._of_user[question.user]:
                del self._of_user[question.user]
            if question.grades.any():
                self._kept.keep(question)
            else:
                self._kept.dropped[NO_LABEL] += 1


class Triggers:
    """Asks the live sources after each trigger action; the label is the next other item of the session."""

    def __init__(self, replayer: Replayer, kept: Kept, horizon_ms: int) -> None:
        self._replayer = replayer
        self._kept = kept
        self._gap_ms = max(horizon_ms, replayer.domain.session_gap_ms)
        self._actions = {action.name: action for action in replayer.domain.actions}
        self._open: OrderedDict[int, Question] = OrderedDict()

    def take(self, topic: str, record: object, *, asked: bool) -> None:
        """One record in time order: it first labels what is open, is then applied, and may ask anew."""
        action = self._actions.get(record.action) if isinstance(record, UserAction) else None
        if isinstance(record, UserAction) and action is not None and action.grade > 0:
            self._label(record, action.grade)
        self._replayer.feed(topic, record)  # type: ignore[arg-type]
        if isinstance(record, UserAction) and action is not None and action.trigger and asked:
            self._ask(record)

    def finish(self) -> None:
        """The log ends: sessions that are open have no next item."""
        self._replayer.settle()
        self._kept.dropped[LEFT] += len(self._open)
        self._open.clear()

    def _ask(self, record: UserAction) -> None:
        self._replayer.settle()
        query = self._replayer.query(record.event_id, record.user_id, record.ts_ms)
        ready = self._replayer.rows(query)
        items, user = ready.candidates.items, hash64(record.user_id)
        grades = np.zeros(len(items), np.int32)
        if self._open.pop(user, None) is not None:
            self._kept.dropped[LEFT] += 1
        self._open[user] = Question(
            query.query_id,
            user,
            query.now_ms,
            items,
            ready.matrix,
            grades,
            record.session_id,
            hash64(record.item_id),
        )
        while len(self._open) > OPEN_LISTS_MAX:
            self._open.popitem(last=False)
            self._kept.dropped[LEFT] += 1

    def _label(self, action: UserAction, grade: int) -> None:
        user, item = hash64(action.user_id), hash64(action.item_id)
        question = self._open.get(user)
        if question is None or question.current == item:
            return
        del self._open[user]
        if question.session_id != action.session_id or (
            action.session_id is None and action.ts_ms - question.ts_ms > self._gap_ms
        ):
            self._kept.dropped[LEFT] += 1
        elif question.label(item, grade):
            self._kept.keep(question)
        else:
            self._kept.dropped[LOST] += 1


def _thinned(question: Question, negatives_max: int) -> Question:
    """All labelled rows and `negatives_max` of the others, chosen by hash(question, item): reproducible, free of rank."""
    order = best_first(np.zeros(len(question.items)), question.items, query_id=question.query_id)
    negatives = order[question.grades[order] == 0][:negatives_max]
    kept = np.sort(np.concatenate([np.flatnonzero(question.grades > 0), negatives]))
    return Question(
        question.query_id,
        question.user,
        question.ts_ms,
        question.items[kept],
        question.matrix[kept],
        question.grades[kept],
    )
