"""The topics as `deploy/topics.toml` declares them: read, create, compare with the broker.

The embedded broker takes part of it only (no `LogAppendTime`, no compaction, no retention are applied, though it
remembers the words): `check` compares what the broker says, so a difference shows wherever the broker tells.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from pipeline.config import ConfigError, text_of

ANSWER_S = 15.0
GRACE_S = 1.0  # that a future is waited for beyond its request's own timeout, whose error says more than ours
UNANSWERED = "the broker gives no answer"
FORBIDDEN = "not allowed for this user (deploy/kafka/acls.sh grants the rights)"

HOUR_MS = 3_600_000
SEGMENTS = 12  # that a retention is cut into: a broker deletes whole segments, by itself only weekly ones
DECLARED = Path(__file__).resolve().parents[2] / "deploy" / "topics.toml"


class Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One declared topic; `deploy/topics.toml` explains the fields."""

    name: str = ""
    partitions: Annotated[int, msgspec.Meta(ge=1)] = 4
    retention_hours: Annotated[int, msgspec.Meta(ge=-1)] = -1
    cleanup: Literal["delete", "compact"] = "delete"
    nulls_hours: Annotated[int, msgspec.Meta(ge=1)] = 24
    timestamp: Literal["log_append", "create"] = "create"
    message_max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1_048_576
    key: str = ""
    record: str = ""
    description: str = ""

    @property
    def config(self) -> dict[str, str]:
        """The same in Kafka's own words.

        >>> kept = Topic(name="t", retention_hours=24).config
        >>> kept["retention.ms"], kept["segment.ms"]
        ('86400000', '7200000')
        """
        kept_ms = self.retention_hours * HOUR_MS
        segments = {"segment.ms": str(kept_ms // SEGMENTS)} if kept_ms > 0 else {}
        nulls = {"delete.retention.ms": str(self.nulls_hours * HOUR_MS)} if self.cleanup == "compact" else {}
        return (
            segments
            | nulls
            | {
                "cleanup.policy": self.cleanup,
                "retention.ms": str(kept_ms if kept_ms >= 0 else -1),
                "message.timestamp.type": "LogAppendTime" if self.timestamp == "log_append" else "CreateTime",
                "max.message.bytes": str(self.message_max_bytes),
            }
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topics: dict[str, Topic]


def load_topics(path: Path = DECLARED, *, prefix: str = "") -> tuple[Topic, ...]:
    """The `[topics.NAME]` tables of a TOML file, names under `prefix`; raises `ConfigError` naming file and key."""
    try:
        declared = msgspec.convert(tomllib.loads(text_of(path)), _File).topics
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # also msgspec's and tomllib's
        raise ConfigError(f"{path}: {error}") from None
    return tuple(msgspec.structs.replace(topic, name=prefix + name) for name, topic in declared.items())


def create(admin: AdminClient, topics: Sequence[Topic], *, replication: int = 1) -> dict[str, str]:
    """Creates what is missing; {name: "created" | "exists" | what went wrong}."""
    wanted = [NewTopic(topic.name, topic.partitions, replication, config=topic.config) for topic in topics]
    outcome = {}
    for name, done in admin.create_topics(wanted, operation_timeout=ANSWER_S, request_timeout=ANSWER_S).items():
        try:
            done.result(ANSWER_S + GRACE_S)
            outcome[name] = "created"
        except TimeoutError:
            outcome[name] = UNANSWERED
        except KafkaException as error:
            code = error.args[0].code()
            outcome[name] = "exists" if code == KafkaError.TOPIC_ALREADY_EXISTS else error.args[0].str()
    return outcome


def check(admin: AdminClient, topics: Sequence[Topic]) -> dict[str, list[str]]:
    """{name: what differs from the declaration}; an empty list is a topic as declared.

    Raises `KafkaException` when the broker does not answer.
    """
    seen = admin.list_topics(timeout=ANSWER_S).topics
    absent = [topic.name for topic in topics if topic.name not in seen or seen[topic.name].error is not None]
    forbidden = _forbidden(admin, absent, timeout_s=ANSWER_S)
    found = {name: [FORBIDDEN if name in forbidden else "missing: `headrace topics create`"] for name in absent}
    present = [topic for topic in topics if topic.name not in found]
    for topic in present:
        count = len(seen[topic.name].partitions)
        differs = count != topic.partitions
        found[topic.name] = [f"{count} partitions, declared {topic.partitions}"] if differs else []
    for name, lines in _config_differences(admin, present).items():
        found[name] += lines
    return found


def missing(admin: AdminClient, names: Sequence[str], *, timeout_s: float = ANSWER_S) -> list[str]:
    """Those of `names` that the broker does not have.

    Raises `KafkaException` when it does not answer, or keeps some of them from this user.
    """
    seen = admin.list_topics(timeout=timeout_s).topics
    absent = [name for name in names if name not in seen or seen[name].error is not None or not seen[name].partitions]
    if forbidden := _forbidden(admin, absent, timeout_s=timeout_s):
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, f"{', '.join(forbidden)}: {FORBIDDEN}"))
    return absent


def _forbidden(admin: AdminClient, absent: Sequence[str], *, timeout_s: float) -> list[str]:
    """Those that are not in the list because this user may not see them; asked for by name, the broker says so."""
    if not absent:
        return []
    answers = admin.describe_topics(TopicCollection(list(absent)), request_timeout=timeout_s)
    errors = {name: answer.exception(timeout_s + GRACE_S) for name, answer in answers.items()}
    denied = KafkaError.TOPIC_AUTHORIZATION_FAILED
    return [
        name for name, error in errors.items() if isinstance(error, KafkaException) and error.args[0].code() == denied
    ]


def _config_differences(admin: AdminClient, topics: Sequence[Topic]) -> dict[str, list[str]]:
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
    declared = {topic.name: topic.config for topic in topics}
    lines: dict[str, list[str]] = {}
    for resource, answer in admin.describe_configs(asked, request_timeout=ANSWER_S).items() if asked else ():
        try:
            actual: Mapping[str, Any] = answer.result(ANSWER_S + GRACE_S)
        except TimeoutError:
            lines[resource.name] = [f"its configuration: {UNANSWERED}"]
            continue
        except KafkaException as error:
            lines[resource.name] = [f"the broker does not tell its configuration ({error.args[0].str()})"]
            continue
        lines[resource.name] = [
            f"{key} = {actual[key].value if key in actual else 'unknown to the broker'}, declared {value}"
            for key, value in declared[resource.name].items()
            if key not in actual or actual[key].value != value
        ]
    return lines
