"""What every test shares: Hypothesis without a deadline (a busy machine is not a wrong answer), and one Redis."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")


def unavailable(reason: str) -> None:
    """A missing service skips a test on a laptop and fails it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one embedded server for the whole run, with an append-only file as in production."""
    try:
        from pipeline.embedded import EmbeddedError, Servers
    except ImportError as error:
        unavailable(f"no embedded Redis: {error}")
    directory: Path = tmp_path_factory.mktemp("redis")
    try:
        servers = Servers(directory, broker=False)
    except EmbeddedError as error:
        unavailable(f"no embedded Redis: {error}")
    yield servers.redis_url
    servers.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """An empty Redis. Scripts are forgotten, too: their first call has to load them."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        client.script_flush()
    return redis_server
