"""One suite for every store: the same calls give the same replies and the same bytes."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from features import neighbours, rings, user_log
from features.domain import Action, Attribute, Domain
from features.ids import hash64
from features.item_ops import list_name, record_ops, value_name
from features.item_record import unpack
from features.schema import Item
from features.state import Gone
from features.store.layout import meta_key, weights
from features.store.memory import MemoryStore
from features.store.port import Beat, FeatureStore, ItemCall, ItemOp, Part, Reply, StateForeign, StateMoved, UserCall
from features.store.redis import RedisStore
from features.top_score import top_score

DOMAIN = Domain(
    actions=(Action("view"), Action("cart", weight=3.5), Action("hide", negative=True)),
    attributes=(Attribute("genre", "set", candidates=True, rate=True),),
)
COLUMNS = len(DOMAIN.columns)
PART = Part("user_actions", 3)
SHARDS = 2
APP = "headrace"  # whose keys the users of deploy/redis/users.acl may touch
A, B = 2**63, 2**63 + 2  # both of shard 0


SERVERS = [pytest.param(kind, marks=pytest.mark.services) for kind in ("valkey", "redis7", "cluster", "tls")]


@pytest.fixture(params=["memory", *SERVERS])
def store(request: pytest.FixtureRequest) -> Iterator[FeatureStore]:
    if request.param == "memory":
        made: FeatureStore = MemoryStore(SHARDS)
    else:
        server = request.getfixturevalue("redis_kinds")(request.param)
        made = RedisStore(server.url, app=APP, shards=SHARDS, login=server.login)
    made.open(DOMAIN)
    made.begin(PART, 10)
    yield made
    made.close()


def log_of(*items):
    log = user_log.Log()
    for at, item in enumerate(items):
        user_log.place(log.actions, user_log.record(at, item, b"%05d" % at, 0, 1, 0), user_log.RECORD_BYTES)
    return user_log.pack(log)


def put(store, prev, last, *ops):
    return store.commit_items(PART, [ItemCall(0, prev, last, ops)])


def ring_op(key, *deltas, kind="i", lists=(), name="x"):
    body = len(deltas).to_bytes(2, "big") + b"".join(rings.delta(*each) for each in deltas)
    body += bytes([len(lists)]) + b"".join(b"%016x" % hash64(each) for each in lists) + name.encode()
    return ItemOp(kind, f"{key:016x}" if kind != "g" else "", body)


def test_marks_begin_before_the_start_and_are_missing_before_that(store):
    assert store.marks("u", PART).tolist() == store.marks("i", PART).tolist() == [9, 9]
    assert store.started_at(PART) == 10
    other = Part("user_actions", 4)
    assert store.marks("u", other).tolist() == [-2, -2]
    assert store.started_at(other) is None
    store.begin(PART, 99)
    assert store.marks("u", PART).tolist() == [9, 9]
    assert store.started_at(PART) == 10


def test_users_are_all_who_have_a_log(store):
    puts = [(user, b"", log_of(1)) for user in (A, B)]
    store.commit_users(
        PART, [UserCall(0, 9, 20, puts), UserCall(1, 9, 20, [(7, b"", log_of(1))], tombstones=[(9, b"x")])]
    )
    assert {user for page in store.users() for user in page} == {A, B, 7}


def test_a_user_call_writes_logs_counts_and_its_mark(store):
    call = UserCall(0, 9, 20, [(A, b"", log_of(1)), (B, b"", log_of(2))], {"applied:t": 2})
    assert store.commit_users(PART, [call]) == [Reply(applied=True, mark=20)]
    assert store.read_users([B, 5, A]) == [log_of(2), b"", log_of(1)]
    assert store.counts() == {"applied:t": 2}
    assert store.marks("u", PART).tolist() == [20, 9]
    assert store.marks("i", PART).tolist() == [9, 9]
    assert list(store.scan("u")) == sorted([(f"{A:016x}", log_of(1)), (f"{B:016x}", log_of(2))])


def test_a_call_under_another_mark_writes_nothing(store):
    store.commit_users(PART, [UserCall(0, 9, 20)])
    put(store, 9, 20)
    for prev in (9, 19, 21, -2):
        call = UserCall(0, prev, 30, [(A, b"", log_of(1))], {"applied:t": 1})
        assert store.commit_users(PART, [call]) == [Reply(applied=False, mark=20)]
        assert put(store, prev, 30, ring_op(A, (1, 1, 1))) == [Reply(applied=False, mark=20)]
    assert store.read_users([A]) == store.read_rings([A]) == [b""]
    assert store.counts() == {}


def test_losers_are_named_and_nothing_of_their_call_is_written(store):
    store.commit_users(PART, [UserCall(0, 9, 20, [(A, b"", log_of(1))])])
    stale = UserCall(0, 20, 30, [(A, b"", log_of(1, 2)), (B, b"", log_of(2))], {"applied:t": 1})
    assert store.commit_users(PART, [stale]) == [Reply(applied=False, mark=20, losers=(A,))]
    assert store.read_users([A, B]) == [log_of(1), b""]
    right = UserCall(0, 20, 30, [(A, user_log.version(log_of(1)), log_of(1, 2)), (B, b"", log_of(2))])
    assert store.commit_users(PART, [right]) == [Reply(applied=True, mark=30)]


def test_an_empty_log_deletes_the_user(store):
    store.commit_users(PART, [UserCall(0, 9, 20, [(A, b"", log_of(1))])])
    store.commit_users(PART, [UserCall(0, 20, 30, [(A, user_log.version(log_of(1)), b"")])])
    assert store.read_users([A]) == [b""]
    assert not list(store.scan("u"))


def test_calls_of_several_shards_are_answered_one_by_one(store):
    calls = [UserCall(1, 9, 20, [(3, b"", log_of(1))]), UserCall(0, 5, 20)]
    assert store.commit_users(PART, calls) == [Reply(applied=True, mark=20), Reply(applied=False, mark=9)]


def test_a_beat_moves_marks_that_stand_where_believed_and_names_the_others(store):
    beats = {0: [Beat("u", PART, 9, 50), Beat("i", PART, 8, 50)], 1: [Beat("i", PART, 9, 9)]}
    assert store.beat(beats) == [(0, beats[0][1], 9)]
    assert store.marks("u", PART).tolist() == [50, 9]
    lost = Beat("u", Part("nothing", 0), 7, 8)
    assert store.beat({1: [lost]}) == [(1, lost, -2)]


def test_absent_keys_read_as_empty_in_the_order_asked(store):
    for read in (store.read_users, store.read_rings, store.read_records, store.read_co_visited, store.read_sessions):
        assert read([1, 2, 3]) == [b"", b"", b""]
        assert read([]) == []
    assert store.read_value_rings([("genre", "x")]) == [b""]
    assert store.read_global() == b""
    assert [list(column) for column in store.read_top("top", 5)] == [[], []]
    for kind in "uirg":
        assert not list(store.scan(kind))


def minutes_apart(rng):
    """Gaps that leave slots, fill rings, jump over them, and come late."""
    return rng.choice((0, 1, 3, 7, 61, 400, 1500, 9000, 12000, 90000, -2, -30, -2000, -12000))


def test_rings_equal_the_maths_to_the_byte(store):
    rng = random.Random(5)
    wanted, mark, minute = {A: bytearray(), B: bytearray()}, 9, 28_000_000
    for _ in range(60):
        ops = []
        for key in (A, B):
            deltas = []
            for _ in range(rng.choice((1, 1, 2, 5))):
                minute += minutes_apart(rng)
                deltas.append((minute, rng.randrange(COLUMNS), rng.randint(1, 3)))
            ops.append(ring_op(key, *deltas, name=f"id{key}"))
            packed = b"".join(rings.delta(*each) for each in deltas)
            wanted[key] = rings.add(wanted[key], COLUMNS, packed, f"id{key}".encode())
        put(store, mark, mark + 1, *ops)
        mark += 1
        assert store.read_rings([A, B]) == [bytes(wanted[A]), bytes(wanted[B])]
    assert len(list(store.scan("i"))) == 2


def test_a_ring_takes_thousands_of_changes_in_one_call(store):
    deltas = [(28_000_000 + at, at % COLUMNS, 1) for at in range(3000)]
    put(store, 9, 10, ring_op(0, *deltas, kind="g", name=""))
    wanted = rings.add(bytearray(), COLUMNS, b"".join(rings.delta(*each) for each in deltas), b"")
    assert store.read_global() == bytes(wanted)
    assert list(store.scan("g")) == [("", bytes(wanted))]


def test_counts_stay_at_their_greatest(store):
    for mark in range(9, 12):
        put(store, mark, mark + 1, ring_op(A, (28_000_000, 1, 2**31)))
    assert rings.unpack(store.read_rings([A]), columns=COLUMNS).lifetime.tolist() == [[0, 2**32 - 1, 0, 0]]


def test_the_top_lists_hold_the_best_by_the_decayed_score(store):
    list_ = list_name("genre", "x")
    ops = [ring_op(2 * at, (28_000_000, 2, at), lists=[list_]) for at in range(1, 600)]
    put(store, 9, 10, *ops, ring_op(2**40, (28_000_000, 3, 99)), ring_op(2**41, (28_000_000, 0, 99)))
    items, scores = store.read_top("top", 600)
    assert items.tolist() == [2 * at for at in range(599, 599 - 512, -1)]
    assert (np.diff(scores) < 0).all()
    assert store.read_top(list_, 99)[0].tolist() == items[:32].tolist()
    later = 28_000_000 + 20 * 1440
    put(store, 10, 11, ring_op(2**42, (later, 1, 1)))
    assert store.read_top("top", 1)[0].tolist() == [2**42]


def test_top_scores_are_equal_to_the_bit_in_every_store(store):
    rng = random.Random(1)
    minute = 28_000_000
    for mark in range(9, 60):
        minute += minutes_apart(rng)
        put(store, mark, mark + 1, ring_op(A, (minute, rng.randrange(1, 3), rng.randint(1, 9))))
        assert store.read_top("top", 1)[1].tolist() == [top_score(store.read_rings([A])[0], weights(DOMAIN))]


def test_value_rings_are_read_by_attribute_and_value(store):
    key = hash64(value_name("genre", "x"))
    op = ring_op(key, (28_000_000, 1, 1), kind="c")
    store.commit_items(PART, [ItemCall(key % SHARDS, 9, 10, [op])])
    found = rings.unpack(store.read_value_rings([("genre", "y"), ("genre", "x")]), columns=COLUMNS)
    assert found.lifetime.sum(axis=1).tolist() == [0, 1]


def test_session_lists_equal_the_maths_to_the_byte(store):
    rng = random.Random(2)
    wanted = bytearray()
    for mark in range(9, 90):
        entries = b"".join(
            sorted(
                neighbours.session_entry(10**12 + rng.randrange(200) * 10**6, rng.randrange(90) << 57, rng.randrange(3))
                for _ in range(rng.choice((1, 2, 6)))
            )
        )
        neighbours.touch(wanted, entries)
        put(store, mark, mark + 1, ItemOp("s", f"{A:016x}", entries))
        assert store.read_sessions([A]) == [bytes(wanted)]
    assert len(wanted) == 64 * 16


def test_co_visited_lists_equal_the_maths_to_the_byte(store):
    rng = random.Random(3)
    wanted, minute = bytearray(), 28_000_000
    for mark in range(9, 120):
        visits = b""
        for _ in range(rng.choice((1, 1, 2, 8))):
            minute += minutes_apart(rng)
            gain = neighbours.contribution(minute, rng.choice((1.0, 3.0, 0.3)), rng.randint(1, 3))
            visits += neighbours.co_visit((rng.randrange(90) * 2**57).to_bytes(8, "big"), minute, gain)
        neighbours.follow(wanted, visits)
        put(store, mark, mark + 1, ItemOp("v", f"{A:016x}", visits))
        assert store.read_co_visited([A]) == [bytes(wanted)]


def test_the_winning_item_record_stays_and_new_items_are_listed(store):
    entries = [
        Item("a", 50, attributes={"genre": ["é"]}),
        Item("a", 20),
        Item("b", 70, available=False),
        Item("a", 50, attributes={"genre": ["ê"]}),
        Item("c", 0),
        Item("b", 30),
    ]
    mark = dict.fromkeys(range(SHARDS), 9)
    for offset, entry in enumerate(entries, start=10):
        for shard, ops in enumerate(record_ops([(offset, entry)], [9] * SHARDS)):
            store.commit_items(PART, [ItemCall(shard, mark[shard], offset, ops)])
            mark[shard] = offset
    records = [unpack(blob) for blob in store.read_records([hash64(name) for name in "abc"])]
    assert [(each.newest_ts_ms, each.first_ts_ms, each.available) for each in records] == [
        (50, 20, True), (70, 30, False), (0, 0, True),
    ]  # fmt: skip
    assert records[0].attributes == {"genre": ["ê"]}
    items, firsts = store.read_top("new", 9)
    assert (items.tolist(), firsts.tolist()) == ([hash64("b"), hash64("a")], [30.0, 20.0])
    for shard, ops in enumerate(record_ops([(20, Gone("b", 99))], [9] * SHARDS)):
        store.commit_items(PART, [ItemCall(shard, mark[shard], 20, ops)])
    assert store.read_top("new", 9)[0].tolist() == [hash64("a")]
    assert unpack(store.read_records([hash64("b")])[0]).gone
    assert len(list(store.scan("r"))) == 3


def catalogued(store, entries, *, batch):
    """Catalogue entries put into the store, `batch` a call."""
    begin = int(store.marks("i", PART).max()) + 1
    for first in range(0, len(entries), batch):
        facts = list(enumerate(entries[first : first + batch], start=begin + first))
        for shard, ops in enumerate(record_ops(facts, [9] * SHARDS)):
            mark = int(store.marks("i", PART)[shard])
            store.commit_items(PART, [ItemCall(shard, mark, facts[-1][0], ops)])


@pytest.mark.parametrize("batch", [1, 50, 1000])
def test_the_sample_is_of_the_greatest_hashes_whatever_the_order_and_has_the_winning_records(store, batch):
    names = [f"i{number}" for number in range(400)]
    entries = [Item(name, 5, attributes={"genre": [name]}) for name in names]
    entries += [Item(name, 9, attributes={"genre": ["later"]}) for name in names[::3]]
    entries += [Gone(name, 99) for name in names[::7]]
    random.Random(4).shuffle(entries)
    catalogued(store, entries, batch=batch)
    wanted = set()
    for shard in range(SHARDS):
        mine = sorted((hash64(name) for name in names if hash64(name) % SHARDS == shard), reverse=True)
        wanted.update(store.read_records(mine[:64]))
    sample = store.read_sample()
    assert len(sample) == 64 * SHARDS
    assert set(sample) == wanted


def test_an_empty_store_has_an_empty_sample(store):
    assert store.read_sample() == []


@pytest.mark.parametrize("batch", [1, 7, 3000])
def test_an_item_that_left_the_new_ones_does_not_come_back_when_another_is_gone(store, batch):
    names = [f"i{number}" for number in range(2000) if hash64(f"i{number}") % SHARDS == 0][:300]
    catalogued(store, [Item(name, 1000 + at) for at, name in enumerate(names)], batch=batch)
    catalogued(store, [Gone(names[-1], 10**6)], batch=batch)
    assert store.read_top("new", 300)[0].tolist() == [hash64(name) for name in reversed(names[-256:-1])]


def test_meta_keeps_columns_and_codes(store):
    codes = store.open(DOMAIN).action_codes
    assert codes == {"view": 1, "cart": 2, "hide": 3}
    more = Domain(actions=(Action("zoom", counted=False), *DOMAIN.actions[:2], Action("hide", negative=True)))
    assert store.open(more).action_codes == {**codes, "zoom": 4}
    fewer = Domain(actions=(Action("like", counted=False), *DOMAIN.actions))
    assert store.open(fewer).action_codes == {**codes, "zoom": 4, "like": 5}


def test_other_columns_are_foreign_and_both_are_named(store):
    with pytest.raises(StateForeign, match=r'"view","cart","hide".*"cart","view"'):
        store.open(Domain(actions=(Action("cart"), Action("view"))))


@pytest.mark.parametrize("field", ["format", "format:1"])  # before format 3 it was one for all generations
def test_a_state_of_another_format_is_foreign_and_the_way_out_is_told(store, field):
    forget_meta(store, **{field: "2"})
    with pytest.raises(
        StateForeign, match="the state has format 2, this version of Headrace keeps 3: `headrace rebuild`"
    ):
        store.open(DOMAIN)


def test_another_log_is_foreign(store):
    store.bind_log("user_actions", "cluster-1/topic-1")
    store.bind_log("user_actions", "cluster-1/topic-1")
    store.bind_log("items", "cluster-1/topic-2")
    with pytest.raises(StateForeign, match=r"cluster-1/topic-1.*cluster-2/topic-1"):
        store.bind_log("user_actions", "cluster-2/topic-1")


def forget_meta(store, **instead):
    """The store loses `meta`; another process may have begun it anew."""
    if isinstance(store, MemoryStore):
        store._meta = dict(instead)
        return
    written = [("HSET", meta_key(APP), field, value) for field, value in instead.items()]
    store._wire.exchange([("DEL", meta_key(APP)), *written])


def meta_of(store):
    return dict(store._meta) if isinstance(store, MemoryStore) else store._meta.read()


@pytest.mark.parametrize("look", [lambda store: store.marks("u", PART), lambda store: store.begin(PART, 10)])
def test_a_lost_meta_is_put_back_as_this_process_opened_and_bound_it(store, look):
    zoomed = Domain(actions=(Action("zoom", counted=False), *DOMAIN.actions))
    codes = store.open(zoomed).action_codes  # another order than a process that begins would give
    store.bind_log("user_actions", "cluster-1/topic-1")
    before = {field: value for field, value in meta_of(store).items() if not field.startswith("start:")}
    forget_meta(store)
    look(store)
    assert {field: value for field, value in meta_of(store).items() if not field.startswith("start:")} == before
    assert store.open(zoomed).action_codes == codes
    with pytest.raises(StateForeign):
        store.bind_log("user_actions", "cluster-2/topic-1")


@pytest.mark.parametrize("field", ["action:1:1", "log:1:items", "shards:1"])
def test_a_meta_that_another_began_anew_is_foreign_and_left_alone(store, field):
    store.bind_log("items", "cluster-1/topic-2")
    forget_meta(store, **{field: "99"})
    for look in (lambda: store.begin(PART, 10), lambda: store.marks("u", PART)):
        with pytest.raises(StateForeign, match=f"{field} 99"):
            look()
    assert meta_of(store) == {field: "99"}


def test_who_writes_is_told_that_another_generation_serves_and_who_reads_is_not(store):
    store.commit_users(PART, [UserCall(0, 9, 20, [(A, b"", log_of(1))])])
    forget_meta(store, generation="2")
    beats = {0: [Beat("u", PART, 20, 50)]}
    for write in (lambda: store.marks("u", PART), lambda: store.begin(PART, 10), lambda: store.beat(beats)):
        with pytest.raises(StateMoved, match="generation 2 of the state serves, no longer 1"):
            write()
    assert store.read_users([A]) == [log_of(1)]
    assert meta_of(store) == {"generation": "2"}


def test_a_store_says_what_it_is(store):
    assert store.ping()


def test_a_full_top_list_lets_an_item_in_that_rises_later(store):
    put(store, 9, 10, *[ring_op(2 * at, (28_000_000, 1, 2)) for at in range(1, 513)])
    put(store, 10, 11, ring_op(2**40, (28_000_000, 1, 1)))
    assert 2**40 not in store.read_top("top", 600)[0].tolist()
    put(store, 11, 12, ring_op(2**40, (28_000_000, 1, 2)))
    items = store.read_top("top", 600)[0].tolist()
    assert items[0] == 2**40
    assert len(items) == 512
    assert 2 not in items
