import gzip
import json
import random
from itertools import islice

import numpy as np
import pytest
from click.testing import CliRunner

from features.schema import RECOMMENDATIONS
from pipeline.cli import main
from pipeline.config import Settings
from pipeline.offline import Source, labelled_rows, replayer, settings_for
from recommender.model.boosting import ndcg_at_10
from recommender.model.fitting import fit_ranker
from recommender.model.training_settings import TrainingSettings
from tests.datasets import dataset

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


def test_training_tells_what_it_read_tried_and_found(folder, tmp_path):
    with (folder / "user_actions.jsonl").open("a") as stream:
        stream.write("{cut\n")
    args = ("train", folder, "--out", tmp_path / "models", "--trees", 6, "--search", 2, "--seed", 3)
    found = run(*args, "--version", "v1", "--json")
    assert (found["records"], found["lists"], found["rows"], found["labelled"]) == (141, 60, 300, 60)
    assert sum(found["refused"].values()) == 1
    assert len(found["tried"]) == 3
    assert found["trees"] <= 6
    assert found["parameters"]["seed"] == 3
    assert len(found["rounds"][0]) == 3
    assert found["metrics"]["queries"] == 12
    result = CliRunner().invoke(main, [str(arg) for arg in (*args, "--version", "v2")])
    assert result.exit_code == 0, result.output
    assert "141 records read, 1 refused" in result.output
    assert "60 lists of together 300 rows, 60 with a label" in result.output
    assert "as configured" in result.output
    assert "held out: ndcg@10 " in result.output
    assert f"{tmp_path / 'models' / 'ranker' / 'v2'}: " in result.output.replace("\n", "")


def test_the_options_go_over_the_configured_section(folder, tmp_path):
    with (folder / "worker.toml").open("a") as stream:
        stream.write('\n[training]\nleaves = 5\nsearch = 0\nmonotone = {"price" = -1}\n')
    found = run("train", folder, "--out", tmp_path / "models", "--trees", 4, "--learning-rate", 0.2, "--json")
    assert (found["leaves"], found["parameters"]["learning_rate"], len(found["tried"])) == (5, 0.2, 1)
    assert found["parameters"]["monotone_constraints"].count(-1) == 1
    again = run("train", folder, "--out", tmp_path / "models", "--trees", 4, "--monotone", "price*=1", "--json",
                "--version", "w")  # fmt: skip
    assert again["parameters"]["monotone_constraints"].count(1) > 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--monotone", "item_nothing_*=1", "no feature is named like 'item_nothing_*'"),
        ("--monotone", "price", "--monotone price: not PATTERN=1 or PATTERN=-1"),
        ("--trees", 0, "Expected `int` >= 1 - at `$.trees_max`"),
        ("--init", "v9", "--init v9: manifest.json: No such file or directory"),
    ],
)
def test_what_cannot_be_trained_that_way_is_said_in_one_line(folder, tmp_path, option, value, said):
    result = CliRunner().invoke(main, ["train", str(folder), "--out", str(tmp_path / "m"), option, str(value)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_version_is_grown_on_by_what_came_after_it(folder, tmp_path):
    path = folder / "impressions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:30]))
    args = ("train", folder, "--out", tmp_path / "models", "--trees", 40, "--search", 0, "--json")
    first = run(*args, "--version", "v1")
    path.write_text("".join(lines))
    grown = run(*args, "--version", "v2", "--init", "v1")
    assert (first["lists"], grown["lists"], grown["init"]) == (30, 30, "v1")
    assert first["trees"] < grown["trees"] <= 40
    manifest = json.loads((tmp_path / "models" / "ranker" / "v2" / "manifest.json").read_bytes())
    assert manifest["window"]["queries"] == 60


def test_debiasing_is_refused_for_a_log_without_shown_lists(folder, tmp_path):
    (folder / "impressions.jsonl").unlink()
    with (folder / "user_actions.jsonl").open("w") as stream:
        for n in range(400):
            ts_ms = 1_600_000_000_000 + n * 60_000
            click = {"event_id": f"e{n}", "user_id": f"u{n // 40}", "item_id": f"i{n % 7}", "action": "click"}
            stream.write(json.dumps(click | {"ts_ms": ts_ms}) + "\n")
    result = CliRunner().invoke(main, ["train", str(folder), "--out", str(tmp_path / "m"), "--position-bias"])
    assert result.exit_code == 2
    assert "these rows do not know where they were shown" in result.stderr


@pytest.mark.data
def test_a_prefix_of_a_real_log_makes_the_same_ranker_on_one_thread_and_on_two(tmp_path):
    """RankLens, its first 500 lists of 24 items."""
    log = dataset("ranklens")
    for name, count in (("items", 3_000), ("impressions", 500), ("user_actions", 2_200)):
        with gzip.open(log / f"{name}.jsonl.gz", "rt") as lines:
            (tmp_path / f"{name}.jsonl").write_text("".join(islice(lines, count)))
    settings = settings_for(tmp_path, Settings())
    clockwork = replayer(settings)
    rows = labelled_rows(Source(tmp_path, settings), clockwork, questions_max=250)
    one, two = (
        fit_ranker(rows, clockwork.catalog, settings=TrainingSettings(trees_max=15, search=0, threads=threads))
        for threads in (1, 2)
    )
    assert one.model == two.model
    assert one.rounds == two.rounds
    held_out = rows.slice(200, 250)
    by_chance = ndcg_at_10(np.zeros(len(held_out.items)), held_out).mean()
    assert one.metrics["ndcg@10"] > by_chance + 0.1


@pytest.mark.parametrize("more", [("--version", "v1"), ("--version", "v2", "--init", "../v1")])
def test_a_version_that_is_there_or_lies_elsewhere_is_refused_before_anything_is_learned(folder, tmp_path, more):
    (tmp_path / "models" / "ranker" / "v1").mkdir(parents=True)
    result = CliRunner().invoke(main, ["train", str(folder), "--out", str(tmp_path / "models"), *more])
    assert result.exit_code == 2
    assert "v1" in result.stderr
    assert "replayed" not in result.stderr


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


def test_a_version_that_could_never_serve_is_refused_before_the_training(folder, tmp_path):
    result = CliRunner().invoke(main, ["train", str(folder), "--out", str(tmp_path / "models"), "--version", "../v1"])
    assert result.exit_code == 2
    assert "version '../v1'" in result.stderr
    assert not (tmp_path / "models").exists()
