"""Generations in Redis: one rebuild at a time, a flip in one moment, nothing of the old left."""

import pytest
import redis

from features.domain import Action, Domain
from features.schema import UserAction
from features.state import Fact, State
from features.store.layout import lease_key, meta_key
from features.store.port import Part, StateLost, StateMoved
from features.store.redis import RedisStore
from features.store.redis_generations import LEASE_MS

DOMAIN = Domain(actions=(Action("view"), Action("cart")))
OTHER = Domain(actions=(Action("cart"),))
PART = Part("user_actions", 0)
TS_MS = 1_700_000_000_000

pytestmark = pytest.mark.services


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def opened(redis_url):
    """Opens stores, and closes them."""
    made = []

    def open_store(generation=None, shards=4):
        made.append(RedisStore(redis_url, app="t", shards=shards, generation=generation))
        return made[-1]

    yield open_store
    for store in made:
        store.close()


def filled(store, count=20, domain=DOMAIN):
    """A state that has applied so many actions."""
    state = State(store, domain)
    state.resume(PART, committed=None, log_start=0)
    facts = [Fact(at, UserAction(f"e{at}", f"u{at % 7}", f"i{at % 5}", "cart", TS_MS + at)) for at in range(count)]
    state.apply(PART, facts, last=count - 1)
    state.beat()
    return state


def keys(client, generation):
    return list(client.scan_iter(match=f"*:t:{generation}:*"))


def test_a_flip_moves_whoever_holds_the_old_generation_and_leaves_the_new_one_whole(opened):
    old = filled(opened(), 5)
    generations = opened().generations()
    generations.claim("me", instead_of=1, building=2)
    new = filled(opened(generation=2, shards=8), 20, OTHER)
    old.beat()
    generations.flip("me", instead_of=1, building=2)
    with pytest.raises(StateMoved, match="generation 2 of the state serves, no longer 1"):
        old.beat()
    with pytest.raises(StateMoved):
        old.resume(PART, committed=None, log_start=0)
    with pytest.raises(StateMoved):  # the one who filled it writes no more, either
        new.beat()
    resume = State(opened(shards=8), OTHER).resume(PART, committed=20, log_start=0)
    assert (resume.start, resume.hold_to) == (20, 19)
    assert generations.look().building is None


def test_the_first_generation_ever_may_be_a_built_one(opened):
    generations = opened().generations()
    assert generations.look().next == 2
    generations.claim("me", instead_of=1, building=2)
    filled(opened(generation=2))
    assert not opened().begun()
    generations.flip("me", instead_of=1, building=2)
    generations.flip("me", instead_of=1, building=2)  # its reply was lost
    assert opened().begun()
    assert State(opened(), DOMAIN).resume(PART, committed=20, log_start=0).start == 20


def test_only_one_holds_the_lease_and_one_that_died_is_gone_on_with(opened, client):
    generations = opened().generations()
    generations.claim("one", instead_of=1, building=2, told="7 of 9")
    generations.claim("one", instead_of=1, building=2)
    with pytest.raises(StateMoved, match="a rebuild is at work: one"):
        generations.claim("two", instead_of=1, building=2, before=2)
    assert 0 < client.pttl(lease_key("t")) <= LEASE_MS
    client.delete(lease_key("t"))  # it died
    standing = generations.look()
    assert (standing.building, standing.lease) == (2, "")
    generations.claim("two", instead_of=1, building=2, before=standing.building)
    for late in (
        lambda: generations.claim("one", instead_of=1, building=2),
        lambda: generations.flip("one", instead_of=1, building=2),
    ):
        with pytest.raises(StateMoved):
            late()


def test_a_sleeper_is_refused_after_another_began_anew_or_flipped(opened, client):
    generations = opened().generations()
    generations.claim("one", instead_of=1, building=2)
    sleeper = filled(opened(generation=2), 5)
    client.delete(lease_key("t"))
    generations.claim("two", instead_of=1, building=3, before=2)
    with pytest.raises(StateMoved, match="generation 3 of the state is being built, no longer 2"):
        sleeper.beat()
    client.delete(lease_key("t"))
    with pytest.raises(StateMoved, match="generation 3 of the state is being built"):
        generations.claim("one", instead_of=1, building=2)
    generations.claim("two", instead_of=1, building=3, before=3)
    generations.flip("two", instead_of=1, building=3)
    with pytest.raises(StateMoved, match="generation 3 of the state serves, no longer 1"):
        generations.claim("one", instead_of=1, building=2)
    assert client.hget(meta_key("t"), "building") is None


def test_what_serves_is_never_removed_and_of_an_old_one_nothing_stays(opened, client):
    old = filled(opened(), 50)
    generations = opened().generations()
    generations.claim("me", instead_of=1, building=2)
    filled(opened(generation=2), 50)
    kept = sorted(keys(client, 2))
    generations.flip("me", instead_of=1, building=2)
    assert generations.look().leftovers == [1]
    with pytest.raises(ValueError, match="generation 2 serves"):
        generations.remove(2)
    there = len(keys(client, 1))
    assert generations.remove(1) == there
    assert generations.look().leftovers == keys(client, 1) == []
    assert sorted(keys(client, 2)) == kept
    assert not [field for field in client.hkeys(meta_key("t")) if field.split(b":")[1:2] == [b"1"]]
    with pytest.raises(StateLost):  # a sleeper wakes up in the middle of a step: no mark, no write
        old.apply(PART, [Fact(50, UserAction("e", "u", "i", "cart", TS_MS))], last=50)
    assert not keys(client, 1)


def test_a_removed_generation_that_a_rebuild_left_is_no_longer_being_built(opened):
    generations = opened().generations()
    generations.claim("me", instead_of=1, building=2)
    filled(opened(generation=2), 5)
    generations.let_go("me")
    assert generations.look().lease == ""
    generations.abandon(2)
    generations.remove(2)
    assert generations.look().building is None
    assert generations.look().next == 3  # who filled 2 may be asleep


def test_a_redis_that_lost_everything_gets_back_which_generation_is_being_built(opened, client):
    generations = opened().generations()
    generations.claim("me", instead_of=1, building=2)
    state = filled(opened(generation=2), 5)
    client.flushall()
    state.resume(PART, committed=5, log_start=0)
    assert client.hget(meta_key("t"), "building") == b"2"
    assert client.hget(meta_key("t"), "generation") is None
    generations.claim("me", instead_of=1, building=2)


def test_a_sleeper_is_refused_after_what_it_built_was_given_up_and_cannot_begin_it_again(opened, client):
    generations = opened().generations()
    generations.claim("one", instead_of=1, building=2)
    sleeper = filled(opened(generation=2), 5)
    with pytest.raises(StateMoved, match="a rebuild is at work: one"):
        generations.abandon(2)
    client.delete(lease_key("t"))  # it sleeps
    generations.abandon(2)
    with pytest.raises(StateMoved, match="generation 2 of the state was given up meanwhile"):
        generations.claim("one", instead_of=1, building=2)
    with pytest.raises(StateMoved):
        sleeper.beat()
    generations.remove(2)
    assert keys(client, 2) == []
    generations.claim("two", instead_of=1, building=generations.look().next)
    assert generations.look().building == 3


def test_only_its_owner_gives_the_lease_back(opened):
    generations = opened().generations()
    generations.claim("two", instead_of=1, building=2)
    generations.let_go("one")
    assert generations.look().lease.startswith("two ")
    generations.let_go("two")
    assert generations.look().lease == ""
