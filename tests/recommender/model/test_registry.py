import shutil
from functools import partial

import pytest

from recommender.model.artefact import load
from recommender.model.registry import Registry, versions


@pytest.fixture
def registry(tmp_path, columns):
    return Registry(tmp_path, partial(load, catalog=columns))


def test_without_a_model_the_cause_says_so(registry):
    assert registry.refresh() is False
    assert registry.current() is None
    assert registry.cause == "no model"


def test_the_newest_version_serves_and_a_half_written_one_is_not_a_version(registry, trained, tmp_path):
    for name in ("v1", "v2", ".v3.77"):
        shutil.copytree(trained.path, tmp_path / name)
    assert versions(tmp_path) == ["v2", "v1"]
    assert registry.refresh() is True
    assert registry.cause is None
    assert registry.refresh() is False


def test_a_refused_newest_falls_back_to_the_one_before_and_says_why(registry, trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "v1")
    shutil.copytree(trained.path, tmp_path / "v2")
    (tmp_path / "v2" / "model.txt").write_bytes(b"")
    assert registry.refresh() is True
    assert registry.current() is not None
    assert registry.cause == "model refused: v2: model.txt: sha256 differs from the manifest's: damaged or replaced"


def test_a_refused_newer_one_never_unseats_the_serving_ranker(registry, trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "v1")
    registry.refresh()
    serving = registry.current()
    shutil.copytree(trained.path, tmp_path / "v2")
    (tmp_path / "v2" / "manifest.json").unlink()
    assert registry.refresh() is False
    assert registry.current() is serving
    assert registry.cause.startswith("model refused: v2: manifest.json")


def test_a_refused_version_is_tried_again_only_when_it_changed(tmp_path, trained, columns):
    tried = []
    registry = Registry(tmp_path, lambda path: tried.append(path.name) or load(path, columns))
    shutil.copytree(trained.path, tmp_path / "v1")
    good = (tmp_path / "v1" / "model.txt").read_bytes()
    (tmp_path / "v1" / "model.txt").write_bytes(b"")
    registry.refresh()
    registry.refresh()
    assert tried == ["v1"]
    assert registry.current() is None
    assert "refused" in registry.cause
    (tmp_path / "v1" / "model.txt").write_bytes(good)
    assert registry.refresh() is True
    assert tried == ["v1", "v1"]
