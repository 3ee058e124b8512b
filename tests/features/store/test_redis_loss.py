"""A Redis that dies with its tail: killed with -9, the end of its append-only file cut off, started again."""

import random
import re
import time

import pytest
import redis

from features.digest import digest
from features.domain import Action, Domain
from features.state import State
from features.store.layout import prefixes
from features.store.memory import MemoryStore
from features.store.port import StateForeign, StateLost, StoreAway
from features.store.redis import RedisStore
from pipeline.embedded import EmbeddedError
from tests.conftest import unavailable
from tests.features.store.logs import PART, go_on, log, patiently
from tests.redis_servers import Single, find_redis7, start

pytestmark = pytest.mark.services

DOMAIN = Domain(actions=(Action("view"), Action("buy", purchase=True)))


def test_a_redis_emptied_under_a_worker_gets_state_and_meta_back(redis_url):
    facts = log(200, 4)
    store = RedisStore(redis_url, app="t", shards=4)
    state = State(store, DOMAIN)
    store.bind_log(PART.topic, "0a1b2c3d4e5f6071")
    go_on(state, facts, 200, 50)
    before, whole = store._meta.read(), digest(store, state.layout, DOMAIN)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with pytest.raises(StateLost):
        state.beat()
    go_on(state, facts, 200, 50)
    assert store._meta.read() == before
    assert digest(store, state.layout, DOMAIN) == whole
    store.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_redis_that_lost_its_tail_is_made_good_from_the_log(own_redis, seed):
    rng = random.Random(seed)
    facts = log(900, seed)
    store = RedisStore(own_redis.redis_url, app="t", shards=4)
    state = State(store, DOMAIN)
    losses = 0
    for until in (300, 600, 900):
        losses += go_on(state, facts, until, 50)
        own_redis.kill_redis()
        tail = max((own_redis.directory / "redis" / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.name)
        with tail.open("r+b") as file:
            file.truncate(rng.randrange(tail.stat().st_size // 2, tail.stat().st_size))
        own_redis.restart_redis()
        for _ in range(3):
            try:
                state.beat()
                break
            except StoreAway:
                continue
            except StateLost:
                losses += 1
                break
    losses += go_on(State(store, DOMAIN), facts, 900, 50)
    twin = MemoryStore(4)
    go_on(State(twin, DOMAIN), facts, 900, 70)
    assert losses
    assert digest(store, state.layout, DOMAIN) == digest(twin, state.layout, DOMAIN)
    assert store.counts() == twin.counts()


def wait_until_written(tail):
    """While the disk is slow Redis keeps what it is to write, for 2 s and more."""
    until_s = time.monotonic() + 30
    while not tail.read_bytes().endswith(b"EXEC\r\n"):
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
def test_a_script_that_a_power_loss_tore_leaves_nothing_behind(tmp_path, kind):
    server = start(tmp_path, kind)
    (node,) = server.nodes
    try:
        with node.client() as client:
            client.eval("redis.call('SET', 'half', 1) redis.call('SET', 'long', string.rep('z', 1000))", 0)
        (tail,) = (node.directory / "appendonlydir").glob("*.incr.aof")
        wait_until_written(tail)
        server.kill()
        with tail.open("r+b") as file:
            file.truncate(tail.stat().st_size - 500)
        server.restart()
        with node.client() as client:
            assert client.exists("half") == 0
            client.eval("redis.call('SET', 'one', 1) redis.call('SET', 'two', 2)", 0)
        server.restart()  # by itself Redis 7.0 brings the half back now, with the next whole script
        with node.client() as client:
            assert (client.exists("half"), client.mget("one", "two")) == (0, [b"1", b"2"])
    finally:
        server.stop()


@pytest.mark.parametrize("torn", ["in its middle", "in its EXEC"])
def test_a_torn_script_that_a_server_brings_back_is_refused(tmp_path, torn):
    """As Redis 7 is set by itself: it takes a torn file, and goes on writing behind what is left in it. A server that
    takes it off counts right.
    """
    try:
        server = Single(tmp_path, find_redis7(), "--aof-load-truncated", "yes")
    except EmbeddedError as error:
        unavailable(str(error))
    facts = log(400, 1)
    store = RedisStore(server.url, app="t", shards=4)
    refused = False
    try:
        go_on(State(store, DOMAIN), facts, 200, 50)
        (tail,) = (server.nodes[0].directory / "appendonlydir").glob("*.incr.aof")
        wait_until_written(tail)
        server.kill()
        written = tail.read_bytes()
        half = (written.rindex(b"MULTI") + len(written)) // 2
        with tail.open("r+b") as file:
            file.truncate(half if torn == "in its middle" else len(written) - 5)
        server.restart()
        go_on(patiently(lambda: State(store, DOMAIN)), facts, 300, 50)  # what is left is in the file, not in the state
        server.restart()
        try:
            go_on(patiently(lambda: State(store, DOMAIN)), facts, 400, 50)
        except StateForeign as error:
            assert re.search(r"half a script .* TORN \{.*headrace rebuild", str(error))
            refused = True
        twin = MemoryStore(4)
        state = State(twin, DOMAIN)
        go_on(state, facts, 400, 50)
        assert refused or store.counts() == twin.counts()
    finally:
        store.close()
        server.stop()
    with (server.nodes[0].directory / "log").open() as said:
        assert refused or "Redis version=7.0." not in said.read()


def test_a_shard_in_which_a_script_began_and_did_not_end_is_neither_written_nor_verified(redis_url):
    facts = log(100, 1)
    store = RedisStore(redis_url, app="t", shards=1)
    state = State(store, DOMAIN)
    go_on(state, facts, 50, 50)
    before = digest(store, state.layout, DOMAIN), store.counts()
    with redis.Redis.from_url(redis_url) as client:
        client.hincrby(f"{prefixes('t', 1, 1)[0]}hwm", "begun", 1)
    with pytest.raises(StateForeign, match="half a script"):
        state.apply(PART, facts[50:], last=99)
    with pytest.raises(StateForeign, match="half a script"):
        state.beat()
    assert (digest(store, state.layout, DOMAIN), store.counts()) == before
    store.close()
