"""One fit: what it stops by, and that serving sees the columns as training did."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from recommender.evaluation.metrics import ndcg, standings
from recommender.model.boosting import Binned, ndcg_at_10, predict, refit, text_of
from recommender.model.parameters import parameters_of
from recommender.model.rows import TrainingRows
from recommender.model.training_settings import TrainingSettings

CODES = 256


def coded_rows(columns, queries=400, size=20, seed=3) -> TrainingRows:
    """Lists in which nothing but the code of the genre makes an item good; common codes and rare ones."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(queries * size, len(columns.names))).astype(np.float32)
    codes = np.minimum((random.pareto(0.7, len(matrix)) * 3).astype(np.int64), CODES - 1)
    matrix[:CODES, 2] = np.arange(CODES)
    matrix[CODES:, 2] = codes[CODES:]
    worth = (random.permutation(CODES) / CODES)[matrix[:, 2].astype(np.int64)] + random.normal(size=len(matrix)) * 0.2
    best = worth.reshape(queries, size).argmax(axis=1) + np.arange(queries) * size
    grades = np.zeros(len(matrix), np.int32)
    grades[best] = 1
    return TrainingRows(
        matrix,
        grades,
        np.arange(len(matrix), dtype=np.uint64),
        np.full(queries, size, np.int64),
        np.arange(queries, dtype=np.int64),
        np.zeros(queries, np.uint64),
        tuple(map(str, range(queries))),
    )


@pytest.fixture(scope="module")
def coded(columns):
    """(rows, the booster in training, the booster as served)."""
    rows = coded_rows(columns)
    parameters = parameters_of(TrainingSettings(leaves=15), columns)
    booster = refit(rows, columns, {**parameters, "min_data_in_leaf": 5, "feature_fraction": 1.0}, trees=30)
    return rows, booster, lightgbm.Booster(model_str=text_of(booster, 30))


def test_every_code_scores_in_serving_what_it_scored_in_training(columns):
    """Where LightGBM bags by query it does not: 4.7.0 adds a tree's scores to wrong rows."""
    rows = coded_rows(columns)
    parameters = {**parameters_of(TrainingSettings(leaves=15), columns), "min_data_in_leaf": 5, "feature_fraction": 1.0}
    heard = []
    dataset = lightgbm.Dataset(
        rows.matrix, rows.grades, group=rows.groups, categorical_feature=[2], params=parameters, free_raw_data=False
    )
    booster = lightgbm.train(
        parameters,
        dataset,
        num_boost_round=30,
        valid_sets=[dataset],
        feval=lambda scores, _: heard.append(scores.copy()) or ("none", 0.0, True),
    )
    served = predict(lightgbm.Booster(model_str=text_of(booster, 30)), rows, 30)
    assert set(rows.matrix[:, 2].astype(int)) == set(range(CODES))
    assert np.array_equal(served, heard[-1])


def test_codes_that_training_never_saw_give_finite_scores(coded):
    rows, _, served = coded
    strange = np.repeat(rows.matrix[:1], 7, axis=0)
    strange[:, 2] = [256, 9_999, -1, np.nan, np.inf, 1e30, 2.0**40]
    assert np.isfinite(served.predict(strange, raw_score=True, num_threads=1)).all()


def test_the_order_of_rows_changes_no_score(coded):
    rows, booster, _ = coded
    order = np.random.default_rng(1).permutation(len(rows.items))
    turned = replace(rows, matrix=rows.matrix[order])
    assert np.array_equal(predict(booster, turned, 30), predict(booster, rows, 30)[order])


def test_a_fit_learns_codes(coded):
    rows, booster, _ = coded
    assert ndcg_at_10(predict(booster, rows, 30), rows).mean() > 0.6  # in random order: .22
    assert booster.feature_importance("gain").argmax() == 2


def test_each_round_is_judged_by_the_metric_that_is_fair_to_ties(columns, toy_rows):
    rows = toy_rows(300)
    learned, judged = rows.slice(0, 200), rows.slice(200, 300)
    parameters = parameters_of(TrainingSettings(leaves=7), columns)
    heard = []
    grown = Binned(learned, judged, columns, parameters).grow(parameters, trees_max=12, patience=12, heard=heard.append)
    assert [found.tree for found in heard] == list(range(1, 13))
    assert tuple(heard) == grown.rounds
    assert grown.trees > 3
    for found in heard[: grown.trees]:  # the booster keeps no more than the best
        lists = standings(predict(grown.booster, judged, found.tree), judged.grades, judged.groups)
        assert found.validation == pytest.approx(ndcg(lists, k=10).mean(), abs=1e-12)
        newest = learned.slice(100, 200)
        assert found.train == pytest.approx(
            ndcg_at_10(predict(grown.booster, newest, found.tree), newest).mean(), abs=1e-12
        )
    assert grown.ndcg.mean() == pytest.approx(heard[grown.trees - 1].validation, abs=1e-12)


def test_a_fit_stops_soon_after_held_out_lists_gain_no_more(columns, toy_rows):
    rows = toy_rows(200)
    random = np.random.default_rng(2)
    noise = random.permuted(rows.grades.reshape(-1, 10), axis=1).ravel()  # nothing to learn
    rows = replace(rows, grades=noise)
    parameters = {**parameters_of(TrainingSettings(leaves=7), columns), "min_data_in_leaf": 5}
    grown = Binned(rows.slice(0, 150), rows.slice(150, 200), columns, parameters).grow(
        parameters, trees_max=500, patience=5
    )
    assert len(grown.rounds) < 200
    assert grown.trees <= len(grown.rounds) - 5


def test_a_constrained_score_never_falls_as_its_column_grows(columns, toy_rows):
    rows = toy_rows(200)
    rows = replace(rows, grades=rows.grades[::-1].copy())  # labels that say the opposite, here and there
    parameters = {**parameters_of(TrainingSettings(leaves=15, monotone={"click*": 1}), columns), "min_data_in_leaf": 5}
    booster = refit(rows, columns, parameters, trees=30)
    steps = np.linspace(-3, 3, 50, dtype=np.float32)
    for row in rows.matrix[:20]:
        line = np.repeat(row[None], len(steps), axis=0)
        line[:, 0] = steps
        assert (np.diff(booster.predict(line, raw_score=True)) >= 0).all()


def test_debiased_by_position_a_ranker_is_another_one_and_stays_deterministic(columns, toy_rows):
    rows = replace(toy_rows(200), positions=np.tile(np.arange(10, dtype=np.int32), 200))
    plain = TrainingSettings(leaves=7)
    biased = TrainingSettings(leaves=7, position_bias=True)
    texts = [
        text_of(refit(rows, columns, parameters_of(each, columns), trees=10), 10) for each in (plain, biased, biased)
    ]
    assert texts[1] == texts[2]
    assert texts[0].partition("end of trees")[0] != texts[1].partition("end of trees")[0]
