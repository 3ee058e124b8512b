"""Everything in Redis is gone under a running worker: state, layout, codes and log identities come back by themselves."""

import os

import pytest

from pipeline.embedded import free_port
from tests.integration.worlds import World, traffic, wait

pytestmark = pytest.mark.services


def test_a_worker_whose_redis_is_emptied_restores_state_and_meta(servers, tmp_path):
    world = World(servers.bootstrap, servers.redis_url, tmp_path, f"empty{os.getpid()}", free_port())
    try:
        worker = world.start()
        world.wait_for_log("reading", times=16)
        world.publish("user_actions", traffic(200, seed="a"))
        world.wait_until_answered()
        before = world.meta()
        world.empty_redis()
        world.publish("user_actions", traffic(50, seed="b"))
        wait(lambda: world.meta() == before, 60, world.logs)
        world.wait_until_answered()
        wait(lambda: world.counts().get("applied:user_actions") == 250, 60, world.logs)
        assert worker.poll() is None
        assert world.digest() == world.replayed_digest()
    finally:
        world.stop()
