"""The declared topics read, and a wrong file names what is wrong."""

import pytest

from features.schema import (
    DEAD_LETTERS,
    IMPRESSIONS,
    INPUT_TOPICS,
    ITEMS,
    MODEL_CONTROL,
    RECOMMENDATIONS,
    SERVED_FEATURES,
    USER_ACTIONS,
)
from pipeline.config import ConfigError
from pipeline.kafka.topics import load_topics


def test_every_topic_of_the_contract_is_declared():
    names = {topic.name for topic in load_topics()}
    assert names == {*INPUT_TOPICS, RECOMMENDATIONS, SERVED_FEATURES, DEAD_LETTERS, MODEL_CONTROL}


def test_the_prefix_stands_before_every_name():
    assert all(topic.name.startswith("eu.") for topic in load_topics(prefix="eu."))


def test_inputs_carry_the_brokers_clock_and_let_monsters_pass():
    for topic in load_topics():
        if topic.name in INPUT_TOPICS:
            assert topic.config["message.timestamp.type"] == "LogAppendTime"
            assert int(topic.config["max.message.bytes"]) == 16 << 20


def test_that_an_item_is_gone_is_kept_longer_than_what_users_did_to_it():
    declared = {topic.name: topic for topic in load_topics()}
    gone_ms = int(declared[ITEMS].config["delete.retention.ms"])
    for events in (USER_ACTIONS, IMPRESSIONS):
        assert gone_ms > 2 * int(declared[events].config["retention.ms"])
        assert "delete.retention.ms" not in declared[events].config


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[topics.a]\npartitions = 0", "partitions"),
        ("[topics.a]\npartitons = 1", "partitons"),
        ("[topics.a", "topics.toml"),
    ],
)
def test_a_wrong_file_names_what_is_wrong(tmp_path, text, names):
    file = tmp_path / "topics.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=names):
        load_topics(file)
