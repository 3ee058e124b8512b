"""A second broker in the cluster of a started Apache Kafka, to be killed and frozen while the first one goes on.

The first stays the only controller: what it says of leaders holds while the second is away. It must not be restarted:
its controller would listen elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.apache_kafka import ApacheKafka, cluster_id
from pipeline.embedded import EmbeddedError, free_port

NODE = 2
GROUPS_TOPIC = "__consumer_offsets"
REGISTERED_S = 60.0


class SecondBroker:
    """Started, and known to the first, whose data lie in `first`; `properties` as for `ApacheKafka`, the first's own ones
    where both are to behave alike. Raises `EmbeddedError` as that does, and when the first does not hear of it within a
    minute.
    """

    def __init__(self, directory: Path, *, first: Path, properties: Mapping[str, str] | None = None) -> None:
        port, data = free_port(), directory / "kafka"
        data.mkdir(parents=True)
        cluster = _said(first / "kafka" / "meta.properties")["cluster.id"]
        meta = {"version": "1", "cluster.id": cluster, "node.id": str(NODE), "directory.id": cluster_id()}
        (data / "meta.properties").write_text("".join(f"{key}={value}\n" for key, value in meta.items()))
        voters = _said(first / "server.properties")["controller.quorum.voters"]
        node = {
            "process.roles": "broker",
            "node.id": str(NODE),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port}",
        }
        self._kafka = ApacheKafka(directory, port=port, properties={**(properties or {}), **node})
        self._is_down = False
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Of its Java process."""
        return self._kafka.pid

    def kill(self) -> None:
        """Kill -9."""
        self._is_down = True
        self._kafka.kill()

    def restart(self) -> None:
        """On the same address and data."""
        self._kafka.restart()
        self._is_down = False

    def check(self) -> None:
        """Raises `EmbeddedError` if it has ended though nobody killed it."""
        if not self._is_down:
            self._kafka.check()

    def stop(self) -> None:
        """Ends it; safe to call twice."""
        self._kafka.stop()

    def _await(self) -> None:
        admin, until_s = (
            AdminClient({"bootstrap.servers": self._kafka.bootstrap, "log_level": 0}),
            time.monotonic() + REGISTERED_S,
        )
        while len(admin.list_topics(timeout=10).brokers) < 2:
            if time.monotonic() > until_s:
                raise EmbeddedError(f"kafka: the second broker is not one of the cluster after {REGISTERED_S:.0f} s")
            time.sleep(0.1)


def make_groups_topic(bootstrap: str) -> None:
    """What groups have committed lies on the brokers that are there now: a later one leads no group."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "first", "log_level": 0}
    with closing(Consumer(settings)) as group:
        group.committed([TopicPartition("none", 0)], REGISTERED_S)


def leaders(bootstrap: str, topic: str) -> dict[int, int]:
    """{partition: the node that leads it, -1 for none} as the broker at this address knows it."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
    return {number: partition.leader for number, partition in partitions.items()}


def replicas(bootstrap: str, topic: str) -> list[int]:
    """On how many brokers each of the topic's partitions lies."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
    return [len(partition.replicas) for partition in partitions.values()]


def _said(path: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in path.read_text().splitlines() if not line.startswith("#"))
    return {key: value for key, _, value in lines}
