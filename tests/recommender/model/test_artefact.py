import shutil
import sys
from dataclasses import replace
from hashlib import sha256
from itertools import count

import msgspec
import numpy as np
import pytest

from recommender.model.artefact import ModelRefused, load, read_manifest, save
from recommender.model.manifest import Manifest


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the trained model, to be damaged."""
    return shutil.copytree(trained.path, tmp_path / "v1")


def damage(model, change, *, signed=True):
    """Rewrites model.txt; `signed` mends the manifest's sha256, so that the checks behind it are tried too."""
    raw = change((model / "model.txt").read_bytes())
    (model / "model.txt").write_bytes(raw)
    if signed:
        edit(model, sha256=sha256(raw).hexdigest())


def edit(model, **fields):
    manifest = msgspec.json.decode((model / "manifest.json").read_bytes(), type=Manifest)
    (model / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **fields)))


def without_a_tree(raw):
    start = raw.index(b"Tree=1\n")
    return raw[:start] + raw[raw.index(b"Tree=2\n") :]


def one_digit_changed(raw):
    at = raw.index(b"leaf_value=") + len(b"leaf_value=-0.0")
    return raw[:at] + (b"7" if raw[at : at + 1] != b"7" else b"3") + raw[at + 1 :]


def swapped_names(raw):
    return raw.replace(b"feature_names=clicks price", b"feature_names=price clicks")


def in_a_circle(raw):
    """The first tree's last node leads back to its first."""
    start = raw.index(b"left_child=")
    line = raw[start : raw.index(b"\n", start)]
    children = line.split()
    children[-1] = b"0" if len(children) > 1 else b"left_child=0"
    turned = b" ".join(children)
    return raw.replace(line, turned + b" " * (len(line) - len(turned)), 1)


def a_column_beyond_the_row(raw):
    at = raw.index(b"split_feature=") + len(b"split_feature=")
    return raw[:at] + b"9" + raw[at + 1 :]


def more_leaves_than_memory(raw):
    """The number of digits stays, so that the tree lies where the header says; so few give the others away."""
    start = raw.index(b"num_leaves=")
    end = raw.index(b"\n", start)
    tail = raw.index(b"shrinkage=")
    many = b"num_leaves=" + b"9" * 12
    grown = raw[:start] + many + raw[end:tail] + raw[tail:]
    sizes = raw[raw.index(b"tree_sizes=") : raw.index(b"\n", raw.index(b"tree_sizes="))]
    first = int(sizes.split(b"=")[1].split()[0])
    longer = first + len(many) - (end - start)
    return grown.replace(sizes, sizes.replace(b"=%d " % first, b"=%d " % longer, 1), 1)


DAMAGES = {
    "a column beyond the row": a_column_beyond_the_row,
    "more leaves than memory": more_leaves_than_memory,
    "nodes in a circle": in_a_circle,
    "cut at half": lambda raw: raw[: len(raw) // 2],
    "cut at 97 %": lambda raw: raw[: len(raw) * 97 // 100],
    "cut inside the last tree": lambda raw: raw[: raw.rindex(b"leaf_weight=")],
    "a tree removed": without_a_tree,
    "windows line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "one digit changed": one_digit_changed,
    "empty": lambda raw: b"",
    "html": lambda raw: b"<html><body>502 Bad Gateway</body></html>",
    "names swapped": swapped_names,
    "null bytes": lambda raw: bytes(len(raw)),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_refused_by_its_hash(model, columns, change):
    damage(model, change, signed=False)
    with pytest.raises(ModelRefused, match="sha256"):
        load(model, columns)


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_with_a_true_hash_is_refused_all_the_same_and_the_process_lives(model, columns, change):
    damage(model, change)
    with pytest.raises(ModelRefused):
        load(model, columns)


def test_a_changed_leaf_is_seen_by_the_golden_rows(model, columns):
    damage(model, one_digit_changed)
    with pytest.raises(ModelRefused, match="golden rows"):
        load(model, columns)


@pytest.mark.parametrize(
    ("file", "content"),
    [("manifest.json", None), ("manifest.json", b"{"), ("manifest.json", b"{}"), ("model.txt", None)],
    ids=["no manifest", "half a manifest", "empty manifest", "no model"],
)
def test_a_missing_or_broken_file_is_named(model, columns, file, content):
    (model / file).unlink()
    if content is not None:
        (model / file).write_bytes(content)
    with pytest.raises(ModelRefused, match=file):
        load(model, columns)


def test_another_catalogue_is_refused_by_its_fingerprint(model, columns):
    with pytest.raises(ModelRefused, match="features_hash 0123456789abcdef"):
        load(model, replace(columns, fingerprint="f" * 16))


def test_swapped_feature_names_are_refused_by_the_column_that_differs(model, columns):
    with pytest.raises(ModelRefused, match="column 0 is clicks, here it is price"):
        load(model, replace(columns, names=("price", "clicks", "genre", "noise")))


def test_other_categorical_columns_are_refused(model, columns):
    with pytest.raises(ModelRefused, match="categorical"):
        load(model, replace(columns, categorical=()))


def test_too_few_or_unreadable_golden_rows_are_refused(model, columns):
    golden = read_manifest(model).golden
    edit(model, golden=msgspec.structs.replace(golden, rows="AAAA", scores=golden.scores))
    with pytest.raises(ModelRefused, match="golden rows"):
        load(model, columns)
    edit(model, golden=msgspec.structs.replace(golden, rows="", scores=[]))
    with pytest.raises(ModelRefused, match="at least 64"):
        load(model, columns)


def test_a_probe_that_does_not_answer_is_a_refusal(model, columns):
    with pytest.raises(ModelRefused, match="no answer within"):
        load(model, columns, timeout_s=0.001)


def test_the_probe_is_told_no_secret(model, columns, tmp_path, monkeypatch):
    python, told = tmp_path / "python", tmp_path / "told"
    python.write_text(f'#!/bin/sh\nenv > {told}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("HEADRACE_REDIS_PASSWORD", "hush-hush")
    load(model, columns)
    assert "OMP_NUM_THREADS=1" in told.read_text()
    assert "hush-hush" not in told.read_text()


def test_a_model_over_its_latency_budget_is_refused(model, columns):
    ticks = count()
    with pytest.raises(ModelRefused, match=r"latency: 1000\.0 ms for 500 rows, the budget is 5 ms"):
        load(model, columns, clock_s=lambda: float(next(ticks)), budget_ms=5)


def test_a_version_is_never_written_twice(trained):
    with pytest.raises(FileExistsError):
        save(trained.path, "tree", trained.manifest)


def test_a_good_model_loads_and_scores_its_golden_rows_to_the_bit(model, columns, toy_rows):
    ranker = load(model, columns)
    again = load(model, columns)
    matrix = toy_rows(seed=9).matrix
    assert np.array_equal(ranker.score(matrix), again.score(matrix))


@pytest.mark.parametrize("fields", [{"features_hash": "x" * 1_000_000}, {"categorical": list(range(200_000))}])
def test_a_refusal_quotes_no_megabytes_since_it_becomes_the_cause_of_every_answer(model, columns, fields):
    edit(model, **fields)
    with pytest.raises(ModelRefused) as refused:
        load(model, columns)
    assert next(iter(fields)).split("_")[0] in refused.value.reason
    assert len(refused.value.reason) < 500
    assert len(str(refused.value)) < 500
