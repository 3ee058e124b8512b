"""Who may do what: the deployed users against real servers, TLS, and what a refusal says. None of it waits for ever."""

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import redis

from features.digest import digest
from features.domain import Action, Attribute, Domain
from features.facts import Fact, Forget, Gone
from features.item_ops import value_name
from features.schema import Item
from features.state import State
from features.store.port import Part, StoreAway, StoreRefused
from features.store.redis import RedisStore
from features.store.redis_dial import NOBODY
from features.store.redis_permissions import KEYLESS, READS, SCRIPTED, WRITES, users
from pipeline.carry import carry
from pipeline.embedded import EmbeddedError, find_redis
from tests.certificates import Authority
from tests.conftest import unavailable
from tests.features.store.logs import PART, go_on, log
from tests.redis_servers import Guarded, Tls, find_redis7

DOMAIN = Domain(
    actions=(Action("view"), Action("buy", purchase=True)),
    attributes=(Attribute("genre", "set", candidates=True, rate=True),),
)
ITEMS = Part("items", 0)
APP = "headrace"
ACL_FILE = Path(__file__).parents[3] / "deploy/redis/users.acl"


def made(start, *args, **options):
    try:
        return start(*args, **options)
    except EmbeddedError as error:
        unavailable(str(error))
        raise


@pytest.fixture(scope="module", params=[find_redis, find_redis7], ids=["valkey", "redis7"])
def guarded(request, tmp_path_factory):
    server = made(lambda: Guarded(tmp_path_factory.mktemp("acl"), request.param(), APP))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    server = made(lambda: Tls(tmp_path_factory.mktemp("tls"), find_redis7(), APP, mutual=True))
    yield server
    server.stop()


@pytest.fixture
def opened(guarded):
    """Opens stores of this test's server, and closes them."""
    guarded.clear()
    stores = []

    def open_store(login=guarded.login, app=APP, **options):
        stores.append(RedisStore(guarded.url, app=app, shards=4, login=login, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def test_the_deployed_file_is_made_of_the_one_list():
    assert ACL_FILE.read_text() == users(APP)


def test_the_list_is_just_what_scripts_and_store_send():
    folder = files("features.store")
    sources = {file.name: file.read_text() for file in folder.iterdir() if file.name.endswith((".lua", ".py"))}
    sent = set()
    for name, text in sources.items():
        if name.endswith(".lua"):
            sent.update(re.findall(r"call\('([A-Z]+)'", text))
        elif name.startswith("redis") and name != "redis_permissions.py":
            sent.update(re.findall(r'(?:\(|one\(|_one\()\s*"([A-Z]{3,})"', text))
            sent.update("|".join(pair) for pair in re.findall(r'one\("([A-Z]+)", "([A-Z]+)"', text))
    sent -= {"OOM", "SCRIPT", "CLUSTER"}
    assert sent == {*READS, *WRITES, *KEYLESS, *SCRIPTED}


@pytest.mark.services
def test_the_worker_s_user_may_all_that_a_worker_s_life_needs(opened):
    store = opened()
    state = State(store, DOMAIN)
    store.bind_log("items", "id")
    catalogue = [Fact(0, Item("i1", 5, attributes={"genre": ["a"]})), Fact(1, Item("i2", 6)), Fact(2, Gone("i2", 9))]
    state.resume(ITEMS, committed=None, log_start=0)
    state.apply(ITEMS, catalogue, last=2)
    facts = log(200, 1)
    go_on(state, facts, 200, 40)
    state.apply(PART, [Fact(200, Forget("u1", 2_000_000_000_000))], last=200)
    assert store.to_sweep()
    assert list(store.sweep(store.to_sweep()))
    state.beat()
    store.read_sample()
    store.read_value_rings([("genre", "a")])
    store.read_top(value_name("genre", "a"), 5)
    assert digest(store, state.layout, DOMAIN)
    assert store.counts()
    assert store.ping()
    generations = store.generations()
    generations.claim("me", instead_of=1, building=2)
    generations.remember(2, "these topics")
    following = opened(generation=2)
    rebuilt = State(following, DOMAIN)
    go_on(rebuilt, facts, 50, 40)
    assert carry(following, rebuilt, 1, before_ms=1 << 48) == 1
    generations.flip("me", instead_of=1, building=2)
    generations.let_go("me")
    assert generations.remove(1) > 10


@pytest.mark.services
@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "CONFIG SET maxmemory 1", "CONFIG GET requirepass", "KEYS *", "DEBUG SLEEP 0", "SHUTDOWN",
        "ACL LIST", "ACL SETUSER me on", "MONITOR", "EVAL return(1) 0", "FUNCTION LIST", "SCRIPT FLUSH", "CLIENT LIST",
        "REPLICAOF NO ONE", "BGREWRITEAOF", "SAVE", "MODULE LIST", "RENAME {0}:headrace:a {0}:headrace:b",
        "DUMP {0}:headrace:a", "PUBLISH a b", "GET {0}:other:meta", "SET other 1", "UNLINK {0}:other:meta",
        "CLUSTER RESET", "CLUSTER FORGET x", "SLAVEOF NO ONE", "SWAPDB 0 1", "RESTORE {0}:headrace:a 0 x",
    ],
)  # fmt: skip
def test_what_a_worker_does_not_need_is_refused(guarded, command):
    login = {"username": "headrace", "password": guarded.login.password}
    with redis.Redis.from_url(guarded.url, **login) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


@pytest.mark.services
def test_scripts_do_not_reach_where_the_user_may_not(opened):
    with pytest.raises(StoreRefused, match="permission"):
        State(opened(app="other"), DOMAIN)


@pytest.mark.services
def test_the_reader_s_user_looks_at_a_state_and_changes_nothing(opened, guarded):
    state = State(opened(), DOMAIN)
    go_on(state, log(50, 2), 50, 25)
    reading = opened(guarded.reader)
    layout = reading.open(DOMAIN)
    assert digest(reading, layout, DOMAIN) == digest(opened(), layout, DOMAIN)
    assert reading.counts()
    assert reading.marks("u", PART).max() == 49
    assert reading.ping()
    with pytest.raises(StoreRefused, match="permission"):
        reading.begin(Part("items", 1), 0)
    with pytest.raises(StoreRefused, match="permission"):
        go_on(State(reading, DOMAIN), log(80, 2), 80, 25)


@pytest.mark.services
def test_a_permission_that_is_missing_is_named_before_anything_is_written(opened, guarded):
    state = State(opened(), DOMAIN)
    go_on(state, log(50, 2), 50, 25)
    before = digest(opened(), state.layout, DOMAIN)
    with guarded.nodes[0].client() as admin:
        admin.execute_command("ACL", "SETUSER", "headrace", "-zadd", "-append")
        try:
            with pytest.raises(StoreRefused, match=r"may not APPEND, ZADD on this app's keys \(deploy/redis/users.acl"):
                go_on(State(opened(), DOMAIN), log(80, 2), 80, 25)
        finally:
            admin.execute_command("ACL", "SETUSER", "headrace", "+zadd", "+append")
    assert digest(opened(), state.layout, DOMAIN) == before


@pytest.mark.services
def test_a_wrong_password_and_none_are_refused_with_a_clear_word(opened, guarded):
    for login in (replace(guarded.login, password="wrong"), replace(guarded.login, username="nobody"), NOBODY):
        with pytest.raises(StoreRefused, match=r"user or password|permission") as refusal:
            opened(login).open(DOMAIN)
        assert guarded.login.password not in f"{refusal.value} {login!r}"


@pytest.mark.services
def test_with_our_certificate_and_the_right_authority_a_worker_gets_in(tls):
    tls.clear()
    store = RedisStore(tls.url, app=APP, shards=4, login=replace(tls.login, **tls.identity))
    go_on(State(store, DOMAIN), log(50, 3), 50, 25)
    store.close()


@pytest.mark.services
def test_a_server_whose_certificate_is_not_trusted_is_refused(tls, tmp_path):
    another = Authority(tmp_path / "another").file
    for url, login in (
        (tls.url, replace(tls.login, ca_file=str(another), **tls.identity)),
        (tls.url.replace("localhost", "127.0.0.1"), replace(tls.login, **tls.identity)),
    ):
        with pytest.raises(
            StoreRefused, match=r"certificate is not trusted: .*(self-signed|unable to get|mismatch|not valid)"
        ):
            RedisStore(url, app=APP, login=login).open(DOMAIN)


@pytest.mark.services
def test_tls_that_does_not_come_about_for_other_reasons_is_told(tls, guarded):
    plain = tls.url.replace("rediss", "redis")
    with pytest.raises(StoreAway, match=r"[Cc]losed|reset"):
        RedisStore(plain, app=APP, login=tls.login).open(DOMAIN)
    with pytest.raises(StoreAway, match=r"Timeout connecting"):
        RedisStore(guarded.url.replace("redis", "rediss"), app=APP, login=tls.login).open(DOMAIN)
    with pytest.raises(StoreAway, match=r"certificate|[Cc]losed|reset|EOF|[Bb]roken pipe"):  # it wants to see ours
        RedisStore(tls.url, app=APP, login=tls.login).open(DOMAIN)
