"""The servers of a run under one interface, whatever they are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Protocol

from pipeline.apache_kafka import ApacheKafka
from pipeline.child import tail_of
from pipeline.embedded import EmbeddedError, Servers, free_port
from tests import redis_servers
from tests.chaos.proxy import Proxy


class BrokerServer(Protocol):
    """`kind`: apache | embedded. `kill` and `restart` only where the log lies on disk."""

    kind: str

    @property
    def bootstrap(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def check(self) -> None: ...
    def stop(self) -> None: ...


class RedisServer(Protocol):
    """One Redis, or the nodes of a cluster; `node` counts from 0. `urls`: of each node, for administration."""

    kind: str
    url: str
    urls: list[str]

    @property
    def pids(self) -> dict[str, int]: ...
    def kill(self, node: int = 0) -> None: ...
    def restart(self, node: int = 0) -> None: ...
    def cut(self, random: Random, *, bytes_max: int, node: int = 0) -> int: ...
    def check(self) -> None: ...
    def stop(self) -> None: ...


class Apache:
    """Apache Kafka; a killed one is not taken for one that died by itself. `proxy` stands before a second listener, and
    whoever begins there stays there: the broker advertises the proxy's address on it.
    """

    kind = "apache"

    def __init__(self, directory: Path, properties: Mapping[str, str]) -> None:
        self.proxy = Proxy()
        port = free_port()
        listeners = {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://{self.proxy.address}",
        }
        self._kafka = ApacheKafka(directory, port=port, properties={**listeners, **properties}, secured=("PROXIED",))
        self.proxy.upstream = self._kafka.address("PROXIED").replace("localhost", "127.0.0.1")
        self.proxy.__enter__()
        self._is_down = False

    @property
    def bootstrap(self) -> str:
        return self._kafka.bootstrap

    @property
    def pid(self) -> int:
        return self._kafka.pid

    def kill(self) -> None:
        self._is_down = True
        self._kafka.kill()

    def restart(self) -> None:
        self._kafka.restart()
        self._is_down = False

    def check(self) -> None:
        if not self._is_down:
            self._kafka.check()

    def stop(self) -> None:
        self.proxy.__exit__()
        self._kafka.stop()


class EmbeddedBroker:
    """Tansu: its log lies in memory, so it may be stopped and continued, never killed."""

    kind = "embedded"

    def __init__(self, directory: Path) -> None:
        self._servers = Servers(directory, redis=False)

    @property
    def bootstrap(self) -> str:
        return self._servers.bootstrap

    @property
    def pid(self) -> int:
        return self._servers.pids["broker"]

    def kill(self) -> None:
        raise EmbeddedError("the embedded broker keeps its log in memory: kill Apache Kafka")

    def restart(self) -> None:
        raise EmbeddedError("the embedded broker keeps its log in memory: kill Apache Kafka")

    def check(self) -> None:
        self._servers.check()

    def stop(self) -> None:
        self._servers.stop()


class EmbeddedRedis:
    """Valkey with an append-only file, written out every second."""

    kind = "embedded"

    def __init__(self, directory: Path) -> None:
        self._servers = Servers(directory, broker=False)
        self._aof = directory / "redis" / "appendonlydir"
        self._is_down = False
        self.url = self._servers.redis_url
        self.urls = [self.url]

    @property
    def pids(self) -> dict[str, int]:
        return dict(self._servers.pids)

    def kill(self, node: int = 0) -> None:
        self._is_down = True
        self._servers.kill_redis()

    def restart(self, node: int = 0) -> None:
        self._servers.restart_redis()
        self._is_down = False

    def cut(self, random: Random, *, bytes_max: int, node: int = 0) -> int:
        return cut_tail(self._aof, random, bytes_max=bytes_max)

    def check(self) -> None:
        if not self._is_down:
            self._servers.check()

    def stop(self) -> None:
        self._servers.stop()


class RedisNodes:
    """Debian's redis-server: one, or a cluster of three."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self._servers = redis_servers.start(directory, kind)
        self._down: set[int] = set()
        self.url = self._servers.url
        self.urls = [f"redis://127.0.0.1:{node.port}" for node in self._servers.nodes]

    @property
    def pids(self) -> dict[str, int]:
        nodes = self._servers.nodes
        if len(nodes) == 1:
            return {"redis": nodes[0].pid}
        return {f"redis-{number}": node.pid for number, node in enumerate(nodes)}

    def kill(self, node: int = 0) -> None:
        self._down.add(node)
        self._servers.kill(node)

    def restart(self, node: int = 0) -> None:
        self._servers.restart(node)
        self._down.discard(node)

    def cut(self, random: Random, *, bytes_max: int, node: int = 0) -> int:
        return cut_tail(self._servers.nodes[node].directory / "appendonlydir", random, bytes_max=bytes_max)

    def check(self) -> None:
        for number, node in enumerate(self._servers.nodes):
            if number not in self._down and not is_alive(node.pid):
                raise EmbeddedError(f"redis node {number} ended by itself: {tail_of(node.directory / 'log')}")

    def stop(self) -> None:
        self._servers.stop()


def is_alive(pid: int) -> bool:
    """Whether a child of ours runs; it is not reaped here."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def cut_tail(aof: Path, random: Random, *, bytes_max: int) -> int:
    """Takes a random number of bytes off the newest increment of an append-only file, as a power loss does; how many.

    The base file stays: only what was not yet written out can be lost.
    """
    share = random.random()  # drawn in any case: a plan must not depend on how far the file got
    newest = max(aof.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    cut = min(int(share * bytes_max), newest.stat().st_size)
    with suppress(FileNotFoundError):
        os.truncate(newest, newest.stat().st_size - cut)
    return cut


def start_broker(kind: str, directory: Path, *, properties: Mapping[str, str]) -> BrokerServer:
    """`apache` or `embedded`."""
    return Apache(directory, properties) if kind == "apache" else EmbeddedBroker(directory)


def start_redis(kind: str, directory: Path) -> RedisServer:
    """`embedded` (the wheel's, on a unix socket), `redis7` or `cluster` (redis-server)."""
    return EmbeddedRedis(directory) if kind == "embedded" else RedisNodes(directory, kind)
