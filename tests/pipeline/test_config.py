"""Settings: defaults under one file under the environment; a mistake is an error that names itself."""

from __future__ import annotations

import os

import pytest

from pipeline.config import FILTERS, ConfigError, Settings, load, require_actions, secret
from recommender.candidates import SOURCES
from recommender.filters import filters


def test_defaults_need_nothing():
    assert load(None, {}) == Settings()


def test_the_environment_lies_over_the_file(tmp_path):
    path = tmp_path / "worker.toml"
    path.write_text('[redis]\nshards = 4\napp = "shop"\n')
    settings = load(path, {"HEADRACE_REDIS_SHARDS": "8", "HOME": "x"})
    assert (settings.redis.shards, settings.redis.app) == (8, "shop")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[redis]\nshard = 4\n", "shard"),
        ('[redis]\nshards = "many"\n', "shards"),
        ("[redis]\nshards = 0\n", "shards"),
        ("[reddis]\n", "reddis"),
        ("[redis\n", "worker.toml"),
        ('[[actions]]\nname = "view"\nwieght = 2\n', "wieght"),
        ('[[actions]]\nname = "view"\n[[actions]]\nname = "view"\n', "view"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, named):
    path = tmp_path / "worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(path, {})


@pytest.mark.parametrize("variable", ["HEADRACE_REDIS_SHARD", "HEADRACE_NOTHING", "HEADRACE_REDIS"])
def test_an_unknown_variable_is_named(variable):
    with pytest.raises(ConfigError, match=variable):
        load(None, {variable: "1"})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "absent.toml", {})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[recommend.quotas]\ntrendy = 1\n", "trendy"),
        ("[recommend.quotas]\nnew = -1\n", "new"),
        ("[recommend.quotas]\nnew = nan\n", "quotas"),
        ("[recommend.quotas]\n" + "".join(f"{source.name} = 0\n" for source in SOURCES), "above 0"),
        ('[recommend]\nfilters = ["nope"]\n', "no filter named 'nope'"),
        ('[redis]\nurl = "foo://x"\n', "redis://, rediss://, unix://"),
        ('[redis]\nurl = "redis://x:y"\n', "url"),
        ('[redis]\napp = "a b"\n', "app"),
        ('[redis]\npassword = "x"\n', "password"),
        ('[kafka]\nsasl_password = "x"\n', "sasl_password"),
        ("redis = 3\n", "redis"),
    ],
)
def test_what_could_not_work_is_refused_at_once(tmp_path, text, named):
    path = tmp_path / "worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(path, {"HEADRACE_REDIS_SHARDS": "8"})


def test_a_table_of_quotas_changes_only_what_it_names(tmp_path):
    path = tmp_path / "worker.toml"
    path.write_text("[recommend.quotas]\nnew = 0.5\n")
    assert load(path, {}).recommend.quotas.shares == Settings().recommend.quotas.shares | {"new": 0.5}


def test_there_is_a_quota_for_each_source_and_a_name_for_each_filter():
    assert set(Settings().recommend.quotas.shares) == {source.name for source in SOURCES}
    assert [rule.name for rule in filters(FILTERS, domain=Settings().domain, layout=None)] == list(FILTERS)


def test_lists_and_quotas_come_from_the_environment_too():
    asked = load(
        None,
        {
            "HEADRACE_RECOMMEND_FILTERS": '["available", "bought"]',
            "HEADRACE_RECOMMEND_BLOCKED_ITEMS": "a, b",
            "HEADRACE_RECOMMEND_QUOTAS": '{"new": 1}',
        },
    ).recommend
    assert (asked.filters, asked.blocked_items, asked.quotas.new) == (["available", "bought"], ["a", "b"], 1)
    with pytest.raises(ConfigError, match="HEADRACE_RECOMMEND_FILTERS"):
        load(None, {"HEADRACE_RECOMMEND_FILTERS": "[cut"})


def test_a_secret_comes_from_its_variable_or_its_file_and_stands_in_no_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("HEADRACE_REDIS_PASSWORD", raising=False)
    file = tmp_path / "password"
    file.write_text("of the file\n")
    assert secret("redis.password", "") == ""
    assert secret("redis.password", str(file)) == "of the file"
    with pytest.raises(ConfigError, match=r"redis\.password_file: .*absent"):
        secret("redis.password", str(tmp_path / "absent"))
    monkeypatch.setenv("HEADRACE_REDIS_PASSWORD", "hush")
    assert secret("redis.password", str(file)) == "hush"
    assert load(None, os.environ | {"HEADRACE_KAFKA_SASL_PASSWORD": "hush"}) == Settings()


def test_who_applies_events_needs_actions():
    with pytest.raises(ConfigError, match=r"headrace init.*\[\[actions\]\]"):
        require_actions(Settings())


def test_the_training_section_reads_constraints_from_file_and_environment(tmp_path):
    path = tmp_path / "worker.toml"
    path.write_text('[training]\nleaves = 15\nmonotone = {"item_*_rate_*" = 1}\n')
    assert load(path, {}).training.monotone == {"item_*_rate_*": 1}
    found = load(path, {"HEADRACE_TRAINING_MONOTONE": '{"price": -1}', "HEADRACE_TRAINING_SEARCH": "0"}).training
    assert (found.leaves, found.search, found.monotone) == (15, 0, {"price": -1})
    with pytest.raises(ConfigError, match=r"monotone"):
        load(None, {"HEADRACE_TRAINING_MONOTONE": '{"price": 2}'})


def test_a_variable_that_is_no_text_is_named():
    with pytest.raises(ConfigError, match=r"HEADRACE_KAFKA_GROUP: not valid UTF-8"):
        load(None, {"HEADRACE_KAFKA_GROUP": "g\udcff"})
