"""A broker dies, and what only it holds has no leader: those partitions wait for it, the others are answered on."""

import time
from contextlib import ExitStack

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from features.schema import USER_ACTIONS
from pipeline.apache_kafka import ApacheKafka
from pipeline.embedded import EmbeddedError
from tests.conftest import unavailable
from tests.integration.worlds import World, action, wait
from tests.second_broker import NODE, SecondBroker, leaders, make_groups_topic

pytestmark = [pytest.mark.services, pytest.mark.apache, pytest.mark.timeout(600)]

WATCHDOG_S = 6.0
LEADERS = {0: 1, 1: 1, 2: 1, 3: 1, 4: NODE, 5: NODE}  # of user_actions
LEADERLESS = "leaders: no broker leads leaderless.user_actions-4, leaderless.user_actions-5"


@pytest.fixture
def world(redis, tmp_path):
    """Topics on the first broker; of user_actions two more partitions on the second, `world.second`."""
    with ExitStack() as stack:
        try:
            first = ApacheKafka(tmp_path / "first")
            stack.callback(first.stop)
            world = World(first.bootstrap, redis, tmp_path, "leaderless")
            stack.callback(world.stop)
            make_groups_topic(first.bootstrap)
            world.second = SecondBroker(tmp_path / "second", first=tmp_path / "first")
            stack.callback(world.second.stop)
        except EmbeddedError as error:
            unavailable(f"no Apache Kafka: {error}")
        settings = world.config.read_text()
        world.config.write_text(settings.replace("[worker]", f"[worker]\nwatchdog_ms = {WATCHDOG_S * 1000:.0f}"))
        name = world.prefix + USER_ACTIONS
        admin = AdminClient({"bootstrap.servers": first.bootstrap, "log_level": 0})
        wanted = NewPartitions(name, len(LEADERS), replica_assignment=[[NODE], [NODE]])
        admin.create_partitions([wanted])[name].result(30)
        wait(lambda: leaders(first.bootstrap, name) == LEADERS, 30, lambda: str(leaders(first.bootstrap, name)))
        yield world


def publish(world, name, partitions):
    for partition in partitions:
        sent = [action(f"{name}{partition}-{n}", f"p{partition}u{n}", f"i{n}") for n in range(20)]
        world.publish(USER_ACTIONS, sent, partition=partition)


def test_partitions_without_a_leader_wait_and_the_others_are_answered(world):
    on_the_first = [partition for partition, leader in LEADERS.items() if leader != NODE]
    worker = world.start()
    publish(world, "before", LEADERS)
    world.wait_until_answered()
    world.second.kill()
    world.wait_for_log(LEADERLESS)
    publish(world, "without", on_the_first)
    world.wait_until_answered()
    time.sleep(2 * WATCHDOG_S)  # nothing is read of two partitions, and nobody is to blame
    worker.kill()
    worker.wait()
    world.start()  # begins with partitions that have no leader
    world.wait_for_log(LEADERLESS, times=2)
    publish(world, "anew", on_the_first)
    world.wait_until_answered()
    time.sleep(2 * WATCHDOG_S)
    world.second.restart()
    publish(world, "after", LEADERS)
    world.wait_until_answered()
    assert world.digest() == world.replayed_digest()
    assert "started again by itself" not in world.logs()
