"""`headrace models` on a real broker: the gate on a data set folder, the history, rollback, shadow."""

import json
import random
import uuid

import pytest
from click.testing import CliRunner

from pipeline import models
from pipeline.cli import main
from pipeline.config import load
from pipeline.kafka import reading
from pipeline.model_control import name_version, named
from recommender.model.promotions import FILE, history
from tests.integration.artefacts import write_version

pytestmark = pytest.mark.services
START_MS = 1_600_000_000_000


@pytest.fixture
def config(broker, tmp_path):
    """A worker.toml of this test's own names, its topics created."""
    name = f"p{uuid.uuid4().hex[:8]}"
    path = tmp_path / "worker.toml"
    path.write_text(
        f"""
[[actions]]
name = "click"
[[attributes]]
name = "price"
kind = "number"
[kafka]
bootstrap = "{broker}"
topic_prefix = "{name}."
[model]
directory = "{tmp_path / "models"}"
"""
    )
    assert CliRunner().invoke(main, ["--config", str(path), "topics", "create"]).exit_code == 0
    return path


@pytest.fixture
def settings(config):
    return load(config, {})


@pytest.fixture
def headrace(config):
    """Runs a command with --json and gives its object."""

    def run(*words, code=0):
        done = CliRunner().invoke(main, ["--config", str(config), *map(str, words), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def folder(tmp_path):
    """Three hundred lists of five items; the cheap ones are clicked."""
    made, place = random.Random(7), tmp_path / "log"
    place.mkdir()
    files = {"items": [], "impressions": [], "user_actions": []}
    for n in range(20):
        files["items"].append({"item_id": f"i{n}", "ts_ms": 1, "attributes": {"price": n}})
    for n in range(300):
        listed, user, ts_ms = made.sample(range(20), 5), f"u{n % 40}", START_MS + n * 60_000
        ids = [f"i{item}" for item in listed]
        files["impressions"].append({"impression_id": f"s{n}", "user_id": user, "item_ids": ids, "ts_ms": ts_ms})
        click = {"event_id": f"e{n}", "user_id": user, "item_id": f"i{min(listed)}", "action": "click"}
        files["user_actions"].append(click | {"ts_ms": ts_ms + 1000, "impression_id": f"s{n}"})
    for name, rows in files.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def only_before(folder, share, place):
    """The first part of a folder's log, as a folder of its own."""
    place.mkdir()
    for path in folder.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        whole = len(lines) if path.name == "items.jsonl" else int(len(lines) * share)
        (place / path.name).write_text("".join(lines[:whole]))
    return place


def test_a_better_model_passes_the_gate_and_a_worse_one_never_does(headrace, settings, folder, tmp_path):
    write_version(settings, "random", first_ts_ms=START_MS)
    assert headrace("models", "promote", "random")["verdict"]["latency_ms"] > 0
    learned = only_before(folder, 0.5, tmp_path / "first-half")
    headrace("train", learned, "--version", "taught", "--search", 0, "--trees", 30)

    unproven = headrace("models", "promote", "taught", code=1)
    assert "--on DIR" in unproven["refused"][0]
    seen = headrace("models", "promote", "taught", "--on", learned, code=1)
    assert "0 labelled lists after both training windows" in seen["refused"][0]
    assert named(settings.kafka) == {"ranker": "random"}

    verdict = headrace("models", "promote", "taught", "--on", folder)["verdict"]
    assert verdict["queries"] >= 100
    assert 0 < verdict["lead"]["low"] < verdict["lead"]["mean"]
    assert named(settings.kafka) == {"ranker": "taught"}

    worse = headrace("models", "promote", "random", "--on", folder, code=1)
    assert worse["refused"][0].startswith("not better than taught: NDCG@10 -")
    again = headrace("models", "promote", "taught", "--on", folder, code=1)
    assert again["refused"] == ["taught serves already"]

    forced = headrace("models", "promote", "random", "--force")
    assert forced["forced"] is True
    assert [(each.version, each.forced) for each in history(models.folder(settings))] == [
        ("random", False), ("taught", False), ("random", True),
    ]  # fmt: skip


def test_rollback_goes_back_one_version_after_the_other(headrace, settings):
    assert "nothing to go back from" in headrace("models", "rollback", code=1)["refused"][0]
    for version in ("v1", "v2", "v3"):
        write_version(settings, version)
        headrace("models", "promote", version, "--force")
    assert headrace("models", "rollback")["version"] == "v2"
    assert headrace("models", "rollback")["version"] == "v1"
    assert named(settings.kafka) == {"ranker": "v1"}
    assert "no version before v1" in headrace("models", "rollback", code=1)["refused"][0]
    assert [each.action for each in history(models.folder(settings))] == ["promote"] * 3 + ["rollback"] * 2


def test_a_rollback_to_a_damaged_version_is_refused_and_what_serves_goes_on(headrace, settings):
    for version in ("v1", "v2"):
        write_version(settings, version)
        headrace("models", "promote", version, "--force")
    (models.folder(settings) / "v1" / "model.txt").write_bytes(b"")
    assert "sha256" in headrace("models", "rollback", code=1)["refused"][0]
    assert named(settings.kafka) == {"ranker": "v2"}


@pytest.mark.parametrize("words", [("promote", "v1"), ("promote", "v1", "--force"), ("shadow", "v1")])
def test_no_option_leads_past_the_load_checks(headrace, settings, words):
    path = write_version(settings, "v1")
    raw = (path / "model.txt").read_bytes()
    (path / "model.txt").write_bytes(raw[: len(raw) // 2])
    assert "sha256" in headrace("models", *words, code=1)["refused"][0]
    assert named(settings.kafka) == {}
    assert history(models.folder(settings)) == []


def test_a_model_over_the_budget_is_refused_even_by_force(headrace, settings, config):
    write_version(settings, "v1")
    config.write_text(config.read_text().replace("[model]\n", "[model]\nbudget_ms = 0.0001\n"))
    for words in (("promote", "v1"), ("promote", "v1", "--force"), ("shadow", "v1")):
        assert "latency" in headrace("models", *words, code=1)["refused"][0]


def test_a_serving_model_of_other_features_cannot_be_compared_with(headrace, settings, config, folder):
    write_version(settings, "v1")
    headrace("models", "promote", "v1")
    config.write_text(config.read_text() + '[[context]]\nname = "device"\nkind = "category"\n')
    write_version(load(config, {}), "v2")
    refused = headrace("models", "promote", "v2", "--on", folder, code=1)["refused"]
    assert "v1, which model_control names, cannot be compared with: features_hash" in refused[0]
    assert headrace("models", "promote", "v2", "--force")["version"] == "v2"


@pytest.mark.parametrize("version", ["absent", "../v1", "none", ".v1"])
def test_a_version_that_is_none_is_refused(headrace, version):
    assert headrace("models", "promote", version, code=1)["refused"]


def test_a_shadow_is_named_and_turned_off_and_serves_nobody(headrace, settings):
    write_version(settings, "v1")
    headrace("models", "shadow", "v1")
    assert named(settings.kafka) == {"ranker.shadow": "v1"}
    headrace("models", "shadow", "off")
    assert named(settings.kafka) == {}


def test_the_list_marks_what_serves_and_says_what_is_refused(headrace, settings):
    for version in ("v1", "v2", "v3"):
        write_version(settings, version)
    headrace("models", "promote", "v2")
    name_version(settings.kafka, "ranker.shadow", "v1", ts_ms=1)
    (models.folder(settings) / "v3" / "model.txt").write_bytes(b"")
    found = headrace("models", "list")
    assert found["named"] == {"ranker": "v2", "ranker.shadow": "v1"}
    assert [(each["version"], each["serving"], each["shadow"]) for each in found["versions"]] == [
        ("v3", False, False), ("v2", True, False), ("v1", False, True),
    ]  # fmt: skip
    assert "sha256" in found["versions"][0]["refused"]
    assert found["versions"][1]["metrics"]["ndcg@10"] >= 0


def test_without_a_broker_the_list_is_still_shown(config, settings, monkeypatch):
    monkeypatch.setattr(reading, "ANSWER_S", 1.0)
    write_version(settings, "v1")
    environ = {"HEADRACE_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    done = CliRunner().invoke(main, ["--config", str(config), "models", "list"], env=environ)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("v1 ")
    assert "which one serves is not known" in done.stderr


def test_a_version_is_shown_without_its_golden_rows(headrace, settings):
    write_version(settings, "v1")
    found = headrace("models", "show", "v1")
    assert found["version"] == "v1"
    assert found["golden"] >= 64
    assert found["window"]["queries"] == 60


def test_a_record_that_does_not_go_out_is_an_error_and_a_rollback_is_not_led_astray(headrace, settings, config):
    write_version(settings, "v1")
    headrace("models", "promote", "v1")
    write_version(settings, "v2")
    with (models.folder(settings) / FILE).open("ab") as file:  # v2's line was written, then the power went
        file.write(b'{"ts_ms":1,"action":"promote","version":"v2"}\n{"ts_ms"')
    assert "no version before v1" in headrace("models", "rollback", code=1)["refused"][0]
    headrace("models", "promote", "v2", "--force")
    assert headrace("models", "rollback")["version"] == "v1"
