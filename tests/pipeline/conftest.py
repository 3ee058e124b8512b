"""What every test of the pipeline leaves behind: nothing in the process."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_are_nobodys() -> Iterator[None]:
    """A logger that is used while logs are set up keeps that for good, deaf to the tests that come after in its process."""
    yield
    assert not structlog.get_config()["cache_logger_on_first_use"], "this test set the logs up for the whole process"
