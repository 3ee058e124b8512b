"""`evaluate rerank`: shown lists ordered again, by the state of their moment, against simple rules.

Replay in time order. The first 80 % of the questions train, the rest test: the state rolls on, the model is frozen. The
rows are those that the pipeline would have scored for a request with this list; no item is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from recommender.evaluation.baselines import list_rules
from recommender.evaluation.judging import Jury, mrr_at, ndcg_at
from recommender.evaluation.report import Judged
from recommender.model.labels import Stack, asked
from recommender.model.plan import Plan
from recommender.model.rows import TrainingRows
from recommender.query import Query
from recommender.ranker import Ranker
from recommender.recommend import Hydrated
from recommender.replay import Entry, Replayer

TRAIN_SHARE = 0.8
FIGURES = {"ndcg@10": ndcg_at(10), "mrr": mrr_at(None)}
RANKED = "Headrace"

Fit = Callable[[TrainingRows], Ranker]
Watch = Callable[[int, Query, Hydrated, np.ndarray], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an evaluation found: the systems, the ranker's first; users uint64[Q]; how many questions a ranker could
    learn from; what is no question, or teaches nothing, and why, with counts.
    """

    systems: list[Judged]
    users: np.ndarray
    trained_on: int
    ranker: Ranker
    dropped: Mapping[str, int]


def cut(questions: int) -> int:
    """How many questions train: the first 80 %, rounded."""
    return round(TRAIN_SHARE * questions)


def rerank(
    records: Iterable[Entry],
    plan: Plan,
    replayer: Replayer,
    *,
    fit: Fit,
    questions_max: int,
    progress: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Judgement:
    """Judges the lists of `plan` after its cut by a ranker that `fit` makes of the newest `questions_max` before it.

    `fit` gets the rows once, at the cut, and may know a ranker already. watch(question, query, rows, scores) sees every
    test question.
    """
    border, jury = cut(len(plan)), Jury(FIGURES, k=10)
    stack, ranker = Stack(len(replayer.catalog.names), plan), None
    trained_on, dropped = 0, plan.dropped
    rules = list_rules(replayer.domain)
    for question, query in asked(records, replayer, plan, progress=progress):
        if question < border - questions_max:
            continue
        ready = replayer.rows(query)
        if question < border:
            stack.add(question, query, ready)
            continue
        if ranker is None:
            rows = stack.rows()
            ranker, trained_on, dropped = fit(rows), len(rows), rows.dropped
        items = ready.candidates.items
        relevant, _ = plan.answer(question)
        scores = replayer.recommender.score(ready, ranker)
        if watch is not None:
            watch(question, query, ready, scores)
        jury.judge(RANKED, query.query_id, items, scores, relevant)
        for name, rule in rules.items():
            jury.judge(name, query.query_id, items, rule(query, items, replayer.view), relevant)
    if ranker is None:
        raise ValueError("no question to test: the log has too few lists with a label")
    return Judgement(jury.verdicts(), plan.users[border:], trained_on, ranker, dropped)
