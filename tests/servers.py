"""The servers that tests run on, chosen by a setting: the same tests, another broker.

HEADRACE_TEST_BROKER = `embedded` (default) | `apache` (started here, by pipeline/apache_kafka.py) | HOST:PORT (runs).
HEADRACE_TEST_REDIS = `embedded` (default) | `redis7` | `cluster`, see tests/redis_servers.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import embedded
from pipeline.apache_kafka import ApacheKafka
from pipeline.embedded import EmbeddedError
from tests import redis_servers
from tests.redis_servers import REDIS

BROKER = os.environ.get("HEADRACE_TEST_BROKER", "embedded")


class Servers:
    """Redis and the broker of the chosen kind, with the interface of `pipeline.embedded.Servers`.

    Raises `EmbeddedError` where the kind cannot be had on this machine.
    """

    def __init__(self, directory: Path, *, redis: bool = True, broker: bool = True, kind: str = BROKER) -> None:
        self._apache: ApacheKafka | None = None
        own_redis = redis and REDIS != "embedded"
        self._redis = redis_servers.start(directory / "redis", REDIS) if own_redis else None
        self._embedded = embedded.Servers(
            directory, redis=redis and not own_redis, broker=broker and kind == "embedded"
        )
        self.redis_url = self._redis.url if self._redis else self._embedded.redis_url
        self.bootstrap = self._embedded.bootstrap
        if not broker or kind == "embedded":
            return
        if kind != "apache":
            self.bootstrap = kind
            return
        try:
            self._apache = ApacheKafka(directory / "apache")
        except BaseException:
            self.stop()
            raise
        self.bootstrap = self._apache.bootstrap

    @property
    def pids(self) -> dict[str, int]:
        """Process id by server: `redis` (a cluster's first), `broker` (none of a broker that was running before)."""
        apache = {"broker": self._apache.pid} if self._apache else {}
        redis = {"redis": self._redis.nodes[0].pid} if self._redis else {}
        return self._embedded.pids | redis | apache

    def kill_redis(self) -> None:
        """Kill -9; of a cluster the first node."""
        self._redis.kill() if self._redis else self._embedded.kill_redis()

    def restart_redis(self) -> None:
        """On the same address and append-only file."""
        self._redis.restart() if self._redis else self._embedded.restart_redis()

    def kill_broker(self) -> None:
        """Kill -9."""
        self._durable_broker().kill()

    def restart_broker(self) -> None:
        """On the same address and data."""
        self._durable_broker().restart()

    def _durable_broker(self) -> ApacheKafka:
        if self._apache is None:
            raise EmbeddedError("this broker keeps its log in memory, or is not ours: HEADRACE_TEST_BROKER=apache")
        return self._apache

    def stop(self) -> None:
        """Ends what was started; safe to call twice."""
        if self._apache is not None:
            self._apache.stop()
        if self._redis is not None:
            self._redis.stop()
        self._embedded.stop()
