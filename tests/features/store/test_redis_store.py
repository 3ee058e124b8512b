"""What only the Redis store has: causes, TTLs, slots, names, and scripts that cannot fail half-way."""

import socket
import threading

import pytest
import redis

from features.domain import Action, Domain
from features.schema import UserAction
from features.state import Fact, State
from features.store import layout
from features.store.port import ItemCall, ItemOp, Part, StateForeign, StoreAway
from features.store.redis import RedisStore

DOMAIN = Domain(actions=(Action("view"), Action("cart")))
PART = Part("user_actions", 0)
DAY_S = 86_400

pytestmark = pytest.mark.services


@pytest.fixture
def store(redis_url):
    made = RedisStore(redis_url, app="t", shards=4, timeout_ms=2_000)
    yield made
    made.close()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as made:
        yield made
        made.config_set("maxmemory", "0")


def batch(first, size=20):
    ts_ms = 1_700_000_000_000
    return [
        Fact(at, UserAction(f"e{at}", f"u{at % 7}", f"i{at % 5}", "view", ts_ms + at))
        for at in range(first, first + size)
    ]


def started(store):
    state = State(store, DOMAIN)
    state.resume(PART, committed=None, log_start=0)
    return state


def test_all_keys_of_a_shard_lie_in_its_share_of_the_slots(store, client):
    started(store).apply(PART, batch(0), last=19)
    tags = layout.tags(4)
    keys = [key.decode() for key in client.scan_iter() if b":meta" not in key]
    shares = {key: layout.slot(key[1 : key.index("}")]) * 4 // 16_384 for key in keys}
    assert set(shares.values()) == {0, 1, 2, 3}
    assert all(key.startswith(f"{{{tags[share]}}}:t:1:") for key, share in shares.items())


@pytest.mark.parametrize("shards", [1, 3, 16, 64, 256])
def test_tags_spread_the_shards_evenly_over_the_slots(shards):
    slots = [layout.slot(tag) for tag in layout.tags(shards)]
    assert [slot * shards // layout.SLOTS for slot in slots] == list(range(shards))


def test_users_and_items_live_a_day_longer_than_their_retention_and_the_rest_for_ever(store, client):
    started(store).apply(PART, batch(0), last=19)
    for key in client.scan_iter():
        kind = key.decode().split(":")[3] if b":meta" not in key else "meta"
        expected = 91 * DAY_S if kind in "uisv" else -1
        assert expected - 60 <= client.ttl(key) <= expected, key


def test_an_item_s_life_is_prolonged_each_day_it_is_touched(store, client):
    state = started(store)
    state.apply(PART, batch(0), last=19)
    keys = [key for kind in "isv" for key in client.scan_iter(match=f"*:t:1:{kind}:*")]
    for key in keys:
        client.expire(key, 100)
    state.apply(PART, batch(20), last=39)
    assert {client.ttl(key) <= 100 for key in keys if b":i:" in key} == {True}
    tomorrow = [
        Fact(offset, UserAction(f"n{offset}", record.user_id, record.item_id, "view", record.ts_ms + DAY_S * 1000))
        for offset, record, _ in batch(40)
    ]
    state.apply(PART, tomorrow, last=59)
    assert min(client.ttl(key) for key in keys) > 90 * DAY_S


def test_another_number_of_shards_is_foreign(store, redis_url):
    store.open(DOMAIN)
    with pytest.raises(StateForeign, match=r"shards 4.*16"):
        RedisStore(redis_url, app="t", shards=16).open(DOMAIN)


def test_a_state_is_read_some_at_a_time_in_the_order_of_its_keys(store, monkeypatch):
    started(store).apply(PART, batch(0), last=19)
    whole = {kind: list(store.scan(kind)) for kind in "uir"}
    monkeypatch.setattr("features.store.redis.SCANNED", 2)
    assert len(whole["u"]) > 2
    assert {kind: list(store.scan(kind)) for kind in "uir"} == whole == {kind: sorted(whole[kind]) for kind in "uir"}


def test_a_generation_of_its_own_shares_nothing(store, redis_url):
    started(store).apply(PART, batch(0), last=19)
    other = RedisStore(redis_url, app="t", shards=4, generation=2)
    assert other.open(Domain(actions=(Action("zap"),))).action_codes == {"zap": 1}
    assert other.started_at(PART) is None
    assert not list(other.scan("u"))
    assert RedisStore(redis_url, app="t", shards=4).open(DOMAIN).action_codes == {"view": 1, "cart": 2}


def test_workers_that_start_together_agree_on_the_codes(redis_url):
    domains = [
        Domain(actions=(Action("a"), *(Action(f"n{number}-{at}", counted=False) for at in range(5))))
        for number in range(6)
    ]
    layouts = []
    threads = [
        threading.Thread(target=lambda d=d: layouts.append(RedisStore(redis_url, app="t", shards=4).open(d)))
        for d in domains
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = RedisStore(redis_url, app="t", shards=4).open(domains[0]).action_codes
    assert sorted(final.values()) == list(range(1, 32))
    assert len(layouts) == 6
    assert all(final[name] == code for each in layouts for name, code in each.action_codes.items())


def test_nobody_there_is_a_store_away():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StoreAway, match="refused"):
        RedisStore(f"redis://127.0.0.1:{port}", app="t").open(DOMAIN)


def test_a_silent_server_is_a_store_away_within_the_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(StoreAway, match=r"[Tt]ime"):
            RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}", app="t", timeout_ms=100).open(DOMAIN)


def test_a_full_redis_refuses_a_call_whole_and_goes_on_when_there_is_room(store, client):
    state = started(store)
    state.apply(PART, batch(0), last=19)
    before = {key: client.dump(key) for key in client.scan_iter()}
    client.config_set("maxmemory", "1mb")
    with pytest.raises(StoreAway, match="maxmemory"):
        state.apply(PART, batch(20), last=39)
    client.config_set("maxmemory", "0")
    assert {key: client.dump(key) for key in client.scan_iter()} == before
    state.apply(PART, batch(20), last=39)
    assert store.counts() == {"applied:user_actions": 40}


def test_scripts_that_the_server_forgot_are_loaded_again(store, client):
    state = started(store)
    state.apply(PART, batch(0), last=19)
    client.script_flush()
    state.apply(PART, batch(20), last=39)
    client.script_flush()
    state.beat()
    assert store.counts() == {"applied:user_actions": 40}


def test_a_read_only_replica_is_a_store_away(store, client):
    state = started(store)
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(StoreAway):
            state.apply(PART, batch(0), last=19)
    finally:
        client.replicaof("NO", "ONE")
    state.apply(PART, batch(0), last=19)


def test_what_is_wrong_for_good_is_not_hidden_as_away(store):
    started(store)
    broken = ItemOp("i", f"{4:016x}", b"\xff\xff")
    with pytest.raises(redis.ResponseError):
        store.commit_items(PART, [ItemCall(0, -1, 5, [broken])])


def test_an_app_name_that_would_break_keys_is_refused(redis_url):
    with pytest.raises(ValueError, match=r"redis\.app"):
        RedisStore(redis_url, app="a:b*")
