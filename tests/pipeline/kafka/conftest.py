"""A consumer of the driver that is never started."""

import faust
import pytest

from pipeline.kafka import driver
from pipeline.kafka.edge import Options


class Edge:
    """An edge that has answered up to 7."""

    def committable(self, part):
        return 7 if part.partition == 0 else None

    def identity(self, part):
        return "00112233445566aa"


@pytest.fixture
async def consumer():
    driver.register()
    app = faust.App("t", broker=f"{driver.SCHEME}://127.0.0.1:1", topic_disable_leader=True)
    app.edge = Edge()
    app.edge_options = Options(fetch_wait_ms=10, fetch_max_bytes=17_000_000, slice_max=500)
    yield app.consumer
    app.consumer._thread.thread_loop.close()  # made with the thread object, which is never started here
