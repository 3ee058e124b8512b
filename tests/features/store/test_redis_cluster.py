"""What only a cluster does: slots that move, nodes that die, a replica that takes over. The state stays exact."""

import random

import pytest

from features.digest import digest
from features.domain import Action, Attribute, Domain
from features.state import State
from features.store import layout
from features.store.memory import MemoryStore
from features.store.port import StateLost, StoreAway
from features.store.redis import RedisStore
from features.store.redis_cluster import slot_map
from features.store.redis_replies import answering
from pipeline.embedded import EmbeddedError
from tests.conftest import unavailable
from tests.faulty_stores import Wrapped
from tests.features.store.logs import go_on, log, patiently
from tests.redis_servers import Cluster, find_any

pytestmark = pytest.mark.services

DOMAIN = Domain(
    actions=(Action("view"), Action("buy", purchase=True)),
    attributes=(Attribute("genre", "set", candidates=True, rate=True),),
)
SHARDS = 4
SLOTS = [layout.slot(tag) for tag in layout.tags(SHARDS)]


@pytest.fixture
def cluster(redis_kinds) -> Cluster:
    return redis_kinds("cluster")


@pytest.fixture
def own_cluster(tmp_path):
    """With a replica of the first node, to kill for good."""
    try:
        made = Cluster(tmp_path, find_any(), replicas=1)
    except EmbeddedError as error:
        unavailable(str(error))
    yield made
    made.stop()


@pytest.fixture
def store(cluster):
    made = RedisStore(cluster.url, app="t", shards=SHARDS, timeout_ms=5_000)
    yield made
    made.close()


def wanted(facts):
    """Digest and counts of the same log in memory."""
    twin = MemoryStore(SHARDS)
    state = State(twin, DOMAIN)
    go_on(state, facts, len(facts), 70)
    return digest(twin, state.layout, DOMAIN), twin.counts()


def found(store, state):
    return patiently(lambda: digest(store, state.layout, DOMAIN)), store.counts()


class Disturbed(Wrapped):
    """Each call goes through `_amid`, which does something to the cluster before or after."""

    def commit_users(self, part, calls):
        return self._amid(lambda: self.store.commit_users(part, calls))

    def commit_items(self, part, calls):
        return self._amid(lambda: self.store.commit_items(part, calls))

    def read_users(self, users):
        return self._amid(lambda: self.store.read_users(users))


class Moving(Disturbed):
    """Before each call somebody moves slots on by a step: opens a move, moves some keys, closes it."""

    def __init__(self, store, cluster, seed):
        super().__init__(store)
        self.cluster, self.rng = cluster, random.Random(seed)
        self.steps, self.closed, self.away = self._moves(), 0, 0

    def _amid(self, call):
        next(self.steps)
        try:
            return call()
        except StoreAway:
            self.away += 1
            raise

    def _moves(self):
        while True:
            slot = self.rng.choice(SLOTS)
            owner = self.cluster.owner(slot)
            target = self.rng.choice([index for index in range(3) if index != owner])
            self.cluster.open_move(slot, target)
            yield
            while self.cluster.move_keys(slot, owner, target, most=self.rng.choice((1, 5, 20))):
                yield
            self.cluster.close_move(slot, target)
            self.closed += 1
            for _ in range(self.rng.randrange(1, 16)):  # a batch that met an absent store makes up to 8 calls
                yield

    def finish(self):
        """Closes the move that is under way."""
        closed = self.closed
        while self.closed == closed:
            next(self.steps)


@pytest.mark.parametrize("seed", [1, 2])
def test_slots_that_move_key_by_key_between_any_two_calls_change_nothing(store, cluster, seed):
    facts = log(200, seed)
    moving = Moving(store, cluster, seed)
    state = State(moving, DOMAIN)
    try:
        go_on(state, facts, len(facts), 20)
    finally:
        moving.finish()
    assert moving.closed > 3
    assert moving.away > 3
    assert found(store, state) == wanted(facts)


def test_only_what_was_answered_moved_is_sent_again(store, cluster):
    store.open(DOMAIN)
    wire = store._wire
    keys = [f"{{{tag}}}:t:counter" for tag in layout.tags(SHARDS)]
    assert wire.exchange([("INCR", key) for key in keys]) == [1] * SHARDS
    target = (cluster.owner(SLOTS[0]) + 1) % 3
    cluster.move(SLOTS[0], target)
    assert wire.exchange([("INCR", key) for key in keys]) == [2] * SHARDS
    assert wire.mget([keys[2], f"{{{layout.tags(SHARDS)[1]}}}:t:none", *keys]) == [b"2", b"", *[b"2"] * SHARDS]


def test_keys_of_a_slot_that_moved_while_they_were_listed_are_not_missed_without_a_word(cluster):
    first, last = cluster.owner(0), SLOTS[-1]  # the node of slot 0 is listed first
    if cluster.owner(last) == first:
        cluster.move(last, (first + 1) % 3)
    store = RedisStore(cluster.url, app="t", shards=SHARDS, timeout_ms=5_000)
    wire, key = store._wire, f"{{{layout.tags(SHARDS)[-1]}}}:t:listed"
    assert wire.exchange([("SET", key, "1")]) == [b"OK"]
    assert wire.scan("*:t:listed") == [key]
    pages = wire.pages("*:t:listed")
    assert next(pages) == []  # of the first node, which gets the key right after
    cluster.move(last, first)
    with pytest.raises(StoreAway, match="moved"), answering():
        list(pages)
    assert wire.scan("*:t:listed") == [key]
    store.close()


class Deadly(Disturbed):
    """Kills the node that is next in `at` with -9, before or after a call, and starts it again."""

    def __init__(self, store, cluster, at):
        super().__init__(store)
        self.cluster, self.at, self.calls = cluster, at, 0

    def _amid(self, call):
        self.calls += 1
        node = self.at.get(self.calls)
        if node is None:
            return call()
        self.cluster.kill(node)
        try:
            call()
        except StoreAway:
            pass
        finally:
            self.cluster.restart(node)
        return call()


def test_a_node_that_is_killed_between_any_two_calls_changes_nothing(store, cluster):
    facts = log(900, 3)
    rng = random.Random(3)
    deadly = Deadly(store, cluster, dict(zip(rng.sample(range(3, 90), 3), (0, 1, 2), strict=True)))
    state = State(deadly, DOMAIN)
    go_on(state, facts, len(facts), 25)
    try:
        patiently(state.beat)
    except StateLost:
        go_on(state, facts, len(facts), 25)
    assert deadly.calls > 90
    assert found(store, state) == wanted(facts)


def test_a_node_that_is_away_is_a_store_away_with_its_cause_and_the_others_do_not_hang(store, cluster):
    state = State(store, DOMAIN)
    go_on(state, log(50, 4), 50, 25)
    cluster.kill(1)
    with pytest.raises(StoreAway, match=r"refused|[Cc]losed|CLUSTERDOWN|down"):
        state.beat()
    assert "away" in str(store._wire.facts()[f"127.0.0.1:{cluster.nodes[1].port}"])
    cluster.restart(1)
    go_on(state, log(50, 4), 50, 25)
    patiently(state.beat)


def test_the_replica_of_a_dead_node_takes_over_and_the_state_stays_exact(own_cluster):
    facts = log(600, 5)
    store = RedisStore(own_cluster.url, app="t", shards=SHARDS, timeout_ms=5_000)
    state = State(store, DOMAIN)
    go_on(state, facts, 300, 25)
    own_cluster.kill(0)
    losses = go_on(state, facts, len(facts), 25)
    try:
        patiently(state.beat)
    except StateLost:  # the replica may lack what its master had just answered
        losses += go_on(state, facts, len(facts), 25)
    assert own_cluster.nodes[3].port in {port for _, port in store._wire._map.masters}
    assert found(store, state) == wanted(facts)
    store.close()


def test_a_slot_that_nobody_owns_is_told_and_a_replica_is_no_owner():
    ranges = [[0, 9, [b"h", 1, b"m"], [b"h", 2, b"r"]], [11, 20, [None, 3, b"m"]]]
    found = slot_map(ranges, asked=("asked", 9))
    assert found.owners[9] == ("h", 1)
    assert found.owners[10] is None
    assert found.owners[11] == ("asked", 3)
    assert found.masters == (("h", 1), ("asked", 3))
    assert found.members == (("h", 1), ("h", 2), ("asked", 3))
