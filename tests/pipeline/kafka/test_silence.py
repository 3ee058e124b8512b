"""A connection that owes an answer and brings no byte is closed; one that is slow, idle or overslept is not."""

import asyncio
import inspect

import pytest
from aiokafka import client as stock
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.group import JoinGroupRequest_v5

from pipeline.kafka.silence import HANDSHAKE_S, LOOK_S, Silence

FETCH, JOIN = (1, object.__new__(FetchRequest_v11), None), (2, object.__new__(JoinGroupRequest_v5), None)


class Connection:
    """What `Silence` knows of a connection."""

    def __init__(self):
        self._reader = asyncio.StreamReader()
        self._requests, self._request_timeout, self.reason = [], HANDSHAKE_S, None

    def connected(self):
        return self.reason is None

    def close(self, reason):
        self.reason = reason


class Client:
    def __init__(self):
        self._request_timeout_ms = 90_000
        self._conns = {}

    async def _get_conn(self, node, *, group=ConnectionGroup.DEFAULT, no_hint=False):
        if (node, group) not in self._conns or not self._conns[node, group].connected():
            self._conns[node, group] = Connection()
        return self._conns[node, group]


@pytest.fixture
def clock(monkeypatch):
    now = {"s": 1000.0}
    monkeypatch.setattr("pipeline.kafka.silence.time.monotonic", lambda: now["s"])
    return now


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def silence(client, clock):
    return Silence(client, answer_s=10.0, join_s=40.0)


def pass_time(silence, clock, seconds):
    for _ in range(int(seconds / LOOK_S)):
        clock["s"] += LOOK_S
        silence.look(clock["s"])


async def test_a_connection_that_owes_an_answer_and_is_silent_is_closed(client, silence, clock):
    connection = await client._get_conn(1)
    connection._requests.append(FETCH)
    pass_time(silence, clock, 10)
    assert connection.reason is None
    pass_time(silence, clock, 1)
    assert connection.reason is not None
    assert await client._get_conn(1) is not connection


async def test_each_byte_gives_a_slow_answer_more_time(client, silence, clock):
    connection = await client._get_conn(1)
    connection._requests.append(FETCH)
    for _ in range(10):
        pass_time(silence, clock, 9)
        connection._reader.feed_data(b"x")
    assert connection.reason is None
    assert await connection._reader.readexactly(10) == b"x" * 10


async def test_an_idle_connection_stays(client, silence, clock):
    connection = await client._get_conn(1)
    pass_time(silence, clock, 300)
    connection._requests.append(FETCH)
    pass_time(silence, clock, 10)
    assert connection.reason is None


async def test_a_join_may_wait_for_the_slowest_member(client, silence, clock):
    connection = await client._get_conn(1, group=ConnectionGroup.COORDINATION)
    connection._requests.append(JOIN)
    pass_time(silence, clock, 40)
    assert connection.reason is None
    pass_time(silence, clock, 1)
    assert connection.reason is not None


async def test_a_process_that_slept_blames_nobody(client, silence, clock):
    connection = await client._get_conn(1)
    connection._requests.append(FETCH)
    pass_time(silence, clock, 5)
    clock["s"] += 600
    silence.look(clock["s"])
    assert connection.reason is None


async def test_a_handshake_is_short_and_a_request_is_long(client, silence):
    assert client._request_timeout_ms == HANDSHAKE_S * 1000
    assert (await client._get_conn(1))._request_timeout == 90.0


def test_the_kafka_client_still_has_the_names():
    assert "request_timeout_ms=self._request_timeout_ms" in inspect.getsource(stock.AIOKafkaClient._get_conn)
    assert "self._get_conn(node_id, group=group)" in inspect.getsource(stock.AIOKafkaClient.ready)
    assert "self._get_conn(node_id)" in inspect.getsource(stock.AIOKafkaClient._metadata_update)
    source = inspect.getsource(AIOKafkaConnection)
    for name in (
        "self._requests.append",
        "asyncio.StreamReader",
        "self._request_timeout)",
        "self._reader, self._writer",
    ):
        assert name in source
