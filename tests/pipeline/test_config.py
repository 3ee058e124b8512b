"""Settings: defaults under one file under the environment; a mistake is an error that names itself."""

from __future__ import annotations

import pytest

from pipeline.config import ConfigError, Settings, load


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
