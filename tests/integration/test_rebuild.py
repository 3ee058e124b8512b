"""`headrace rebuild` beside workers that answer on: same digest, nothing lost, nothing twice, nobody unanswered."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from features.facts import Fact, Forget
from features.ids import hash64
from features.state import State
from features.store.layout import prefixes
from features.store.port import Part, StateMoved
from features.store.redis_generations import Generations
from features.tombstone import Tombstone, name, pack
from pipeline import rebuild as module
from pipeline.app import open_store
from pipeline.cli import main
from pipeline.config import ConfigError
from pipeline.dataset import write
from pipeline.embedded import free_port
from pipeline.kafka.slices import LogRecord
from pipeline.lease import Lease
from tests.integration.worlds import World, action, now_ms, traffic, wait
from tests.key_scan import connected, holding

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
NAMES = count()


@pytest.fixture
def world(servers, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 1.5)  # a worker's heartbeat is 0.3 s here
    monkeypatch.setattr(module, "RESTORE_S", 1.5)
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"rb{os.getpid()}x{next(NAMES)}", free_port())
    yield made
    made.stop()


def rebuild(world, *args):
    result = CliRunner().invoke(
        main, ["--config", str(world.config), "rebuild", "--json", *args], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_two_workers_answer_on_while_the_state_is_rebuilt_and_move_over(world):
    world.publish("items", [(f"i{n}", b'{"item_id":"i%d","ts_ms":1}' % n) for n in range(60)])
    workers = [world.start()]
    world.wait_for_log("reading", times=16)
    workers.append(world.start())
    world.wait_for_log("reading", times=32)
    world.publish("user_actions", [*traffic(3000, seed="a"), ("u", b"{")])
    over = threading.Event()

    def produce():
        for round_ in count():
            world.publish("user_actions", traffic(40, seed=f"p{round_}-"))
            if over.wait(0.3):
                return

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        report = rebuild(world)
        wait(lambda: world.logs().count("moved to another generation") == 2, 30, world.logs)
    finally:
        over.set()
        producer.join()
    world.publish("user_actions", traffic(200, seed="z"))
    world.wait_until_answered()
    assert report["generation"] == {"from": 1, "to": 2}
    assert report["records"][f"{world.prefix}items"] == 60
    assert report["refused"] == 1
    assert world.meta()["generation"] == "2"
    assert not world.keys(1)
    sent = len(world.sent["user_actions"]) - 1
    wait(lambda: world.counts().get("applied:user_actions") == sent, 20, world.logs)
    assert world.counts().get("repeated:user_actions", 0) == 0
    assert [worker.poll() for worker in workers] == [None, None]
    assert world.digest() == world.replayed_digest()


def test_one_killed_and_one_asleep_in_the_middle_are_gone_on_with_and_the_digest_is_that_of_a_replay(world):
    world.publish("items", [(f"i{n}", b'{"item_id":"i%d","ts_ms":1}' % n) for n in range(60)])
    world.publish("user_actions", traffic(16_000))
    topic = f"applied:{world.prefix}user_actions"
    asked = [("HGET", f"{prefix}counts", topic) for prefix in prefixes(world.name, 2, 16)]
    with world.wire() as redis:

        def begin(until):
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "--config", str(world.config), "rebuild"],
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
                stderr=subprocess.PIPE,
            )
            applied = lambda: sum(int(count or 0) for count in redis.exchange(asked))  # noqa: E731
            until_s = time.monotonic() + 60
            while applied() <= until:  # all take a second: no pause between looks
                assert process.poll() is None
                assert time.monotonic() < until_s
            return process

        killed = begin(2_000)
        killed.kill()
        killed.wait()
        killed.stderr.close()
        asleep = begin(6_000)
        asleep.send_signal(signal.SIGSTOP)
    report = rebuild(world)
    asleep.send_signal(signal.SIGCONT)
    with asleep:
        assert "generation 2 of the state serves, no longer 1" in asleep.stderr.read().decode()
    assert asleep.returncode == 2
    assert report["went_on"]
    assert 0 < report["records"][f"{world.prefix}user_actions"] < 14_000
    assert world.counts()["applied:user_actions"] == 16_000
    assert world.counts().get("repeated:user_actions", 0) == 0
    assert report["digest"] == world.digest() == world.replayed_digest()


def test_a_folder_goes_first_and_what_the_topics_repeat_counts_once(world, tmp_path):
    old, new = traffic(600, seed="old"), traffic(300, seed="new")
    world.publish("user_actions", old[300:] + new)
    folder = tmp_path / "log"
    write(folder, [("items", b'{"item_id":"i1","ts_ms":1}'), *(("user_actions", value) for _, value in old)])
    report = rebuild(world, str(folder))
    assert report["records"]["folder/user_actions"] == 600
    assert report["records"][f"{world.prefix}user_actions"] == 600
    assert world.counts()["repeated:user_actions"] == 300
    world.sent["items"] = {(0, 0): LogRecord(0, now_ms(), b"i1", b'{"item_id":"i1","ts_ms":1}')}
    for offset, (key, value) in enumerate(old[:300]):
        world.sent["user_actions"][99, offset] = LogRecord(offset, now_ms(), key.encode(), value)
    assert report["digest"] == world.replayed_digest()
    worker = world.start()
    world.publish("user_actions", traffic(100, seed="later"))
    wait(lambda: world.counts().get("applied:user_actions") == 400, 30, world.logs)
    assert worker.poll() is None
    assert world.digest() == world.replayed_digest()


def test_with_other_columns_old_workers_stop_in_words_and_new_ones_go_on(world):
    world.publish("user_actions", traffic(500, seed="a"))
    old = world.start()
    world.wait_until_answered()
    world.configure('[[actions]]\nname = "like"\n')
    refused = world.start()
    assert refused.wait(60) == 70
    assert "`headrace rebuild`" in world.logs()
    report = rebuild(world)
    assert old.wait(60) == 70
    assert "generation 2 of the state serves" in world.logs()
    assert "start this worker with the settings of that rebuild" in world.logs()
    world.start()
    world.publish("user_actions", [*traffic(200, seed="b"), action("like", "u1", "i1", name="like")])
    world.wait_until_answered()
    assert report["records"][f"{world.prefix}user_actions"] == 500
    assert world.digest() == world.replayed_digest()


def test_after_a_rebuild_a_recreated_topic_is_read_from_its_start_and_answered(world):
    world.publish("user_actions", traffic(300, seed="a"))
    worker = world.start()
    world.wait_until_answered()
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    world.recreate("user_actions")
    world.sent.clear()
    world.publish("user_actions", traffic(40, seed="b"))  # fewer than were committed of the old log
    rebuild(world)
    world.start()
    world.wait_until_answered()
    wait(lambda: world.counts().get("applied:user_actions") == 40, 30, world.logs)
    assert world.digest() == world.replayed_digest()


def test_a_worker_that_slept_through_the_flip_writes_nothing_to_the_old_state_and_moves_over(world):
    world.publish("user_actions", traffic(300, seed="a"))
    worker = world.start()
    world.wait_until_answered()
    worker.send_signal(signal.SIGSTOP)
    world.publish("user_actions", traffic(300, seed="b"))
    report = rebuild(world)
    assert report["removed"] > 0
    worker.send_signal(signal.SIGCONT)
    world.wait_until_answered()
    wait(lambda: world.counts().get("applied:user_actions") == 600, 30, world.logs)
    assert worker.poll() is None
    assert not world.keys(1)
    assert world.counts().get("repeated:user_actions", 0) == 0
    assert world.digest() == world.replayed_digest()


def test_an_emptied_redis_is_filled_by_a_rebuild_beside_the_workers(world):
    world.publish("user_actions", traffic(500, seed="a"))
    worker = world.start()
    world.wait_until_answered()
    world.empty_redis()
    world.publish("user_actions", traffic(100, seed="b"))
    report = rebuild(world)
    world.wait_until_answered()
    world.wait_for_log("moved to another generation", within_s=30)
    wait(lambda: world.counts().get("applied:user_actions") == 600, 30, world.logs)
    assert str(report["generation"]["to"]) == world.meta()["generation"]
    assert worker.poll() is None
    assert world.digest() == world.replayed_digest()


def test_a_second_rebuild_is_refused_while_one_is_at_work(world, monkeypatch):
    monkeypatch.setattr(module, "LEASE_MS", 500)
    settings = world.settings
    store = open_store(settings)
    standing = store.generations().look()
    with Lease(settings, "somebody:1:x", standing, standing.next):
        result = CliRunner().invoke(main, ["--config", str(world.config), "rebuild"])
    store.close()
    assert result.exit_code == 2
    assert "a rebuild is at work: somebody:1:x" in result.stderr


def test_a_redis_that_lost_the_flip_keeps_what_was_built_and_the_next_rebuild_flips_again(world, monkeypatch):
    world.publish("user_actions", traffic(200))
    worker = world.start()
    world.wait_until_answered()
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    monkeypatch.setattr(module, "GRACE_BEATS", 0)
    with monkeypatch.context() as lost:
        lost.setattr(Generations, "flip", lambda *_, **__: None)
        with pytest.raises(StateMoved, match="generation 1 serves again"):
            module.rebuild(world.settings)
    again = module.rebuild(world.settings)
    assert (again.generation, again.went_on) == (2, True)
    world.publish("user_actions", traffic(100, seed="after"))
    world.wait_until_answered()
    assert worker.poll() is None
    assert world.digest() == world.replayed_digest()


def forget_once(world, user):
    """The serving state forgets a user by a null that no topic holds any more: retention dropped it."""
    store = world.opened()
    state, gone = State(store, world.settings.domain), Part("gone", 0)
    offset = state.resume(gone, committed=None, log_start=0).hold_to + 1
    state.apply(gone, [Fact(offset, Forget(user, now_ms()))], last=offset)
    store.close()


def test_who_was_forgotten_by_a_null_that_is_gone_stays_so_though_folder_and_topics_hold_the_user(world, tmp_path):
    world.publish("user_actions", traffic(400, seed="a"))
    shown = {"impression_id": "s1", "user_id": "u3", "item_ids": ["i1", "i2"], "ts_ms": now_ms()}
    world.publish("impressions", [("u3", json.dumps(shown).encode())])
    folder = tmp_path / "log"
    write(folder, [("user_actions", value) for _, value in traffic(400, seed="f")])
    for user in ("u3", "u4", "nobody-yet"):
        forget_once(world, user)
    report = rebuild(world, str(folder))
    assert report["digest"] == world.digest()  # before it served they were gone
    with connected(world.redis_url) as client:
        for user in ("u3", "u4"):
            assert not holding(client, user, of=world.name)
        assert holding(client, "u5", of=world.name)
    assert world.counts()["applied:user_actions"] == 400  # anonymous counts stay
    assert world.counts()["applied:folder/user_actions"] == 400
    old = now_ms() - 60_000
    world.start()
    world.publish(
        "user_actions", [action(f"late-{user}", user, "i1", ts_ms=old) for user in ("u3", "u4", "nobody-yet")]
    )
    wait(lambda: world.counts().get("repeated:user_actions") == 3, 60, world.logs)
    with connected(world.redis_url) as client:
        assert not holding(client, "nobody-yet", of=world.name)
    assert rebuild(world, str(folder), "--anew")["generation"] == {"from": 2, "to": 3}  # and once more, from there
    with connected(world.redis_url) as client:
        assert not holding(client, "u3", of=world.name)


def test_one_killed_while_it_carries_what_is_remembered_is_gone_on_with_and_brings_nobody_back(world, tmp_path):
    world.publish("user_actions", traffic(400, seed="a"))
    folder = tmp_path / "log"
    write(folder, [("user_actions", value) for _, value in traffic(400, seed="f")])
    forget_once(world, "u3")
    salt, shards = bytes.fromhex(world.meta()["salt"]), world.settings.redis.shards
    strangers = [f"stranger-{number}" for number in range(20_000)]

    def keys(generation):
        within = prefixes(world.name, generation, shards)
        return [f"{within[hash64(user) % shards]}f:{name(hash64(user), salt)}" for user in ("u3", *strangers)]

    with world.wire() as redis:
        redis.exchange([("SET", key, pack(Tombstone(now_ms())), "EX", 1_000) for key in keys(1)[1:]])
        looks = [("EXISTS", key) for key in keys(2)[::200]]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "--config", str(world.config), "rebuild", str(folder)],
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + 60
        while not any(redis.exchange(looks)):  # all take a second: no pause between looks
            assert process.poll() is None
            assert time.monotonic() < until_s
        process.kill()
        process.wait()
        assert not all(redis.exchange(looks))
        assert world.meta()["generation"] == "1"
    assert rebuild(world, str(folder))["went_on"]
    with world.wire() as redis:
        assert all(redis.exchange([("EXISTS", key) for key in keys(2)]))
    with connected(world.redis_url) as client:
        assert not holding(client, "u3", of=world.name)
        assert holding(client, "u5", of=world.name)


def test_where_the_topics_hold_the_nulls_the_digest_is_that_of_a_replay(world):
    records = traffic(600, seed="a")
    world.publish("user_actions", [*records[:300], ("u3", None), *records[300:]])
    rebuild(world)
    report = rebuild(world)  # from a state that has forgotten u3
    assert report["generation"] == {"from": 2, "to": 3}
    assert report["digest"] == world.digest() == world.replayed_digest()


def test_one_that_died_and_into_which_half_a_script_came_is_refused_and_begun_again_with_anew(world, monkeypatch):
    world.publish("user_actions", traffic(300, seed="a"))

    def dies(*_):
        raise ConfigError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(module, "digest", dies)
        died = CliRunner().invoke(main, ["--config", str(world.config), "rebuild"])
    assert "the machine is gone" in died.output
    generation = int(world.meta()["building"])
    with world.wire() as redis:
        for prefix in prefixes(world.name, generation, world.settings.redis.shards):
            redis.exchange([("HINCRBY", f"{prefix}hwm", "begun", 1)])
    assert "hold half a script" in doctor(world)
    world.publish("user_actions", traffic(300, seed="b"))
    refused = CliRunner().invoke(main, ["--config", str(world.config), "rebuild"])
    assert refused.exit_code
    assert "`headrace rebuild --anew`" in refused.output
    report = rebuild(world, "--anew")
    assert report["digest"] == world.digest() == world.replayed_digest()


def test_what_a_rebuild_left_goes_with_anew_and_the_old_state_stays_with_keep_old_until_it_is_cleaned(world):
    world.publish("user_actions", traffic(300, seed="a"))
    rebuild(world)
    store = open_store(world.settings)
    standing = store.generations().look()
    with Lease(world.settings, "somebody:1:x", standing, standing.next):  # and died
        begun = open_store(world.settings, generation=standing.next)
        begun.open(world.settings.domain)
        begun.begin(Part("folder/items", 0), 0)
        begun.close()
    store.close()
    assert world.keys(3)
    assert "died while it filled generation 3" in doctor(world)
    kept = world.keys(2)
    report = rebuild(world, "--anew", "--keep-old")
    assert (report["generation"], report["went_on"], report["removed"]) == ({"from": 2, "to": 4}, False, 0)
    assert not world.keys(3)
    assert set(world.keys(2)) >= set(kept)
    assert "generation 2 serves no more" in doctor(world)

    salt, shards = bytes.fromhex(world.meta()["salt"]), world.settings.redis.shards
    prefix = prefixes(world.name, 2, shards)[hash64("u3") % shards]
    with world.wire() as redis:  # a worker that had not moved over yet
        redis.exchange([("SET", f"{prefix}f:{name(hash64('u3'), salt)}", pack(Tombstone(now_ms())), "EX", 1_000)])
    assert rebuild(world, "--clean")["removed"] >= len(kept)
    assert not world.keys(2)
    assert "serves no more" not in doctor(world)
    with connected(world.redis_url) as client:
        assert not holding(client, "u3", of=world.name)
    assert rebuild(world, "--clean") == {"removed": 0}


def doctor(world):
    return CliRunner().invoke(main, ["--config", str(world.config), "doctor"]).output
