"""A Redis that dies with its tail: killed with -9, the end of its append-only file cut off, started again."""

import random

import pytest
import redis

from features.digest import digest
from features.domain import Action, Domain
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import StateLost, StoreAway
from features.store.redis import RedisStore
from tests.features.store.logs import PART, go_on, log

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
