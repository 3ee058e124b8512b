from dataclasses import replace

import numpy as np
import pytest

from recommender.model.artefact import load
from recommender.model.rows import TrainingRows
from recommender.model.training import NotTrainable, train


def test_a_ranker_learns_what_makes_an_item_good(trained):
    assert trained.manifest.metrics["mrr"] > 0.7  # a list of ten in random order: .29
    assert trained.manifest.window.queries == 120
    assert trained.manifest.num_trees <= 30


def test_the_same_rows_give_the_same_bytes_whatever_the_threads(tmp_path, columns, trained, toy_rows):
    again = train(toy_rows(), columns, directory=tmp_path, version="v1", trees_max=30, num_threads=2)
    assert again.manifest.golden == trained.manifest.golden


def test_the_order_in_which_a_list_was_shown_changes_nothing(tmp_path, toy_rows, columns, trained):
    rows = toy_rows()
    random = np.random.default_rng(1)
    order = np.concatenate([start + random.permutation(10) for start in range(0, len(rows.items), 10)])
    shuffled = replace(rows, matrix=rows.matrix[order], grades=rows.grades[order], items=rows.items[order])
    again = train(shuffled, columns, directory=tmp_path, version="v1", trees_max=30)
    assert (again.path / "model.txt").read_bytes() == (trained.path / "model.txt").read_bytes()
    assert again.manifest.metrics == trained.manifest.metrics


def test_progress_is_reported_after_each_round(tmp_path, columns, toy_rows):
    heard = []
    train(
        toy_rows(),
        columns,
        directory=tmp_path,
        version="v",
        trees_max=5,
        progress=lambda n, score: heard.append((n, score)),
    )
    assert [n for n, _ in heard] == [1, 2, 3, 4, 5]
    assert all(0 <= score <= 1 for _, score in heard)


def test_a_saved_model_serves_the_scores_it_was_trained_to(trained, columns, toy_rows):
    ranker = load(trained.path, columns)
    assert ranker.version == "v1"
    assert ranker.score(toy_rows().matrix).shape == (1200,)


def test_rows_without_a_label_are_refused_in_plain_words(tmp_path, columns, toy_rows):
    rows = toy_rows()
    unlabelled = TrainingRows(
        rows.matrix,
        np.zeros_like(rows.grades),
        rows.items,
        rows.groups,
        rows.ts_ms,
        rows.users,
        rows.query_ids,
        {"whose next item no source found": 7},
    )
    with pytest.raises(NotTrainable, match=r"no list with a label.*7 whose next item no source found"):
        train(unlabelled, columns, directory=tmp_path, version="v")


def test_too_few_lists_are_refused(tmp_path, columns, toy_rows):
    with pytest.raises(NotTrainable, match="at least 20"):
        train(toy_rows(queries=19), columns, directory=tmp_path, version="v")


def test_lists_out_of_time_order_are_refused(tmp_path, columns, toy_rows):
    rows = toy_rows()
    turned = TrainingRows(
        rows.matrix, rows.grades, rows.items, rows.groups, rows.ts_ms[::-1], rows.users, rows.query_ids
    )
    with pytest.raises(NotTrainable, match="time order"):
        train(turned, columns, directory=tmp_path, version="v")
