"""A broker dies, and what only it holds has no leader: those partitions wait for it, the others are answered on."""

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from features.schema import USER_ACTIONS
from pipeline.apache_kafka import ApacheKafka
from pipeline.embedded import EmbeddedError
from tests.conftest import unavailable
from tests.integration.worlds import World, action
from tests.second_broker import NODE, SecondBroker, leaders, make_groups_topic

pytestmark = [pytest.mark.services, pytest.mark.apache, pytest.mark.timeout(300)]

ON_THE_SECOND = (4, 5)


@pytest.fixture
def world(redis, tmp_path):
    """Topics on the first broker; of user_actions two more partitions on the second, `world.second`."""
    started = []
    try:
        started.append(first := ApacheKafka(tmp_path / "first"))
        world = World(first.bootstrap, redis, tmp_path, "leaderless")
        make_groups_topic(first.bootstrap)
        started.append(second := SecondBroker(tmp_path / "second", first=tmp_path / "first"))
    except EmbeddedError as error:
        for each in started:
            each.stop()
        unavailable(f"no Apache Kafka: {error}")
    name = world.prefix + USER_ACTIONS
    admin = AdminClient({"bootstrap.servers": first.bootstrap, "log_level": 0})
    wanted = NewPartitions(name, 6, replica_assignment=[[NODE]] * len(ON_THE_SECOND))
    admin.create_partitions([wanted])[name].result(30)
    assert leaders(first.bootstrap, name) == {0: 1, 1: 1, 2: 1, 3: 1, 4: NODE, 5: NODE}
    world.second = second
    yield world
    world.stop()
    for each in reversed(started):
        each.stop()


def publish(world, name, partitions):
    for partition in partitions:
        sent = [action(f"{name}{partition}-{n}", f"p{partition}u{n}", f"i{n}") for n in range(20)]
        world.publish(USER_ACTIONS, sent, partition=partition)


def test_partitions_without_a_leader_wait_and_the_others_are_answered(world):
    everywhere, on_the_first = range(6), range(4)
    worker = world.start()
    publish(world, "before", everywhere)
    world.wait_until_answered()
    world.second.kill()
    world.wait_for_log("no leader for leaderless.user_actions-4, leaderless.user_actions-5")
    publish(world, "without", on_the_first)
    world.wait_until_answered(within_s=30)
    worker.kill()
    worker.wait()
    world.start()  # begins with partitions that have no leader
    publish(world, "anew", on_the_first)
    world.wait_until_answered(within_s=60)
    world.second.restart()
    publish(world, "after", everywhere)
    world.wait_until_answered(within_s=60)
    assert world.digest() == world.replayed_digest()
    assert "started again by itself" not in world.logs()
