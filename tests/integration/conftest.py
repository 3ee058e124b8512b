"""Servers for the whole session, of the kind that tests/servers.py reads from the settings.

Absent: skip on a laptop, fail where CI=true. Tests that reach a broker through these fixtures carry the marker
`broker`: what a broker can change, `make test-kafka` repeats on Apache Kafka.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedError, embedded
from tests.conftest import unavailable
from tests.servers import BROKER, Servers

REACH_A_BROKER = {"broker", "own_servers", "servers"}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what reaches a broker; pytest gives every item, of other folders too."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        reached = REACH_A_BROKER & set(item.fixturenames)
        if item.path.is_relative_to(HERE) and reached and "wheels" not in item.fixturenames:
            item.add_marker("broker")


def started(directory: Path, **kinds: bool) -> Servers:
    """Servers, or the word that they cannot be had."""
    try:
        return Servers(directory, **kinds)
    except EmbeddedError as error:
        unavailable(f"no servers of the kind {BROKER}: {error}")
        raise


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both servers, shared by the session: use topics, groups and `app` names of your own."""
    shared = started(tmp_path_factory.mktemp("servers"))
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def broker(servers: Servers) -> str:
    """The shared broker's bootstrap address."""
    return servers.bootstrap


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis for the session."""
    shared = started(tmp_path_factory.mktemp("redis"), broker=False)
    yield shared.redis_url
    shared.stop()


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Callable[..., Servers]]:
    """Starts servers for one test alone, to stop, kill and restart: `own_servers()`, `own_servers(broker=False)`."""
    with ExitStack() as stack:

        def start(**kinds: bool) -> Servers:
            servers = started(tmp_path / "servers", **kinds)
            stack.callback(servers.stop)
            return servers

        yield start


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips, or fails in CI, where the embedded servers that the tested code starts itself cannot be had."""
    try:
        with embedded(tmp_path_factory.mktemp("wheels")):
            pass
    except EmbeddedError as error:
        unavailable(f"no embedded servers: {error}")
