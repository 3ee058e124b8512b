"""The gate: may a candidate take the place of the ranker that serves? Judged on lists that neither has learned from.

NDCG@10 of both on the same lists, ranked as they would be served; the candidate passes only if the 95 % interval of its
lead, by user, lies above 0, and if it scores within the latency budget.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from recommender.evaluation.intervals import Estimate, paired
from recommender.evaluation.metrics import ndcg, standings
from recommender.model.artefact import over_budget
from recommender.model.rows import TrainingRows
from recommender.ranker import Ranker

QUERIES_MIN = 100
USERS_MIN = 20  # whole users are drawn: of two, a ranker no better passes one time in four (measured), of 20 one in 40
K = 10


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says. `refused`: the reasons, empty for a candidate that passes.

    latency_ms: of the candidate, for `artefact.BUDGET_ROWS` rows. The other figures are there after a comparison:
    `ndcg` of the candidate and of the serving ranker `serving`, and the candidate's `lead`, on so many `queries`.
    """

    version: str
    latency_ms: float
    refused: list[str]
    serving: str | None = None
    queries: int | None = None
    ndcg: float | None = None
    serving_ndcg: float | None = None
    lead: Estimate | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate may serve."""
        return not self.refused


def judge_alone(candidate: Ranker, *, latency_ms: float, budget_ms: float) -> Verdict:
    """The gate where nothing serves yet: the latency alone."""
    slow = [over_budget(latency_ms, budget_ms)] if latency_ms > budget_ms else []
    return Verdict(version=candidate.version, latency_ms=latency_ms, refused=slow)


def judge(
    candidate: Ranker,
    serving: Ranker,
    rows: TrainingRows,
    *,
    after_ms: int,
    latency_ms: float,
    budget_ms: float,
    queries_min: int = QUERIES_MIN,
    seed: int = 0,
) -> Verdict:
    """The gate against the ranker that serves, on the labelled lists of `rows` that are newer than both windows
    (`after_ms`).

    Fewer than `queries_min` of them, or of fewer than `USERS_MIN` users, prove nothing. `seed` is the bootstrap's.
    """
    alone = judge_alone(candidate, latency_ms=latency_ms, budget_ms=budget_ms)
    rows = rows.slice(int(np.searchsorted(rows.ts_ms, after_ms, side="right")), len(rows))
    labelled = _labelled(rows)
    queries = int(labelled.sum())
    found = msgspec.structs.replace(alone, serving=serving.version, queries=queries)
    if queries < queries_min:
        few = f"{queries} labelled lists after both training windows, at least {queries_min} are needed"
        return msgspec.structs.replace(found, refused=[*alone.refused, few])
    if (users := len(np.unique(rows.users[labelled]))) < USERS_MIN:
        few = f"the {queries} labelled lists are of {users} users, at least {USERS_MIN} are needed"
        return msgspec.structs.replace(found, refused=[*alone.refused, few])
    mine, theirs = _ndcg(candidate, rows)[labelled], _ndcg(serving, rows)[labelled]
    lead = paired(mine, theirs, users=rows.users[labelled], seed=seed)
    return msgspec.structs.replace(
        found,
        ndcg=float(mine.mean()),
        serving_ndcg=float(theirs.mean()),
        lead=lead,
        refused=[*alone.refused, *_not_better(lead, serving.version)],
    )


def _not_better(lead: Estimate, serving: str) -> list[str]:
    if lead.low is not None and lead.low > 0:
        return []
    return [f"not better than {serving}: NDCG@{K} {lead.mean:+.4f}, 95 % interval {lead.low:+.4f} to {lead.high:+.4f}"]


def _labelled(rows: TrainingRows) -> NDArray[np.bool_]:
    """bool[Q]: whether a list holds anything that was acted on; for the others every ranking is as good."""
    of = np.repeat(np.arange(len(rows)), rows.groups)
    return np.bincount(of, weights=rows.grades > 0, minlength=len(rows)) > 0


def _ndcg(ranker: Ranker, rows: TrainingRows) -> NDArray[np.float64]:
    """float64[Q]: each list scored by itself, as it is served: a cascade looks at one list at a time."""
    ends = np.cumsum(rows.groups).tolist()
    lists = [rows.matrix[first:last] for first, last in zip([0, *ends], ends, strict=False)]
    scores = np.concatenate([ranker.score(np.ascontiguousarray(each), shown=K) for each in lists])
    return ndcg(standings(scores, rows.grades, rows.groups), k=K)
