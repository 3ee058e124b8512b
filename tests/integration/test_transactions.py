"""Producers that write in transactions: what was taken back counts for nobody, and a marker is no record that waits."""

from contextlib import ExitStack

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from features.schema import USER_ACTIONS
from pipeline.apache_kafka import ApacheKafka
from pipeline.embedded import EmbeddedError
from pipeline.kafka.reading import Reader
from tests.conftest import unavailable
from tests.integration.worlds import World, action, traffic, wait

pytestmark = [pytest.mark.services, pytest.mark.apache]


@pytest.fixture
def world(redis, tmp_path):
    """On a broker of its own; what `world.producer` sends is part of a transaction."""
    with ExitStack() as stack:
        try:
            broker = ApacheKafka(tmp_path / "broker")
        except EmbeddedError as error:
            unavailable(f"no Apache Kafka: {error}")
        stack.callback(broker.stop)
        world = World(broker.bootstrap, redis, tmp_path, "transactions")
        stack.callback(world.stop)
        world.producer = Producer(
            {"bootstrap.servers": broker.bootstrap, "transactional.id": "t", "partitioner": "murmur2_random"}
        )
        world.producer.init_transactions(30)
        yield world


def standing(world):
    """{partition: (the log's end, what the group has committed)} of the actions."""
    kafka = world.settings.kafka
    with Reader(kafka, group=kafka.group) as reader:
        ranges = reader.ranges(world.prefix + USER_ACTIONS)
        committed = reader.committed(world.prefix + USER_ACTIONS, list(ranges))
        return {partition: (held.end, committed.get(partition)) for partition, held in ranges.items()}


def answered_to_the_end(world):
    return all(end == committed for end, committed in standing(world).values())


def commit(world, records):
    world.producer.begin_transaction()
    world.publish(USER_ACTIONS, records)
    world.producer.commit_transaction(30)


def test_a_log_is_answered_beyond_its_last_marker_and_goes_on_where_retention_took_all_of_it(world):
    worker = world.start()
    commit(world, traffic(200))
    world.producer.begin_transaction()
    for number in range(20):
        key, value = action(f"back{number}", "nobody", "i1")
        world.producer.produce(world.prefix + USER_ACTIONS, value, key)
    assert world.producer.flush(20) == 0
    world.producer.abort_transaction(30)
    world.wait_until_answered()
    wait(lambda: answered_to_the_end(world), 30, lambda: f"{standing(world)}\n{world.logs()[-3000:]}")
    ends = {partition: end for partition, (end, _) in standing(world).items()}
    assert sum(ends.values()) > 220  # markers take offsets, too
    assert world.counts()["applied:user_actions"] == 200

    worker.terminate()
    worker.wait(60)
    admin = AdminClient({"bootstrap.servers": world.bootstrap, "log_level": 0})
    cuts = [TopicPartition(world.prefix + USER_ACTIONS, partition, end) for partition, end in ends.items()]
    for cut in admin.delete_records(cuts).values():
        cut.result(30)
    again = world.start()
    commit(world, traffic(100, seed="after"))
    world.wait_until_answered()
    assert again.poll() is None
    assert world.digest() == world.replayed_digest()
