import numpy as np
import pytest

from recommender.evaluation.judging import Jury, hit_rate_at, mrr_at, named, ndcg_at, recall_at

ITEMS = np.arange(1, 5, dtype=np.uint64)
SCORES = np.array([4.0, 3.0, 2.0, 1.0])


def figure(kind, relevant, *, items=ITEMS, scores=SCORES):
    jury = Jury({"it": kind}, k=2)
    jury.judge("system", "salt", items, scores, np.array(relevant, np.uint64))
    (found,) = jury.verdicts()
    return float(found.values["it"][0])


def test_what_a_system_does_not_name_counts_against_it():
    assert figure(recall_at(2), [1, 9]) == 0.5
    assert figure(named, [1, 9]) == 0.5
    assert figure(ndcg_at(2), [1, 9]) == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert figure(ndcg_at(2), [1]) == 1.0
    assert figure(mrr_at(20), [9]) == figure(hit_rate_at(20), [9]) == figure(ndcg_at(20), [9]) == 0.0


def test_only_the_first_k_places_count():
    assert figure(hit_rate_at(2), [3]) == 0.0
    assert figure(mrr_at(2), [3]) == 0.0
    assert figure(mrr_at(None), [3]) == pytest.approx(1 / 3)
    assert figure(recall_at(2), [2, 3]) == 0.5


def test_shown_is_the_head_of_the_list():
    jury = Jury({"hit": hit_rate_at(2)}, k=2)
    jury.judge("system", "salt", ITEMS, SCORES, ITEMS[:1])
    assert [shown.tolist() for shown in jury.verdicts()[0].shown] == [[1, 2]]


def test_a_system_that_names_nothing_misses():
    empty = np.empty(0, np.uint64)
    for kind in (recall_at(2), ndcg_at(2), mrr_at(2), hit_rate_at(2), named):
        assert figure(kind, [1], items=empty, scores=np.empty(0)) == 0.0


def test_many_queries_are_kept_joined_and_judged_alike(monkeypatch):
    def heard(parts_max):
        monkeypatch.setattr("recommender.evaluation.judging.PARTS_MAX", parts_max)
        jury, random = Jury({"mrr": mrr_at(None), "recall": recall_at(2)}, k=3), np.random.default_rng(5)
        for query in range(23):
            items = random.permutation(8).astype(np.uint64)
            jury.judge("one", f"q{query}", items, random.integers(0, 3, 8).astype(np.float64), items[:2])
        assert len(jury._standings["one"]) < parts_max
        return {name: values.tolist() for name, values in jury.verdicts()[0].values.items()}

    assert heard(4) == heard(100)
