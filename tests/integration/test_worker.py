"""The worker as a process on a real broker and a real Redis: event in, recommendation out, whatever happens."""

import os
import signal
import time
from itertools import count

import pytest

from pipeline.embedded import free_port
from tests.broken_records import KINDS
from tests.integration.worlds import World, action, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"w{os.getpid()}x{next(NAMES)}", free_port())
    yield made
    made.stop()


def test_an_event_comes_back_as_a_recommendation_with_poison_around_it(world):
    world.start()
    world.publish(
        "items",
        [
            ("i1", b'{"item_id":"i1","ts_ms":1,"attributes":{"price":3}}'),
            ("i2", b'{"item_id":"i2","ts_ms":1,"available":false}'),
        ],
    )
    world.publish("user_actions", [("u", b"{"), *traffic(60), (None, b"\x00"), ("u", b'{"event_id":1}')])
    world.publish("user_actions", [("m", b"x" * 10_000_000), action("last", "newcomer", "i3")])
    world.publish(
        "recommendation_requests", [("u7", b'{"request_id":"r1","user_id":"u7","ts_ms":1,"item_ids":["i9","i2"]}')]
    )
    world.wait_until_answered()
    wait(lambda: any(a.request_id == "r1" for a in world.recommendations()), 60, world.logs)
    answers = world.recommendations()
    (given,) = [answer for answer in answers if answer.request_id == "r1"]
    assert sorted(item.item_id for item in given.items) == ["i2", "i9"]
    assert any(answer.items for answer in answers if answer.request_id is None)
    letters = world.dead()
    assert sorted(letter["field"] for letter in letters.values()) == [b"$", b"$", b"$", b"event_id"]
    assert {letter["value"][:1] for letter in letters.values()} == {b"{", b"\x00", b"x"}
    assert world.counts()["dead_lettered:user_actions"] == 4
    assert world.counts()["applied:user_actions"] == 61
    assert 'headrace_dead_letters_total{field="event_id"' in world.metrics()
    assert world.digest() == world.replayed_digest()


def test_thirty_kinds_of_broken_records_reach_the_dead_letters_by_their_field(world):
    worker = world.start()
    once = [("b", make(0), field) for field, make in KINDS.values()]
    again = [("b", make(n), field) for n in range(1, 20) for field, make in KINDS.values() if len(make(n)) < 1 << 20]
    broken = once + again
    mixed = [(key, value) for key, value, _ in broken]
    for place, good in enumerate(traffic(200)):
        mixed.insert(place * 3, good)
    world.publish("user_actions", mixed)
    world.wait_until_answered()
    wait(lambda: len(world.dead()) >= len(broken), 60, world.logs)
    letters = list(world.dead().values())
    named = sorted(letter["field"].decode().split("[")[0] for letter in letters)
    assert named == sorted(field for _, _, field in broken)
    assert worker.poll() is None
    assert world.digest() == world.replayed_digest()


def test_kill_9_under_load_loses_nothing_and_counts_nothing_twice(world):
    worker = world.start()
    for round_ in range(3):
        world.wait_for_log("reading", times=16 * (round_ + 1))
        world.publish("user_actions", traffic(3000, seed=f"r{round_}-"))
        if round_ < 2:
            time.sleep(0.15)
            worker.kill()
            worker = world.start()
    world.wait_until_answered()
    counts = world.counts()
    assert counts["applied:user_actions"] == 9000
    assert counts.get("repeated:user_actions", 0) == 0
    assert world.digest() == world.replayed_digest()


def test_kill_9_before_the_first_commit_leaves_no_trigger_unanswered(world):
    world.publish("user_actions", [*traffic(1500), ("u", b"{")])
    world.config.write_text(world.config.read_text().replace("commit_interval_ms = 250", "commit_interval_ms = 60000"))
    worker = world.start()
    wait(lambda: world.counts().get("applied:user_actions", 0), 60, world.logs)
    worker.kill()
    worker.wait()
    world.config.write_text(world.config.read_text().replace("commit_interval_ms = 60000", "commit_interval_ms = 250"))
    world.start()
    world.wait_until_answered()
    wait(world.dead, 60, world.logs)
    assert world.counts()["applied:user_actions"] == 1500
    assert world.digest() == world.replayed_digest()


def test_a_redis_that_stands_still_holds_the_worker_up_and_loses_nothing(own_servers, tmp_path):
    servers = own_servers()
    world = World(servers.bootstrap, servers.redis_url, tmp_path, "still", free_port())
    try:
        worker = world.start()
        world.wait_for_log("reading", times=16)
        world.publish("user_actions", traffic(200, seed="a"))
        os.kill(servers.pids["redis"], signal.SIGSTOP)
        world.publish("user_actions", traffic(200, seed="b"))
        time.sleep(5)
        os.kill(servers.pids["redis"], signal.SIGCONT)
        assert "waiting" in world.logs()
        assert "store" in world.logs()
        world.wait_until_answered()
        assert worker.poll() is None
        assert world.digest() == world.replayed_digest()
    finally:
        world.stop()


def test_an_idle_worker_whose_broker_stands_still_says_so_and_goes_on(own_servers, tmp_path):
    servers = own_servers()
    world = World(servers.bootstrap, servers.redis_url, tmp_path, "idle", free_port())
    try:
        worker = world.start()
        world.wait_for_log("reading", times=16)
        os.kill(servers.pids["broker"], signal.SIGSTOP)
        try:
            world.wait_for_log("no answer within 2 s", within_s=60)
            assert 'headrace_paused{cause="broker"} 1.0' in world.metrics()
        finally:
            os.kill(servers.pids["broker"], signal.SIGCONT)
        wait(lambda: 'headrace_paused{cause="broker"} 0.0' in world.metrics(), 60, world.logs)
        world.publish("user_actions", traffic(100))
        world.wait_until_answered()
        assert worker.poll() is None
    finally:
        world.stop()


def test_two_workers_share_and_one_takes_over(world):
    first = world.start()
    world.wait_for_log("reading", times=16)
    world.publish("user_actions", traffic(500, seed="a"))
    world.start()
    world.wait_for_log("reading", times=32)
    world.publish("user_actions", traffic(500, seed="b"))
    world.wait_until_answered()
    first.send_signal(signal.SIGTERM)
    first.wait(60)
    world.publish("user_actions", traffic(500, seed="c"))
    world.wait_until_answered()
    assert first.returncode == 0
    assert world.counts()["applied:user_actions"] == 1500
    assert world.digest() == world.replayed_digest()


def test_a_recreated_topic_is_refused_by_name(world):
    worker = world.start()
    world.wait_for_log("reading", times=16)
    world.publish("user_actions", traffic(20))
    world.wait_until_answered()
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    world.recreate("user_actions")
    again = world.start()
    assert again.wait(60) == 70
    assert f"{world.prefix}user_actions" in world.logs()
    assert "headrace rebuild" in world.logs()
