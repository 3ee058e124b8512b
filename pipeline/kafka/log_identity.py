"""Which log this is: 16 hex that change when a topic is deleted and created again.

Offsets mean something within one log only. The state remembers the identity of each log it was built from; the first
4 hex go into every rec_id. Made of the cluster's id and the topic's id, which Apache Kafka gives since 2.8 and Tansu
gives too. A broker without topic ids is refused: the worker could not tell a recreated topic from the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from features.store.port import StateForeign

ANSWER_S = 10.0
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # sixteen zero bytes in Kafka's base 64: the broker keeps no topic ids


def identities(admin: AdminClient, topics: Sequence[str], *, timeout_s: float = ANSWER_S) -> dict[str, str]:
    """{topic: 16 hex}.

    Raises `KafkaException` when the broker does not answer or lacks a topic, `StateForeign` when it has no topic ids.
    """
    # Not by describe_cluster: where all brokers are fenced for a moment (one that was frozen for 10 s), the answer names
    # none, and librdkafka 2.16 aborts the whole process.
    cluster = admin.list_topics(timeout=timeout_s).cluster_id
    described = admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
    found = {}
    for topic, answer in described.items():
        topic_id = str(answer.result(timeout_s).topic_id)
        if topic_id == NO_ID:
            raise StateForeign(
                f"{topic}: the broker gives no topic id (Kafka before 2.8?), a recreated topic would go unseen"
            )
        found[topic] = identity(str(cluster), topic_id)
    return found


def identity(cluster_id: str, topic_id: str) -> str:
    """16 hex over both ids.

    >>> identity("c", "t")
    '3c57e166e62e9560'
    """
    return blake2b(f"{cluster_id}/{topic_id}".encode(), digest_size=8).hexdigest()
