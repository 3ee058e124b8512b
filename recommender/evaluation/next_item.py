"""`evaluate next-item`: what a user acts on next, or puts into the next basket, against simple rules.

Two clocks. Rolling: one log, the state goes on through the test part. Frozen: neighbours, counts and model stay as they
are at the end of the training log, and only the session's own events are added to its user's log. Filters are off; only
the item just acted on is no candidate; an answer that nobody names is a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from features.facts import Fact
from features.fold import fold, rules_of
from features.ids import hash64
from features.scene import Hashes
from features.schema import USER_ACTIONS, UserAction
from features.store.port import Part
from recommender.evaluation.baselines import Moment, Popularity, followed, most_often, newest_first
from recommender.evaluation.judging import Figure, Jury, hit_rate_at, mrr_at, named, ndcg_at, recall_at
from recommender.evaluation.rerank import RANKED, Judgement
from recommender.model.labels import Stack, asked
from recommender.model.log_columns import ActionColumns, Ints, LogColumns
from recommender.model.plan import Kind, Plan, positive, sessions
from recommender.model.rows import TrainingRows
from recommender.query import Found, Query
from recommender.ranker import Ranker
from recommender.recommend import Hydrated
from recommender.replay import Entry, Replayer

K = 20
FIGURES: dict[Kind, dict[str, Figure]] = {
    "next": {"hr@20": hit_rate_at(K), "mrr@20": mrr_at(K), "named": named},
    "baskets": {"hr@20": hit_rate_at(K), "recall@20": recall_at(K), "ndcg@20": ndcg_at(K), "named": named},
}
CANDIDATES = "candidates without a ranker"
_ALONE = Part(USER_ACTIONS, 0)

Fit = Callable[[TrainingRows, TrainingRows | None], Ranker]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Log:
    """A log to evaluate on: its records (as often as wanted), its columns, its questions."""

    records: Iterable[Entry]
    columns: LogColumns
    plan: Plan


class OwnPast:
    """Every user's positive items along one log."""

    def __init__(self, actions: ActionColumns) -> None:
        order = np.lexsort((actions.at, actions.user))
        self._users, self._at, self._items = actions.user[order], actions.at[order], actions.item[order]

    def before(self, user: int, at: int | None) -> Hashes:
        """uint64[n]: the user's items of records before the ordinal `at` (None: all of them), oldest first."""
        first, last = np.searchsorted(self._users, [np.uint64(user)], side="left")[0], 0
        last = int(np.searchsorted(self._users, np.uint64(user), side="right"))
        if at is not None:
            last = int(first) + int(np.searchsorted(self._at[first:last], at, side="left"))
        return self._items[first:last]


@dataclass(slots=True)
class Court:
    """One evaluation under way: the path, the jury, the rules and what they may know."""

    replayer: Replayer
    jury: Jury
    popularity: Popularity
    new_to_user: bool

    def ready(self, query: Query, own: Hashes) -> tuple[list[Found], Hydrated]:
        """What each source knows, and the candidates with their rows."""
        path = self.replayer.recommender
        found, _ = path.find([query])
        pool = path.filter([query], path.merge([query], found))[0]
        if self.new_to_user:
            pool = pool.only(~np.isin(pool.items, own))
        return found[0], path.hydrate([query], [pool])[0]

    def judge(self, query: Query, own: Hashes, *, seen: int, relevant: Hashes, ranker: Ranker) -> None:
        """All systems on one question."""
        path = self.replayer.recommender
        found, ready = self.ready(query, own)
        items = ready.candidates.items
        self.jury.judge(RANKED, query.query_id, items, path.score(ready, ranker), relevant)
        self.jury.judge(CANDIDATES, query.query_id, items, path.score(ready, None), relevant)
        left_out = own if self.new_to_user else query.current
        for name, each in self._rules(query, own, found, seen=seen):
            kept = ~np.isin(each.items, left_out)
            scores = each.scores[kept].astype(np.float64)
            self.jury.judge(name, query.query_id, each.items[kept], scores, relevant)

    def _rules(self, query: Query, own: Hashes, found: Sequence[Found], *, seen: int) -> Iterator[tuple[str, Found]]:
        moment = Moment(query, own, seen)
        decayed = self.popularity.decayed(moment)
        yield "popularity", self.popularity.plain(moment)
        yield "decayed popularity", decayed
        yield "last item + decayed popularity", followed(moment, self.replayer.view, decayed)
        yield "own history, newest first", newest_first(moment)
        yield "own history, most often", most_often(moment)
        for source, each in zip(self.replayer.recommender.sources, found, strict=True):
            if source.name in ("co_visited", "session_neighbours"):
                yield f"{source.name} alone", each


def rolling(
    log: Log, replayer: Replayer, *, border: int, fit: Fit, questions_max: int, new_to_user: bool = False,
    without: Hashes | None = None, progress: Progress | None = None,
) -> Judgement:  # fmt: skip
    """Judges the questions from `border` on by a ranker learned from the newest `questions_max` before it."""
    yes, _ = positive(log.columns.actions, replayer.domain, without)
    court = Court(replayer, Jury(FIGURES[log.plan.kind], K), Popularity(yes), new_to_user)
    past, stack, ranker = OwnPast(yes), Stack(len(replayer.catalog.names), log.plan), None
    trained_on, dropped = 0, log.plan.dropped
    for question, query in asked(log.records, replayer, log.plan, progress=progress):
        if question < border - questions_max:
            continue
        at = int(log.plan.at[question]) + (log.plan.kind == "next")
        own = past.before(hash64(query.user_id), at)
        if question < border:
            stack.add(question, query, court.ready(query, own)[1])
            continue
        if ranker is None:
            rows = stack.rows()
            ranker, trained_on, dropped = fit(rows, None), len(rows), rows.dropped
        seen = int(np.searchsorted(yes.at, at))
        court.judge(query, own, seen=seen, relevant=log.plan.answer(question)[0], ranker=ranker)
    if ranker is None:
        raise ValueError("no question to test: the log has too few sessions")
    return Judgement(court.jury.verdicts(), log.plan.users[border:], trained_on, ranker, dropped)


def frozen(
    train: Log, test: Log, replayer: Replayer, *, fit: Fit, questions_max: int, valid: Log | None = None,
    new_to_user: bool = False, without: Hashes | None = None, progress: Progress | None = None,
) -> Judgement:  # fmt: skip
    """Judges all questions of `test` by the state and the ranker that `train` left; `valid` chooses, where given.

    Of `train` and of `valid` the newest `questions_max` count.
    """
    yes, _ = positive(train.columns.actions, replayer.domain, without)
    court = Court(replayer, Jury(FIGURES[test.plan.kind], K), Popularity(yes), new_to_user)
    past, stack = OwnPast(yes), Stack(len(replayer.catalog.names), train.plan)
    first = len(train.plan) - questions_max
    for question, query in asked(train.records, replayer, train.plan, progress=progress):
        if question >= first:
            own = past.before(hash64(query.user_id), int(train.plan.at[question]) + (train.plan.kind == "next"))
            stack.add(question, query, court.ready(query, own)[1])
    held_out = None
    if valid is not None:
        checked = Stack(len(replayer.catalog.names), valid.plan)
        for question, query, own in _sessions_alone(valid, replayer, past):
            if question >= len(valid.plan) - questions_max:
                checked.add(question, query, court.ready(query, own)[1])
        held_out = checked.rows()
    rows = stack.rows()
    ranker = fit(rows, held_out)
    for question, query, own in _sessions_alone(test, replayer, past):
        court.judge(query, own, seen=len(yes), relevant=test.plan.answer(question)[0], ranker=ranker)
    if not len(test.plan):
        raise ValueError("no question to test: no session has a second event")
    return Judgement(court.jury.verdicts(), test.plan.users, len(rows), ranker, rows.dropped)


def _sessions_alone(log: Log, replayer: Replayer, past: OwnPast) -> Iterator[tuple[int, Query, Hashes]]:
    """(question, query, own items) along a log that changes nothing but each session's own copy of its user's log."""
    actions, plan = log.columns.actions, log.plan
    of = sessions(actions, gap_ms=replayer.domain.session_gap_ms)
    session_at, last_at = dict(zip(actions.at.tolist(), of.tolist(), strict=True)), _last(of, actions.at)
    rules = rules_of(replayer.domain, replayer.layout)
    places = {int(at): question for question, at in enumerate(plan.at)}
    logs: dict[int, tuple[bytes, list[int]]] = {}
    for ordinal, (_, record) in enumerate(log.records):
        session = session_at.get(ordinal)
        if session is None or not isinstance(record, UserAction):
            continue
        user = hash64(record.user_id)
        blob, mine = logs.get(session) or (replayer.store.read_users([user])[0], [])
        question = places.get(ordinal)
        if question is not None and plan.kind == "baskets":
            yield question, _alone(record, blob, replayer, None), past.before(user, None)
        blob = fold(blob, [Fact(ordinal, record)], part=_ALONE, mark=-1, rules=rules).blob
        mine = [*mine, hash64(record.item_id)]
        if question is not None and plan.kind == "next":
            own = np.concatenate([past.before(user, None), np.array(mine, np.uint64)])
            yield question, _alone(record, blob, replayer, hash64(record.item_id)), own
        logs[session] = blob, mine
        if last_at[session] == ordinal:
            del logs[session]


def _alone(record: UserAction, blob: bytes, replayer: Replayer, acted_on: int | None) -> Query:
    user = replayer.view.history(blob, now_ms=record.ts_ms)
    return Query(record.event_id, record.user_id, record.ts_ms, user, replayer.k, acted_on=acted_on)


def _last(of: Hashes, at: Ints) -> dict[int, int]:
    """{session: the ordinal of its last action}."""
    return dict(zip(of.tolist(), at.tolist(), strict=True))
