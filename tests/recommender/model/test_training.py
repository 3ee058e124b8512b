import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from recommender.model.artefact import ModelRefused, load, read_manifest
from recommender.model.parameters import NotTrainable
from recommender.model.training import train
from recommender.model.training_settings import TrainingSettings

SMALL = TrainingSettings(trees_max=30, search=0)


def test_a_ranker_learns_what_makes_an_item_good(trained):
    assert trained.manifest.metrics["mrr"] > 0.7  # a list of ten in random order: .29
    assert trained.manifest.window.queries == 120
    assert trained.manifest.num_trees <= 30


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_rows_and_seed_give_the_same_bytes_whatever_the_threads(tmp_path, columns, trained, toy_rows, threads):
    settings = msgspec.structs.replace(SMALL, threads=threads)
    again = train(toy_rows(), columns, directory=tmp_path, version="v1", settings=settings)
    assert (again.path / "model.txt").read_bytes() == (trained.path / "model.txt").read_bytes()
    assert again.manifest.golden == trained.manifest.golden


def test_another_seed_gives_another_model(tmp_path, columns, trained, toy_rows):
    settings = msgspec.structs.replace(SMALL, seed=7)
    again = train(toy_rows(), columns, directory=tmp_path, version="v1", settings=settings)
    assert (again.path / "model.txt").read_bytes() != (trained.path / "model.txt").read_bytes()


def test_the_order_in_which_a_list_was_shown_changes_nothing(tmp_path, toy_rows, columns, trained):
    rows = toy_rows()
    random = np.random.default_rng(1)
    order = np.concatenate([start + random.permutation(10) for start in range(0, len(rows.items), 10)])
    shuffled = replace(rows, matrix=rows.matrix[order], grades=rows.grades[order], items=rows.items[order])
    again = train(shuffled, columns, directory=tmp_path, version="v1", settings=SMALL)
    assert (again.path / "model.txt").read_bytes() == (trained.path / "model.txt").read_bytes()
    assert again.manifest.metrics == trained.manifest.metrics


def test_a_saved_model_serves_the_scores_it_was_trained_to(trained, columns, toy_rows):
    ranker = load(trained.path, columns)
    assert ranker.version == "v1"
    assert ranker.score(toy_rows().matrix).shape == (1200,)


def test_the_manifest_tells_what_the_ranker_leans_on_and_what_was_tried(trained):
    manifest = json.loads((trained.path / "manifest.json").read_bytes())
    assert [column["feature"] for column in manifest["importances"]][:2] == ["clicks", "genre"]
    gains = [column["gain"] for column in manifest["importances"]]
    assert gains == sorted(gains, reverse=True)
    assert manifest["tried"][0]["ndcg"] == manifest["metrics"]["ndcg@10"]
    assert manifest["init"] is None


def test_a_version_is_grown_on_by_newer_lists_and_says_so(tmp_path, columns, toy_rows):
    rows = toy_rows(240)
    settings = TrainingSettings(trees_max=200, patience=5, leaves=7, search=0)
    old = train(rows.slice(0, 120), columns, directory=tmp_path, version="v1", settings=settings)
    asked = msgspec.structs.replace(settings, leaves=31, search=3)
    new = train(rows.slice(120, 240), columns, directory=tmp_path, version="v2", settings=asked, init="v1")
    manifest = read_manifest(new.path)
    assert manifest.init == "v1"
    assert manifest.num_leaves == 7  # the settings of the version that it grows on
    assert len(manifest.tried) == 1
    assert old.manifest.num_trees < manifest.num_trees <= 200
    assert (manifest.window.first_ts_ms, manifest.window.last_ts_ms, manifest.window.queries) == (0, 239_000, 240)
    assert manifest.metrics["ndcg@10"] > manifest.metrics["init ndcg@10"] - 0.05
    load(new.path, columns)


def test_a_version_is_never_grown_on_by_lists_that_it_knows(tmp_path, columns, toy_rows):
    train(toy_rows(), columns, directory=tmp_path, version="v1", settings=SMALL)
    with pytest.raises(NotTrainable, match="120 of 120 lists are not newer than the window of v1"):
        train(toy_rows(), columns, directory=tmp_path, version="v2", settings=SMALL, init="v1")


def test_a_version_at_the_cap_is_not_grown_on(tmp_path, columns, toy_rows):
    rows = toy_rows(240)
    settings = TrainingSettings(trees_max=1, search=0)
    train(rows.slice(0, 120), columns, directory=tmp_path, version="v1", settings=settings)
    with pytest.raises(NotTrainable, match="has 1 of at most 1 trees: train from nothing"):
        train(rows.slice(120, 240), columns, directory=tmp_path, version="v2", settings=settings, init="v1")


def test_a_version_of_other_features_is_not_grown_on(tmp_path, columns, toy_rows):
    rows = toy_rows(240)
    train(rows.slice(0, 120), columns, directory=tmp_path, version="v1", settings=SMALL)
    other = replace(columns, fingerprint="f" * 16)
    with pytest.raises(ModelRefused, match="features_hash 0123456789abcdef"):
        train(rows.slice(120, 240), other, directory=tmp_path, version="v2", settings=SMALL, init="v1")
    assert not (tmp_path / "v2").exists()


def test_a_picture_lies_beside_the_model(trained):
    pytest.importorskip("matplotlib", reason="the extra `train` is not installed")
    assert (trained.path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not any("report.png" in note for note in trained.notes)


def test_without_matplotlib_the_model_is_saved_and_the_missing_picture_is_said(
    tmp_path, columns, toy_rows, monkeypatch
):
    monkeypatch.setattr("recommender.model.training.can_draw", lambda: False)
    trained = train(toy_rows(), columns, directory=tmp_path, version="v1", settings=SMALL)
    assert trained.notes[-1].startswith("no report.png: matplotlib is not installed")
    assert sorted(path.name for path in trained.path.iterdir()) == ["manifest.json", "model.txt"]
