"""JSON Schemas and the AsyncAPI document, generated from `features/schema.py` and `deploy/topics.toml`.

`python -m pipeline.schemas` (or `make schemas`) writes them to `deploy/schemas/`; a test fails when they are not current.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from features.schema import DEAD_LETTERS, INPUT_TOPICS, RECORD_OF_TOPIC, SERVED_FEATURES
from pipeline.kafka.topics import DECLARED, Topic, load_topics

PLACE = DECLARED.parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BINARY = {
    SERVED_FEATURES: {"type": "string", "format": "binary", "description": "MessagePack; see recommender/served.py"},
    DEAD_LETTERS: {"type": "string", "format": "binary", "description": "The refused bytes, as they came in"},
}
DEAD_LETTER_HEADERS = {
    "type": "object",
    "required": ["reason", "field", "topic", "partition", "offset"],
    "properties": {
        "reason": {"type": "string", "description": "why it was refused"},
        "field": {"type": "string", "description": "the field that broke it, $ for the record as a whole"},
        "topic": {"type": "string", "description": "where it came from"},
        "partition": {"type": "string"},
        "offset": {"type": "string"},
        "sha256": {"type": "string", "description": "of the whole value, where only its first 64 KiB stand here"},
        "bytes": {"type": "string", "description": "the size of the whole value, then"},
    },
}


def json_schema(topic: str) -> dict[str, Any]:
    """The self-contained JSON Schema of a topic's record."""
    [reference], definitions = msgspec.json.schema_components([RECORD_OF_TOPIC[topic]], ref_template="#/$defs/{name}")
    name = reference["$ref"].rpartition("/")[2]
    others = {key: value for key, value in sorted(definitions.items()) if key != name}
    schema = {"$schema": DIALECT, "$id": f"{topic}.json", **definitions[name]}
    return schema | {"$defs": others} if others else schema


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: a channel a topic, its key, its message, and who sends or receives it."""
    topics = load_topics()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headrace",
            "version": "1",
            "description": "User events in, ranked recommendations out. Unknown fields are ignored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {
            f"{'receive' if topic.name in INPUT_TOPICS else 'send'}_{topic.name}": _operation(topic.name)
            for topic in topics
        },
    }


def documents() -> Iterator[tuple[Path, str]]:
    """Every generated file with its text."""
    for topic in RECORD_OF_TOPIC:
        yield PLACE / f"{topic}.json", _text(json_schema(topic))
    yield PLACE / "asyncapi.json", _text(asyncapi())


def main() -> None:
    """Writes them all."""
    PLACE.mkdir(exist_ok=True)
    for path, text in documents():
        path.write_text(text)


def _channel(topic: Topic) -> dict[str, Any]:
    message: dict[str, Any] = {"name": topic.record or topic.name, "bindings": {"kafka": {"key": _key(topic)}}}
    if topic.name in BINARY:
        message |= {"contentType": "application/octet-stream", "payload": BINARY[topic.name]}
    else:
        message["payload"] = {"$ref": f"./{topic.name}.json"}
    if topic.name == DEAD_LETTERS:
        message["headers"] = DEAD_LETTER_HEADERS
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {"record": message},
        "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": _configuration(topic)}},
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    shown: dict[str, Any] = {"cleanup.policy": [topic.cleanup], "max.message.bytes": topic.message_max_bytes}
    hours = topic.retention_hours
    return shown | {"retention.ms": hours * 3_600_000 if hours >= 0 else -1}


def _key(topic: Topic) -> dict[str, str]:
    return {"type": "string", "description": topic.key}


def _operation(topic: str) -> dict[str, Any]:
    return {
        "action": "receive" if topic in INPUT_TOPICS else "send",
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/record"}],
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
