"""What one generation remembers of forgotten users, carried into another: whatever their shards, under the least rights."""

from itertools import count

import pytest

from features.clipping import clip
from features.domain import Action, Domain
from features.facts import Fact, Forget
from features.ids import hash64
from features.schema import UserAction
from features.state import State
from features.store import redis as module
from features.store.layout import prefixes, ttl_s
from features.store.port import CARRIED, Part, StateLost, StoreAway
from features.store.redis import RedisStore
from features.tombstone import Refusal, name, unpack

pytestmark = pytest.mark.services
DOMAIN = Domain(actions=(Action("view"),))
PART = Part("user_actions", 0)
APP = "headrace"  # whose keys the users of deploy/redis/users.acl may touch
T_MS = 1_700_000_000_000
USERS = [f"u{number}" for number in range(40)]


@pytest.fixture(params=["valkey", "redis7", "cluster", "tls"])
def opened(request, redis_kinds):
    """Opens stores of one server; generation 2 is claimed."""
    server = redis_kinds(request.param)
    made = []

    def open_store(generation=None, shards=4):
        made.append(RedisStore(server.url, app=APP, shards=shards, generation=generation, login=server.login))
        return made[-1]

    yield open_store
    for store in made:
        store.close()


def state_of(store, *records):
    state, offsets = State(store, DOMAIN), count()
    state.resume(PART, committed=None, log_start=0)
    facts = [Fact(next(offsets), record) for record in records]
    if facts:
        state.apply(PART, facts, last=facts[-1].offset)
    state.beat()
    while state.sweep() is not None:
        pass
    return state


def act(user, ts_ms, event="e"):
    return UserAction(f"{event}{user}", user, "i1", "view", ts_ms)


def carried(old, new, *, before_ms=T_MS + 1_000):
    new.begin(CARRIED, 0)
    return sum(new.carry(1, before_ms=before_ms))


def remembered(store, users=USERS):
    return [unpack(blob).until_ms for blob in store.read_tombstones([hash64(user) for user in users])]


@pytest.mark.parametrize("shards", [4, 8, 3])
def test_every_tombstone_is_there_with_the_later_time_and_later_records_of_its_user_are_refused(opened, shards):
    old = opened()
    state_of(old, *(Forget(user, T_MS + at) for at, user in enumerate(USERS)))
    old.generations().claim("me", instead_of=1, building=2)
    new = opened(2, shards)
    state = state_of(new, Forget("u0", T_MS + 99), Forget("u1", T_MS - 99), act("u2", T_MS), act("u3", T_MS + 50))
    assert carried(old, new) == len(USERS)
    assert remembered(new) == [T_MS + 99, *(T_MS + at for at in range(1, 40))]
    assert sum(clip(new, state.layout)) == 2
    while state.sweep() is not None:
        pass
    logs = new.read_users([hash64(user) for user in USERS[:4]])
    assert [bool(log) for log in logs] == [False, False, False, True]
    late = [act(user, T_MS, "late") for user in USERS]
    fresh = state.apply(PART, [Fact(4 + at, each) for at, each in enumerate(late)], last=43).fresh
    assert not fresh.any()
    before = remembered(new)
    assert carried(old, new) == len(USERS)
    assert remembered(new) == before


def test_a_null_that_came_after_the_rebuild_began_is_left_to_the_topics(opened):
    old = opened()
    state_of(old, *(Forget(user, T_MS + at) for at, user in enumerate(USERS)))
    old.generations().claim("me", instead_of=1, building=2)
    new = opened(2)
    state = state_of(new)
    carried(old, new, before_ms=T_MS + 2)
    assert [bool(stone) for stone in new.read_tombstones([hash64(user) for user in USERS[:4]])] == [
        True,
        True,
        False,
        False,
    ]
    before_its_null = [Fact(10, act("u2", T_MS)), Fact(11, Forget("u2", T_MS + 2)), Fact(12, act("u2", T_MS, "late"))]
    assert state.apply(PART, before_its_null, last=12).fresh.tolist() == [True, True, False]


def test_a_tombstone_lives_no_longer_than_it_would_have_and_brings_no_refusals(opened):
    old = opened()
    state_of(old, Forget("u0", T_MS), act("u0", T_MS))
    (stone,) = old.read_tombstones([hash64("u0")])
    assert unpack(stone).refusals == (Refusal(*PART, 1, T_MS),)
    salt = bytes.fromhex(old._meta.read()["salt"])
    shard = hash64("u0") % 4
    keys = [f"{prefixes(APP, generation, 4)[shard]}f:{name(hash64('u0'), salt)}" for generation in (1, 2)]
    old._wire.exchange([("EXPIRE", keys[0], 1_000)])
    old.generations().claim("me", instead_of=1, building=2)
    new = opened(2)
    state_of(new)
    carried(old, new)
    (ttl,) = new._wire.exchange([("TTL", keys[1])])
    assert 0 < ttl <= 1_000 < ttl_s(DOMAIN.user_retention_ms)
    (stone,) = new.read_tombstones([hash64("u0")])
    assert unpack(stone).refusals == ()


def test_a_worker_that_was_between_its_reads_is_refused_and_reads_again(opened, monkeypatch):
    old = opened()
    state_of(old, Forget("u0", T_MS))
    old.generations().claim("me", instead_of=1, building=2)
    new = opened(2)
    state = state_of(new)
    reading = module.RedisStore.read_tombstones

    def then_carried(self, users):
        found = reading(self, users)
        monkeypatch.setattr(module.RedisStore, "read_tombstones", reading)
        carried(old, new)
        return found

    monkeypatch.setattr(module.RedisStore, "read_tombstones", then_carried)
    assert not state.apply(PART, [Fact(0, act("u0", T_MS))], last=0).fresh.any()
    assert new.read_users([hash64("u0")]) == [b""]


def test_into_a_generation_that_is_gone_nothing_is_written(opened):
    old = opened()
    state_of(old, Forget("u0", T_MS))
    generations = old.generations()
    generations.claim("me", instead_of=1, building=2)
    new = opened(2)
    state_of(new)
    new.begin(CARRIED, 0)
    generations.let_go("me")
    generations.remove(2)
    with pytest.raises(StoreAway, match="marks"):
        sum(new.carry(1, before_ms=T_MS + 1_000))
    assert not old._wire.scan(f"*:{APP}:2:*")


def test_a_sealed_generation_takes_no_more_and_keeps_the_rest(opened):
    old = opened()
    state = state_of(old, Forget("u0", T_MS))
    generations = old.generations()
    generations.claim("me", instead_of=1, building=2)
    state_of(opened(2))
    generations.flip("me", instead_of=1, building=2)
    assert generations.seal(1) == 4
    assert generations.seal(1) == 0
    with pytest.raises(StateLost, match="mark -2"):
        state.apply(PART, [Fact(1, Forget("u1", T_MS))], last=1)
    new = opened()
    new.open(DOMAIN)
    assert carried(old, new) == 1
    assert remembered(new, ["u0", "u1"]) == [T_MS, -1]
