"""Scores, with and without a cascade: a function of the row and the model, to the bit."""

import numpy as np
import pytest

from recommender.ranker import HURRIED_KEEP, Cascade, LightGBMRanker
from tests.recommender.boosters import make_booster, rows


class Trees:
    """Tree t adds column t: so a prefix of trees is a prefix of columns."""

    def __init__(self):
        self.rows = 0

    def predict(self, matrix, *, start_iteration, num_iteration, raw_score, num_threads):
        assert raw_score
        assert num_threads == 1
        self.rows += len(matrix) * num_iteration
        return matrix[:, start_iteration : start_iteration + num_iteration].sum(axis=1, dtype=np.float64)


@pytest.fixture
def matrix():
    return np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)


def ranker(cascade=None):
    return LightGBMRanker(Trees(), "v", "f", trees=4, cascade=cascade)


def test_a_cascade_gives_the_kept_rows_their_full_score_and_puts_the_rest_below(matrix):
    full, cascaded = ranker().score(matrix), ranker(Cascade(trees=1, keep=10)).score(matrix)
    kept = np.argsort(-matrix[:, 0], kind="stable")[:10]
    rest = np.setdiff1d(np.arange(40), kept)
    assert cascaded[kept] == pytest.approx(full[kept])
    assert cascaded[rest].max() < cascaded[kept].min()
    assert np.array_equal(np.argsort(-cascaded[rest], kind="stable"), np.argsort(-matrix[rest, 0], kind="stable"))


def test_a_cascade_looks_at_fewer_rows(matrix):
    thrifty = ranker(Cascade(trees=1, keep=10))
    thrifty.score(matrix)
    assert thrifty.booster.rows == 40 + 3 * 10


def test_what_is_shown_gets_its_full_score_whatever_the_cascade_keeps(matrix):
    full, cascaded = ranker().score(matrix), ranker(Cascade(trees=1, keep=5)).score(matrix, shown=30)
    assert (cascaded > -1000).sum() == 30
    assert cascaded[cascaded > -1000] == pytest.approx(full[cascaded > -1000])


def test_equal_rows_at_the_cut_are_kept_together(matrix):
    matrix[:, 0] = 1
    assert (ranker(Cascade(trees=1, keep=5)).score(matrix) > -1000).all()


def test_a_cascade_that_holds_every_tree_is_none(matrix):
    whole = ranker(Cascade(trees=4, keep=5))
    assert whole.cascade_trees == 0
    assert np.array_equal(whole.score(matrix), ranker().score(matrix))
    assert ranker(Cascade(trees=3, keep=5)).cascade_trees == 3


def test_an_empty_list_has_no_scores():
    assert ranker().score(np.empty((0, 4), np.float32)).shape == (0,)
    assert ranker(Cascade(trees=1, keep=5)).score(np.empty((0, 4), np.float32)).shape == (0,)


@pytest.fixture(scope="module")
def booster():
    return make_booster(6)


@pytest.fixture(scope="module")
def lists():
    return rows(6)


def lightgbm_ranker(booster, trees=None, keep=40):
    cascade = Cascade(trees, keep) if trees else None
    return LightGBMRanker(booster, "v", "f", trees=booster.num_trees(), cascade=cascade)


@pytest.mark.parametrize("trees", [None, 3, 7])
def test_a_score_depends_on_the_row_alone_whatever_list_it_stands_in(booster, lists, trees):
    serving = lightgbm_ranker(booster, trees)
    for size in (1, 7, 39, 40, 41, 300):
        scores = serving.score(lists[:size])
        again = lightgbm_ranker(booster, trees, keep=1).rescore(lists[:size], scores)
        assert scores.tobytes() == again.tobytes()
        one_by_one = [serving.rescore(lists[n : n + 1], scores[n : n + 1])[0] for n in range(size)]
        assert scores.tolist() == one_by_one


@pytest.mark.parametrize("trees", [None, 3, 7])
def test_a_hurried_score_is_recomputed_to_the_bit_by_a_ranker_with_its_cascade(booster, lists, trees):
    hurried = lightgbm_ranker(booster, trees).hurried(0.25)
    scores = hurried.score(lists, shown=20)
    assert (scores > -1_000).sum() == HURRIED_KEEP
    again = lightgbm_ranker(booster, hurried.cascade_trees, keep=0).rescore(lists, scores)
    assert scores.tobytes() == again.tobytes()


def test_to_hurry_never_costs_more_than_the_cascade_that_is_configured(booster):
    assert lightgbm_ranker(booster).hurried(0.25).cascade_trees == booster.num_trees() // 4
    assert lightgbm_ranker(booster, 2, keep=10).hurried(0.25).cascade == Cascade(2, 10)
    assert lightgbm_ranker(booster, 100, keep=10).hurried(0.001).cascade == Cascade(1, HURRIED_KEEP)
    assert LightGBMRanker(booster, "v", "f", trees=1).hurried(0.25).cascade_trees == 0


def test_contributions_and_base_add_up_to_the_full_score(booster, lists):
    serving = lightgbm_ranker(booster)
    parts = serving.contributions(lists)
    assert parts.shape == (300, lists.shape[1] + 1)
    assert parts.sum(axis=1) == pytest.approx(serving.score(lists), rel=1e-9, abs=1e-12)
    kept = lightgbm_ranker(booster, 3, keep=300).score(lists)
    assert parts.sum(axis=1) == pytest.approx(kept, rel=1e-9, abs=1e-12)
