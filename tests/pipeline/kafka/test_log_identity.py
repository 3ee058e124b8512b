"""Which log this is, asked in a way that survives a broker that was frozen."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from features.store.port import StateForeign
from pipeline.kafka.log_identity import NO_ID, identities, identity


class Admin:
    """`describe_cluster` is not there: librdkafka aborts the process when its answer names no broker."""

    def __init__(self, topic_id):
        self.topic_id = topic_id

    def list_topics(self, *, timeout):
        return SimpleNamespace(cluster_id="c", brokers={})

    def describe_topics(self, topics, *, request_timeout):
        answer = Future()
        answer.set_result(SimpleNamespace(topic_id=self.topic_id))
        return {"t": answer}


def test_the_identity_is_made_of_both_ids_without_describing_the_cluster():
    assert identities(Admin("x"), ["t"]) == {"t": identity("c", "x")}


def test_a_broker_without_topic_ids_is_refused():
    with pytest.raises(StateForeign, match="no topic id"):
        identities(Admin(NO_ID), ["t"])
