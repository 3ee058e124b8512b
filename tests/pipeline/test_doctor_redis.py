"""What the doctor says of a Redis server by what it tells of itself."""

import pytest

from pipeline.doctor_redis import _server

INFO = {"redis_version": "7.2.4", "role": "master", "used_memory": "1", "aof_enabled": "1"}


@pytest.mark.parametrize(
    ("told", "heads"),
    [
        ({"redis_version": "7.0.15"}, ["note", "ok"]),
        ({"redis_version": "8.4.0"}, ["note", "ok"]),
        ({"valkey_version": "8.1.0"}, ["note", "ok"]),
        ({"valkey_version": "9.1.2"}, ["ok"]),
        ({"valkey_version": "9.2.0-rc1"}, ["ok"]),
        ({"redis_version": "6.2.6"}, ["wrong", "note", "ok"]),
        ({"aof_enabled": "0"}, ["note", "ok"]),
        ({"valkey_version": "9.1.2", "maxmemory_policy": "allkeys-lru"}, ["wrong", "ok"]),
    ],
)
def test_what_a_server_tells_is_judged(told, heads):
    assert [finding.status for finding in _server("", INFO | told, clustered=False)] == heads
