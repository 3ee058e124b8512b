"""Who leads what: partitions by their broker, and metadata that are not asked for without end."""

import inspect
from types import SimpleNamespace

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from faust.types import TP

from pipeline.kafka import leaders


def test_partitions_are_told_by_the_broker_that_leads_them_and_those_of_nobody_are_left_out():
    cluster = ClusterMetadata()
    cluster._partitions = {"t": {n: SimpleNamespace(leader=of) for n, of in enumerate([1, 2, leaders.NOBODY, 1])}}
    parts = [TP("t", n) for n in range(5)]
    assert leaders.by_leader(cluster, parts) == {1: [parts[0], parts[3]], 2: [parts[1]]}


async def test_metadata_are_asked_for_at_once_but_only_so_often_a_second(monkeypatch):
    waited, now_s, asked = [], iter([10.0, 10.1, 10.25, 11.0, 99.0, 99.0]), []
    monkeypatch.setattr(leaders, "time", SimpleNamespace(monotonic=lambda: next(now_s)))

    async def sleep(seconds):
        waited.append(seconds)

    async def ask(cluster, topics):
        asked.append(topics)
        return True

    monkeypatch.setattr(leaders, "asyncio", SimpleNamespace(sleep=sleep))
    in_turn = leaders.paced(ask, a_second=2)
    assert [await in_turn(None, {each}) for each in "abcd"] == [True] * 4
    assert waited == pytest.approx([0.75, 0.0])
    assert asked == [{"a"}, {"b"}, {"c"}, {"d"}]


def test_the_kafka_client_still_asks_for_metadata_by_the_name_that_is_paced():
    assert "await self._metadata_update(" in inspect.getsource(AIOKafkaClient._md_synchronizer)


def test_the_kafka_client_still_has_the_name_of_a_leader_that_is_nobody():
    assert "elif node_id == -1:" in inspect.getsource(aiokafka.consumer.fetcher.Fetcher._proc_offset_requests)
