"""`headrace state` on the embedded Redis, filled by the state's own code."""

import json
import uuid

import pytest
from click.testing import CliRunner

from features.facts import Fact
from features.schema import Item, UserAction
from features.state import State
from features.store.port import Part
from features.store.redis import RedisStore
from pipeline.cli import main
from pipeline.config import load

pytestmark = pytest.mark.services
MEANING = """
[[actions]]
name = "view"

[[actions]]
name = "buy"
purchase = true

[[attributes]]
name = "price"
kind = "number"
"""
TS = 1_600_000_000_000


@pytest.fixture
def run(redis, tmp_path):
    """The command line over a state of a few events."""
    config = tmp_path / "worker.toml"
    config.write_text(f'{MEANING}\n[redis]\nurl = "{redis}"\napp = "t{uuid.uuid4().hex[:8]}"\n')
    settings = load(config, {})
    store = RedisStore(settings.redis.url, app=settings.redis.app)
    state = State(store, settings.domain)
    events = [("view", "a"), ("view", "b"), ("buy", "b")]
    actions = [UserAction(f"e{n}", "u", item, action, TS + n * 1000) for n, (action, item) in enumerate(events)]
    for topic, records in (("items", [Item("a", 5, attributes={"price": 2.5})]), ("user_actions", actions)):
        part = Part(topic, 0)
        state.resume(part, committed=None, log_start=0)
        state.apply(part, [Fact(n, record) for n, record in enumerate(records)], last=len(records) - 1)
        state.beat()
    store.close()
    return lambda *args: CliRunner().invoke(main, ["--config", str(config), "state", *args])


def test_a_user_is_shown_with_items_by_name(run):
    result = run("show", "user", "u", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(seen["action"], seen["item_id"]) for seen in found["actions"]] == [
        ("view", "a"),
        ("view", "b"),
        ("buy", "b"),
    ]
    assert found["bought"] == ["b"]
    assert "buy                   b" in run("show", "user", "u").stdout


def test_an_item_is_shown_with_record_counts_and_neighbours(run):
    found = json.loads(run("show", "item", "a", "--json").stdout)
    assert found["record"]["attributes"] == {"price": 2.5}
    assert found["counts"]["view"]["1h"] == 1
    assert found["counts"]["view"]["ever"] == 1
    assert list(found["goes_with"]) == ["b"]
    assert "goes with: b" in run("show", "item", "a").stdout


def test_what_the_state_never_heard_of_is_exit_1(run):
    for kind in ("user", "item"):
        result = run("show", kind, "nobody")
        assert result.exit_code == 1
        assert "has nothing" in result.stderr


def test_the_digest_comes_with_the_marks_and_the_counts(run):
    found = json.loads(run("digest", "--json").stdout)
    assert len(found["digest"]) == 64
    assert found["hwm"] == {"user_actions-0": 2, "items-0": 0}
    assert found["counts"]["applied:user_actions"] == 3
    assert found["digest"] in run("digest").stdout


def test_looking_for_a_state_does_not_begin_one(redis, tmp_path):
    config = tmp_path / "worker.toml"
    app = f"t{uuid.uuid4().hex[:8]}"
    config.write_text(f'{MEANING}\n[redis]\nurl = "{redis}"\napp = "{app}"\n')
    for asked in (["digest"], ["show", "item", "a"]):
        result = CliRunner().invoke(main, ["--config", str(config), "state", *asked])
        assert (result.exit_code, "no state yet" in result.stderr) == (2, True)
    store = RedisStore(redis, app=app)
    assert not store.begun()
    store.close()


def test_without_configured_actions_nothing_is_opened():
    result = CliRunner().invoke(main, ["state", "digest"])
    assert result.exit_code == 2
    assert "--config" in result.stderr
