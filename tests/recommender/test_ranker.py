import numpy as np
import pytest

from recommender.ranker import Cascade, LightGBMRanker


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


def test_a_short_list_is_scored_whole(matrix):
    assert np.array_equal(ranker(Cascade(trees=1, keep=40)).score(matrix), ranker().score(matrix))


def test_an_empty_list_has_no_scores():
    assert ranker().score(np.empty((0, 4), np.float32)).shape == (0,)
