"""Forgotten users in a real Redis, proven by a scan of every key: names and values, whatever their type."""

import random

import pytest
import redis

from features.domain import Action, Attribute, Domain
from features.ids import hash64
from features.schema import Impression, Item, UserAction
from features.state import Fact, Forget, State
from features.store.layout import ttl_s
from features.store.port import Part
from features.store.redis import RedisStore
from features.tombstone import name
from tests.key_scan import holding

pytestmark = pytest.mark.services
DOMAIN = Domain(
    actions=(Action("view"), Action("buy", weight=5.0, purchase=True), Action("hide", negative=True)),
    attributes=(Attribute("genre", "set", candidates=True, rate=True),),
)
PART, SHOWN, ITEMS = Part("user_actions", 0), Part("impressions", 0), Part("items", 0)
START_MS = 1_700_000_000_000
USERS = [f"user-{number}" for number in range(60)]


@pytest.fixture
def client(redis_url):
    made = redis.Redis.from_url(redis_url)
    yield made
    made.close()


def traffic(events=1_500):
    rng = random.Random(3)
    for number in range(events):
        user, item, ts_ms = rng.choice(USERS), f"i{rng.randrange(40)}", START_MS + number * 1_000
        session = rng.choice((None, "s1", "s2"))
        yield UserAction(f"e{number}", user, item, rng.choice(DOMAIN.actions).name, ts_ms, session_id=session)


def state_of(store):
    state = State(store, DOMAIN)
    for part in (PART, SHOWN, ITEMS):
        state.resume(part, committed=None, log_start=0)
    return state


def filled(store):
    state = state_of(store)
    state.apply(ITEMS, [Fact(at, Item(f"i{at}", 5, attributes={"genre": ["x"]})) for at in range(40)], last=39)
    facts = [Fact(offset, record) for offset, record in enumerate(traffic())]
    for at in range(0, len(facts), 100):
        state.apply(PART, facts[at : at + 100], last=facts[at : at + 100][-1].offset)
    shown = [Impression(f"l{at}", user, ["i1", "i2"], START_MS) for at, user in enumerate(USERS)]
    state.apply(SHOWN, [Fact(at, record) for at, record in enumerate(shown)], last=len(shown) - 1)
    state.beat()
    return state, facts


def swept(state):
    while state.sweep() is not None:
        pass


@pytest.mark.parametrize("many", [1, 30])
def test_no_key_tells_of_forgotten_users_and_anonymous_counts_stay(redis_url, client, many):
    store = RedisStore(redis_url, app="f", shards=4)
    state, facts = filled(store)
    assert {kind for user in USERS for kind in holding(client, user)} == {"u", "s"}  # all that names users at all
    rings, world = dict(store.scan("i")), store.read_global()
    at, leaving = len(facts), USERS[:many]
    late = START_MS + 10**8
    state.apply(PART, [Fact(at + n, Forget(user, late)) for n, user in enumerate(leaving)], last=at + many - 1)
    swept(state)
    for user in leaving:
        assert not holding(client, user)
    for user in USERS[many:]:
        assert holding(client, user) == {"u", "s"}
    again = [Fact(at + many + n, fact.record) for n, fact in enumerate(facts) if fact.record.user_id in leaving]
    applied = state.apply(PART, again, last=again[-1].offset)
    assert not applied.fresh.any()
    assert (dict(store.scan("i")), store.read_global()) == (rings, world)
    for user in leaving:
        assert not holding(client, user)


def test_what_is_left_expires_with_the_user_s_retention_and_lists_keep_their_life(redis_url, client):
    store = RedisStore(redis_url, app="f", shards=4)
    state, facts = filled(store)
    lists = list(client.scan_iter(match="*:f:1:s:*"))
    for key in lists:
        client.expire(key, 500)
    state.apply(PART, [Fact(len(facts), Forget("user-1", START_MS + 10**8))], last=len(facts))
    swept(state)
    stones = list(client.scan_iter(match="*:f:1:f:*"))
    salt = bytes.fromhex(client.hget("{0}:f:meta", "salt").decode())
    assert [stone.decode().rpartition(":")[2] for stone in stones] == [name(hash64("user-1"), salt)]
    ttl = ttl_s(DOMAIN.user_retention_ms)
    assert ttl - 300 < client.ttl(stones[0]) <= ttl
    assert all(0 < client.ttl(key) <= 500 for key in lists if client.exists(key))


def test_a_forgotten_user_is_swept_from_a_full_redis_too(redis_url, client):
    store = RedisStore(redis_url, app="f", shards=4)
    state, facts = filled(store)
    state.apply(PART, [Fact(len(facts), Forget("user-1", START_MS + 10**8))], last=len(facts))
    client.config_set("maxmemory", 1)
    try:
        swept(state)
        assert not holding(client, "user-1")
    finally:
        client.config_set("maxmemory", 0)


def test_two_states_do_not_name_a_tombstone_alike(redis_url, client):
    for app in ("one", "two"):
        state = state_of(RedisStore(redis_url, app=app, shards=4))
        state.apply(PART, [Fact(0, Forget("user-1", START_MS))], last=0)
        swept(state)
    names = {key.rpartition(b":")[2] for app in ("one", "two") for key in client.scan_iter(match=f"*:{app}:1:f:*")}
    assert len(names) == 2
