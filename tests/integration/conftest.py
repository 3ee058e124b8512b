"""Embedded servers for the whole session; absent: skip on a laptop, fail where CI=true."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedError, Servers, embedded


def need(error: EmbeddedError) -> None:
    """Skips on a laptop, fails in CI: a suite that silently tests nothing is worse than a red one."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"the embedded servers are needed in CI: {error}")
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both servers, shared by the session: use topics, groups and `app` names of your own."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(embedded(tmp_path_factory.mktemp("servers")))
        except EmbeddedError as error:
            need(error)
        yield started


@pytest.fixture(scope="session")
def broker(servers: Servers) -> str:
    """The shared broker's bootstrap address."""
    return servers.bootstrap


@pytest.fixture(scope="session")
def redis(servers: Servers) -> str:
    """The shared Redis's URL."""
    return servers.redis_url


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Callable[..., Servers]]:
    """Starts servers for one test alone, to stop, kill and restart: `own_servers()`, `own_servers(broker=False)`."""
    with ExitStack() as stack:

        def start(**kinds: bool) -> Servers:
            try:
                return stack.enter_context(embedded(tmp_path / "servers", **kinds))
            except EmbeddedError as error:
                need(error)
                raise

        yield start
