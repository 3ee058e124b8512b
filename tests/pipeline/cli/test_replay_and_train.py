import gzip
import json
import random

import numpy as np
import pytest
from click.testing import CliRunner

from features.schema import RECOMMENDATIONS
from pipeline.cli import main

SETTINGS = """
[[actions]]
name = "click"

[[attributes]]
name = "price"
kind = "number"
"""


@pytest.fixture
def folder(tmp_path):
    """Sixty lists of five items; the cheap ones are clicked."""
    made, place = random.Random(7), tmp_path / "log"
    place.mkdir()
    items, shown, actions = [], [], []
    for n in range(20):
        items.append({"item_id": f"i{n}", "ts_ms": 1, "attributes": {"price": n}})
    for n in range(60):
        listed = made.sample(range(20), 5)
        ts_ms = 1_600_000_000_000 + n * 60_000
        user = f"u{n % 7}"
        shown.append(
            {"impression_id": f"s{n}", "user_id": user, "item_ids": [f"i{item}" for item in listed], "ts_ms": ts_ms}
        )
        click = {"event_id": f"e{n}", "user_id": user, "item_id": f"i{min(listed)}", "action": "click"}
        actions.append(click | {"ts_ms": ts_ms + 1000, "impression_id": f"s{n}"})
    for name, rows in (("items", items), ("impressions", shown), ("user_actions", actions)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "worker.toml").write_text(SETTINGS)
    return place


def read(out):
    with gzip.open(out / f"{RECOMMENDATIONS}.jsonl.gz") as lines:
        return [json.loads(line) for line in lines]


def run(*args):
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_replay_counts_every_row_and_gives_the_digest(folder):
    found = run("replay", folder, "--json")
    assert (found["rows"], found["applied"], found["repeated"], found["dead_lettered"]) == (140, 140, 0, 0)
    assert len(found["digest"]) == 64
    assert run("replay", folder, "--json")["digest"] == found["digest"]


def test_order_and_repeats_do_not_change_the_digest(folder):
    before = run("replay", folder, "--json")
    path = folder / "user_actions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*reversed(lines), lines[3], lines[9]]))
    after = run("replay", folder, "--json")
    assert after["repeated"] == 2
    assert after["digest"] == before["digest"]


def test_broken_rows_and_unknown_actions_are_counted_with_their_reason(folder):
    with (folder / "user_actions.jsonl").open("a") as stream:
        stream.write('{cut\n{"event_id":"x","user_id":"u","item_id":"i","action":"odd","ts_ms":9}\n')
    found = run("replay", folder, "--json")
    assert (found["rows"], found["applied"], found["dead_lettered"]) == (142, 140, 2)
    assert any(reason.startswith("action: unknown action") for reason in found["refused"])


def test_a_limit_stops_early(folder):
    assert run("replay", folder, "--limit", 30, "--json")["rows"] == 30


def test_recommendations_and_features_are_written_for_every_trigger(folder, tmp_path):
    out = tmp_path / "out"
    found = run("replay", folder, "--out", out, "--write", "recommendations", "--write", "features", "--json")
    assert found["answered"] == 60
    answers = read(out)
    assert len(answers) == 60
    assert answers[-1]["trigger"]["topic"] == "user_actions"
    with np.load(out / "features-00000.npz") as held:
        assert held["matrix"].shape == (sum(len(answer["items"]) for answer in answers), len(held["names"]))
        assert held["matrix"].dtype == np.float32


def test_a_model_is_trained_into_the_registry_and_ranks_a_replay(folder, tmp_path):
    found = run("train", folder, "--out", tmp_path / "models", "--version", "v1", "--json")
    assert found["path"] == str(tmp_path / "models" / "ranker" / "v1")
    out = tmp_path / "out"
    run("replay", folder, "--out", out, "--model", found["path"], "--json")
    answers = read(out)
    assert answers[-1]["model"]["version"] == "v1"


def test_training_rows_can_be_taken_away(folder, tmp_path):
    run("replay", folder, "--out", tmp_path / "out", "--write", "training", "--json")
    with np.load(tmp_path / "out" / "training.npz") as held:
        assert held["grades"].sum() > 0
        assert held["matrix"].shape == (held["groups"].sum(), len(held["names"]))


def test_too_little_to_learn_from_is_said_in_one_line(tmp_path):
    row = {"event_id": "e", "user_id": "u", "item_id": "i", "action": "view", "ts_ms": 5}
    (tmp_path / "user_actions.jsonl").write_text(json.dumps(row) + "\n")
    result = CliRunner().invoke(main, ["train", str(tmp_path), "--out", str(tmp_path / "models")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
