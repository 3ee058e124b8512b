"""Producers write batches as they like; one that nobody can read is a dead letter, and ends nobody."""

import os
import re

import pytest
from confluent_kafka import Producer

from pipeline.embedded import free_port
from pipeline.kafka.slices import LogRecord
from tests import raw_batches
from tests.integration.worlds import World, action, now_ms, traffic

pytestmark = pytest.mark.services
CODECS = ("gzip", "snappy", "lz4", "zstd")
MONSTERS = 20


def test_batches_of_every_codec_are_read_and_one_that_unfolds_without_end_is_a_dead_letter(servers, tmp_path):
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
        strange = [action(f"strange{n}", "odd", "i1")[1] for n in range(3)]
        foreign = raw_batches.batch(0, strange, header=raw_batches.FOREIGN, key=b"odd", ts_ms=now_ms())
        raw_batches.send(servers.bootstrap, f"{world.prefix}user_actions", 0, foreign)
        for message in world.messages("user_actions"):
            if message.key() == b"odd":
                record = LogRecord(message.offset(), message.timestamp()[1], message.key(), message.value())
                world.sent["user_actions"][(0, record.offset)] = record
        world.wait_until_answered(within_s=60)
        assert world.digest() == world.replayed_digest()
        unfoldable = Producer(
            {**common, "compression.type": "zstd", "message.max.bytes": 1_000_000_000, "batch.size": 500_000_000,
             "linger.ms": 10_000, "batch.num.messages": MONSTERS, "queue.buffering.max.kbytes": 1_000_000}
        )  # fmt: skip
        for _ in range(MONSTERS):
            unfoldable.produce(f"{world.prefix}user_actions", b" " * (15 << 20), "u", partition=0)
        assert unfoldable.flush(60) == 0
        world.publish("user_actions", traffic(100, seed="after"))
        world.wait_until_answered(within_s=60)
        assert world.digest() == world.replayed_digest()
        [letter] = world.dead().values()
        said = re.fullmatch(
            rb"offsets (\d+) to (\d+) cannot be read: .* more than \d+ bytes in one batch.*", letter["reason"]
        )
        assert said, letter
        assert int(said[2]) - int(said[1]) == MONSTERS - 1
        assert worker.poll() is None
    finally:
        world.stop()
