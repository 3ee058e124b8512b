"""Producers compress as they like; a batch that unfolds to gigabytes ends the worker with a word, not by its memory."""

import os

import pytest
from confluent_kafka import Producer

from pipeline.agents import EXIT_BROKEN
from pipeline.embedded import free_port
from tests.integration.worlds import World, action, traffic

pytestmark = pytest.mark.services
CODECS = ("gzip", "snappy", "lz4", "zstd")


def test_batches_of_every_codec_are_read_and_one_that_unfolds_without_end_is_refused(servers, tmp_path):
    world = World(servers.bootstrap, servers.redis_url, tmp_path, f"folded{os.getpid()}", free_port())
    try:
        worker = world.start()
        world.wait_for_log("reading", times=16, within_s=60)
        common = {
            "bootstrap.servers": servers.bootstrap,
            "linger.ms": 50,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
        for codec in CODECS:
            world.producer = Producer({**common, "compression.type": codec})
            world.publish("user_actions", traffic(100, seed=codec))
        world.wait_until_answered(within_s=60)
        assert world.digest() == world.replayed_digest()
        monster = action("big", "u", "i")[1].ljust(15 << 20)
        world.producer = Producer(
            {**common, "compression.type": "zstd", "message.max.bytes": 1_000_000_000, "batch.size": 500_000_000,
             "linger.ms": 10_000, "batch.num.messages": 20, "queue.buffering.max.kbytes": 1_000_000}
        )  # fmt: skip
        for _ in range(20):
            world.producer.produce(f"{world.prefix}user_actions", monster, "u", partition=0)
        assert world.producer.flush(60) == 0
        assert worker.wait(60) == EXIT_BROKEN
        assert "in one batch" in world.logs()
    finally:
        world.stop()
