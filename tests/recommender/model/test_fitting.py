from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from recommender.model.fitting import fit_ranker
from recommender.model.parameters import NotTrainable
from recommender.model.training_settings import TrainingSettings

SMALL = TrainingSettings(trees_max=12, search=0)


def test_a_fit_says_how_it_came_to_be(columns, toy_rows):
    fitted = fit_ranker(toy_rows(), columns, settings=TrainingSettings(trees_max=12, search=2))
    booster = lightgbm.Booster(model_str=fitted.model)
    assert booster.num_trees() == fitted.trees <= 12
    assert booster.feature_name() == list(columns.names)
    assert fitted.metrics["queries"] == 24  # the newest fifth
    assert fitted.metrics["ndcg@10"] == pytest.approx(fitted.rounds[fitted.trees - 1].validation)
    assert len(fitted.tried) == 3
    assert {column.feature for column in fitted.importances} <= set(columns.names)


def test_the_final_fit_sees_the_newest_lists_too(columns, toy_rows):
    rows = toy_rows()
    changed = replace(rows, grades=np.concatenate([rows.grades[:960], np.roll(rows.grades[960:], 1)]))
    settings = TrainingSettings(trees_max=1, search=0)  # one tree on both, so only what it saw differs
    models = [fit_ranker(each, columns, settings=settings).model for each in (rows, changed)]
    assert models[0] != models[1]


def test_lists_given_to_judge_by_teach_nothing(columns, toy_rows):
    judged = toy_rows(40, seed=9)
    one = fit_ranker(toy_rows(), columns, settings=replace_trees(5), held_out=judged)
    other = fit_ranker(toy_rows(), columns, settings=replace_trees(5), held_out=judged.slice(0, 39))
    assert (one.metrics["queries"], other.metrics["queries"]) == (40, 39)
    trees = min(one.trees, other.trees)
    scores = [
        lightgbm.Booster(model_str=each.model).predict(judged.matrix, num_iteration=trees, raw_score=True)
        for each in (one, other)
    ]
    assert np.array_equal(*scores)


def replace_trees(trees):
    return TrainingSettings(trees_max=trees, search=0)


def test_progress_is_told_after_every_tree_of_every_fit(columns, toy_rows):
    heard = []
    settings = TrainingSettings(trees_max=4, search=1)
    fitted = fit_ranker(toy_rows(), columns, settings=settings, progress=heard.append)
    said = [str(turn) for turn in heard]
    assert said[0].startswith("setting 1 of 2, tree 1: NDCG@10 0.")
    assert said[4].startswith("setting 2 of 2, tree 1: NDCG@10 0.")
    assert said[-1] == f"final fit, tree {fitted.trees} of {fitted.trees}"
    assert all(0 < turn.share <= 1 for turn in heard)


def test_a_fit_that_was_cut_off_by_its_room_says_so(columns, toy_rows):
    cut = fit_ranker(toy_rows(), columns, settings=TrainingSettings(trees_max=2, search=0))
    assert cut.notes == ("stopped at 2 trees while more might have gained: trees_max and budget_ms allow no more",)
    by_itself = fit_ranker(toy_rows(), columns, settings=TrainingSettings(trees_max=500, patience=3, search=0))
    assert by_itself.notes == ()


def test_rows_without_a_label_are_refused_in_plain_words(columns, toy_rows):
    rows = toy_rows()
    unlabelled = replace(rows, grades=np.zeros_like(rows.grades), dropped={"whose next item no source found": 7})
    with pytest.raises(NotTrainable, match=r"no list with a label.*7 whose next item no source found"):
        fit_ranker(unlabelled, columns, settings=SMALL)


def test_too_few_lists_are_refused(columns, toy_rows):
    with pytest.raises(NotTrainable, match="at least 20"):
        fit_ranker(toy_rows(queries=19), columns, settings=SMALL)


def test_lists_out_of_time_order_are_refused(columns, toy_rows):
    rows = toy_rows()
    with pytest.raises(NotTrainable, match="time order"):
        fit_ranker(replace(rows, ts_ms=rows.ts_ms[::-1]), columns, settings=SMALL)


def test_debiasing_is_refused_where_nobody_knows_what_stood_where(columns, toy_rows):
    settings = TrainingSettings(trees_max=5, search=0, position_bias=True)
    with pytest.raises(NotTrainable, match="position_bias: these rows do not know where they were shown"):
        fit_ranker(toy_rows(), columns, settings=settings)
    places = np.tile(np.arange(10, dtype=np.int32), 120)
    fitted = fit_ranker(replace(toy_rows(), positions=places), columns, settings=settings)
    assert fitted.metrics["ndcg@10"] > 0.5
