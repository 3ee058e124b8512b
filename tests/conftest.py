"""What every test shares: Hypothesis without a deadline (a busy machine is not a wrong answer), and one Redis."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import settings

if TYPE_CHECKING:
    from pipeline.embedded import Servers
    from tests.redis_servers import Single

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")


def unavailable(reason: str) -> None:
    """A missing service skips a test on a laptop and fails it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def start_redis(directory: Path) -> Servers:
    """An embedded server with an append-only file, as in production."""
    try:
        from pipeline.embedded import EmbeddedError, Servers
    except ImportError as error:
        unavailable(f"no embedded Redis: {error}")
    try:
        return Servers(directory, broker=False)
    except EmbeddedError as error:
        unavailable(f"no embedded Redis: {error}")
    raise AssertionError("unreachable: skipped or failed")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one server for the whole run."""
    servers = start_redis(tmp_path_factory.mktemp("redis"))
    yield servers.redis_url
    servers.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Servers]:
    """A server for one test alone, to kill and start again."""
    servers = start_redis(tmp_path / "own")
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def redis_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Single]]:
    """Servers by kind (tests/redis_servers.py), each started when it is first asked for, and emptied each time."""
    from pipeline.embedded import EmbeddedError
    from tests.redis_servers import start

    started: dict[str, Single] = {}

    def of(kind: str) -> Single:
        try:
            found = started.get(kind) or started.setdefault(kind, start(tmp_path_factory.mktemp(kind), kind))
        except EmbeddedError as error:
            unavailable(f"no Redis of the kind {kind}: {error}")
            raise
        found.clear()
        return found

    yield of
    for server in started.values():
        server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """An empty Redis. Scripts are forgotten, too: their first call has to load them."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        client.script_flush()
    return redis_server
