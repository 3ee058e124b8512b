"""`--dataset`: a folder's rows are the traffic, and the workers know what they mean."""

import json

import pytest
from click.testing import CliRunner

from features.schema import ITEMS, USER_ACTIONS
from pipeline.config import Recommend, Settings
from tests.chaos.__main__ import main
from tests.chaos.dataset import DataSet
from tests.chaos.scenarios import load
from tests.chaos.traffic import Post

ROWS = 30


def action(number):
    return {"event_id": f"e{number}", "user_id": "u", "item_id": "i", "action": "read", "ts_ms": 1_000 + number}


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps(action(number)) for number in range(ROWS)]
    (tmp_path / "user_actions.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "items.jsonl").write_text('{"item_id": "i", "ts_ms": 0, "attributes": {"size": "l"}}\n')
    return tmp_path


def test_the_rows_are_sent_as_they_are_in_their_order(folder):
    posts = list(DataSet.of(folder, events_max=3).records())
    assert [(post.topic, post.key) for post in posts] == [(ITEMS, b"i"), (USER_ACTIONS, b"u"), (USER_ACTIONS, b"u")]
    assert posts[1] == Post(USER_ACTIONS, b"u", json.dumps(action(0)).encode())


def test_all_rows_are_counted_where_fewer_are_there_than_asked_for(folder):
    assert DataSet.of(folder, events_max=1_000).events == ROWS + 1


def test_workers_know_the_actions_of_the_folder_and_keep_what_the_scenario_wants(folder):
    own = load()["storm"]
    laid = DataSet.of(folder, events_max=1_000).under(own)
    settings = laid.setup.settings(Settings(recommend=Recommend(k=3)))
    assert [each.name for each in settings.actions] == ["read"]
    assert settings.recommend.k == 3
    assert laid.plan is own.plan


@pytest.mark.parametrize("name", ["mutated", "hot_users", "more_partitions"])
def test_a_scenario_with_a_traffic_of_its_own_is_refused(folder, name):
    run = CliRunner().invoke(main, ["--scenario", name, "--dataset", str(folder)])
    assert run.exit_code == 2
    assert "a traffic of its own" in run.output


def test_what_is_no_data_set_is_refused_in_words(tmp_path):
    run = CliRunner().invoke(main, ["--scenario", "storm", "--dataset", str(tmp_path)])
    assert run.exit_code == 2
    assert "none of" in run.output


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("user_actions.jsonl", ""),
        ("user_actions.jsonl", "{broken\n"),
        ("items.jsonl", '{"item_id": "i", "ts_ms": 0}\n'),
        ("worker.toml", "nonsense\n"),
        ("worker.toml", "[kafka]\n"),
    ],
)
def test_what_asks_for_no_answer_is_refused_in_words(tmp_path, name, text):
    if name == "worker.toml":
        (tmp_path / "user_actions.jsonl").write_text(json.dumps(action(1)) + "\n")
    (tmp_path / name).write_text(text)
    run = CliRunner().invoke(main, ["--scenario", "storm", "--dataset", str(tmp_path)])
    assert run.exit_code == 2, run.output
    assert "Usage:" in run.output
