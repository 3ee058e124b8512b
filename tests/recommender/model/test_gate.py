from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recommender.model.gate import judge, judge_alone
from recommender.model.rows import TrainingRows


@dataclass(frozen=True)
class ByColumn:
    """Scores a row by its first column, in part: `skill` 1 knows what is good, 0 nothing, -1 the contrary."""

    version: str
    skill: float

    def score(self, matrix, *, shown=0):
        return (self.skill * matrix[:, 0] + (1 - abs(self.skill)) * matrix[:, 1]).astype(np.float64)


def lists(queries=200, size=8, seed=3, users=60):
    """The greatest first column of a list is the item acted on; the second column knows nothing."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(queries * size, 2)).astype(np.float32)
    best = matrix[:, 0].reshape(queries, size)
    return TrainingRows(
        matrix,
        (best == best.max(axis=1, keepdims=True)).ravel().astype(np.int32),
        np.arange(len(matrix), dtype=np.uint64),
        np.full(queries, size, np.int64),
        np.arange(queries, dtype=np.int64) * 1000,
        (np.arange(queries) % users).astype(np.uint64),
        tuple(f"q{query}" for query in range(queries)),
    )


def verdict(mine, theirs, rows=None, **rest):
    limits = {"after_ms": -1, "latency_ms": 1.0, "budget_ms": 50.0, **rest}
    return judge(ByColumn("v2", mine), ByColumn("v1", theirs), rows or lists(), **limits)


def test_a_clearly_better_ranker_passes_with_its_figures():
    found = verdict(1.0, 0.5)
    assert found.passed
    assert (found.version, found.serving, found.queries) == ("v2", "v1", 200)
    assert found.ndcg == pytest.approx(1.0)
    assert found.lead.mean == pytest.approx(found.ndcg - found.serving_ndcg)
    assert 0 < found.lead.low < found.lead.mean < found.lead.high


@settings(max_examples=25)
@given(skill=st.floats(-1, 1), seed=st.integers(0, 100), queries=st.integers(100, 250))
def test_a_ranker_like_the_serving_one_never_passes(skill, seed, queries):
    found = verdict(skill, skill, lists(queries, seed=seed))
    assert not found.passed
    assert found.lead.mean == found.lead.low == found.lead.high == 0
    assert found.refused == ["not better than v1: NDCG@10 +0.0000, 95 % interval +0.0000 to +0.0000"]


@settings(max_examples=25)
@given(mine=st.floats(-1, 1), theirs=st.floats(-1, 1), seed=st.integers(0, 100))
def test_of_two_rankers_at_most_one_may_take_the_other_s_place(mine, theirs, seed):
    rows = lists(120, seed=seed)
    ahead, behind = verdict(mine, theirs, rows), verdict(theirs, mine, rows)
    assert not (ahead.passed and behind.passed)
    assert ahead.lead.mean == pytest.approx(-behind.lead.mean)
    assert ahead.passed == (ahead.lead.low > 0)


def test_a_worse_ranker_is_refused_with_its_interval():
    found = verdict(0.5, 1.0)
    assert found.lead.high < 0
    assert found.refused[0].startswith("not better than v1: NDCG@10 -0.")


def test_only_lists_newer_than_both_windows_count():
    rows = lists()
    found = verdict(1.0, 0.5, rows, after_ms=int(rows.ts_ms[79]))
    assert found.queries == 120
    assert found.passed


@pytest.mark.parametrize("queries", [0, 1, 99])
def test_too_few_lists_prove_nothing_however_great_the_lead(queries):
    rows = lists(200)
    found = verdict(1.0, -1.0, rows, after_ms=int(rows.ts_ms[199 - queries]))
    assert found.refused == [f"{queries} labelled lists after both training windows, at least 100 are needed"]
    assert found.lead is None


@pytest.mark.parametrize("users", [1, 2, 19])
def test_lists_of_few_users_prove_nothing_however_many_they_are(users):
    found = verdict(1.0, -1.0, lists(users=users))
    assert found.refused == [f"the 200 labelled lists are of {users} users, at least 20 are needed"]
    assert found.lead is None


def test_of_as_many_users_as_are_needed_a_ranker_no_better_seldom_passes():
    """Two rankers that know nothing: one in 40 by the interval's making, some more since users are few."""
    passed = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        rows = lists(120, seed=seed, users=20)
        rows.matrix[:] = random.normal(size=rows.matrix.shape)
        passed += verdict(0.0, 1.0, rows).passed
    assert passed <= 8


def test_lists_without_a_label_do_not_count():
    rows = lists()
    rows.grades[: 120 * 8] = 0
    found = verdict(1.0, 0.5, rows)
    assert found.refused == ["80 labelled lists after both training windows, at least 100 are needed"]


def test_a_better_ranker_over_the_latency_budget_is_refused():
    found = verdict(1.0, 0.5, latency_ms=50.1)
    assert found.refused == ["latency: 50.1 ms for 500 rows, the budget is 50 ms"]


def test_all_reasons_are_told():
    assert len(verdict(0.5, 1.0, latency_ms=99.0).refused) == 2


def test_where_nothing_serves_the_budget_decides_alone():
    assert judge_alone(ByColumn("v1", 0.0), latency_ms=49.9, budget_ms=50).passed
    assert not judge_alone(ByColumn("v1", 1.0), latency_ms=50.1, budget_ms=50).passed


def test_each_list_is_scored_by_itself_as_it_is_served():
    sizes = []

    class Watched(ByColumn):
        def score(self, matrix, *, shown=0):
            sizes.append((len(matrix), shown))
            return ByColumn.score(self, matrix, shown=shown)

    rows = lists(100)
    judge(Watched("v2", 1.0), ByColumn("v1", 0.5), rows, after_ms=-1, latency_ms=1.0, budget_ms=50.0)
    assert sizes == [(8, 10)] * 100


def test_the_same_lists_get_the_same_verdict():
    assert verdict(0.8, 0.7) == verdict(0.8, 0.7)
