"""The generated schemas are current, and say what the decoder does."""

import json

import jsonschema
import pytest

from features.schema import INPUT_TOPICS, RECORD_OF_TOPIC, Refused, decode
from pipeline.kafka.topics import load_topics
from pipeline.schemas import PLACE, asyncapi, documents, json_schema

GOOD = {
    "user_actions": {"event_id": "e", "user_id": "u", "item_id": "i", "action": "view", "ts_ms": 5, "value": 1.5},
    "impressions": {
        "impression_id": "s",
        "user_id": "u",
        "item_ids": ["a", "b"],
        "ts_ms": 5,
        "item_context": {"p": [1, None]},
    },
    "items": {"item_id": "i", "ts_ms": 0, "attributes": {"price": 2, "brand": "b", "tags": ["x"]}},
    "recommendation_requests": {"request_id": "r", "user_id": "u", "ts_ms": 5, "k": 3},
}
BROKEN = [
    ("user_actions", "ts_ms", "soon"),
    ("user_actions", "ts_ms", -1),
    ("user_actions", "event_id", ""),
    ("user_actions", "user_id", 7),
    ("impressions", "item_ids", []),
    ("impressions", "item_ids", "a"),
    ("items", "attributes", {"price": {"deep": 1}}),
    ("recommendation_requests", "k", 0),
]


@pytest.mark.parametrize(("path", "text"), [pytest.param(*each, id=each[0].name) for each in documents()])
def test_generated_files_are_current(path, text):
    assert path.read_text() == text, "run `make schemas`"


def test_nothing_else_lies_there():
    assert {path.name for path in PLACE.iterdir()} == {path.name for path, _ in documents()}


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_a_good_record_is_valid_for_schema_and_decoder(topic):
    jsonschema.validate(GOOD[topic], json_schema(topic))
    decode(topic, json.dumps(GOOD[topic]).encode())
    jsonschema.validate(GOOD[topic] | {"unknown": 1}, json_schema(topic))


@pytest.mark.parametrize(("topic", "field", "value"), BROKEN)
def test_a_broken_record_is_refused_by_both(topic, field, value):
    record = GOOD[topic] | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json_schema(topic))
    with pytest.raises(Refused):
        decode(topic, json.dumps(record).encode())


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_every_required_field_is_required_by_both(topic):
    for field in json_schema(topic)["required"]:
        record = {name: value for name, value in GOOD[topic].items() if name != field}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(record, json_schema(topic))
        with pytest.raises(Refused):
            decode(topic, json.dumps(record).encode())


def test_every_declared_topic_is_a_channel_with_its_record():
    channels = asyncapi()["channels"]
    for topic in load_topics():
        message = channels[topic.name]["messages"]["record"]
        if topic.name in RECORD_OF_TOPIC:
            assert topic.record == RECORD_OF_TOPIC[topic.name].__name__
            assert (PLACE / message["payload"]["$ref"]).is_file()
        else:
            assert message["contentType"] == "application/octet-stream"
