"""The exact rolling state: any order, split, repeat, partitioning, race, crash or loss gives the reference's digest."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import user_log
from features.digest import digest
from features.domain import Action, Attribute, Domain
from features.ids import hash64
from features.schema import Impression, Item, RecommendationRequest, UserAction
from features.state import Fact, Forget, Gone, State
from features.store.memory import MemoryStore
from features.store.port import Part, StateForeign, StateLost, StoreAway
from features.store.redis import RedisStore
from tests.faulty_stores import (
    Crashed,
    CrashingStore,
    ForgetfulMarks,
    LosingReplies,
    RacingStore,
    UnfencedStore,
    UnversionedStore,
    lose_tail,
    snapshot,
)  # fmt: skip
from tests.plain_state import PlainState

DOMAIN = Domain(
    actions=(
        Action("view"),
        Action("cart", weight=3.0),
        Action("purchase", weight=5.0, purchase=True),
        Action("hide", negative=True),
        Action("hover", counted=False, weight=0.25),
    ),
    attributes=(Attribute("genre", "set", candidates=True, rate=True),),
)
ACTIONS = Part("user_actions", 0)
SHARDS = 4
START_MS = 1_700_000_000_000
SPANS_MS = (30_000, 3_600_000, 40 * 86_400_000)


def action(number, user, item, name, ts_ms, session=None):
    return UserAction(f"e{number}", f"u{user}", f"i{item}", name, ts_ms, session_id=session)


@st.composite
def worlds(draw, most=40):
    """Distinct actions and impressions of a few users on a few items, clumped in time, some far apart."""
    rng = draw(st.randoms(use_true_random=False))
    users, items = rng.randint(1, 4), rng.randint(1, 8)
    span_ms = rng.choice(SPANS_MS)
    records = []
    for number in range(draw(st.integers(1, most))):
        user, ts_ms = rng.randrange(users), START_MS + rng.randrange(span_ms) // rng.choice((1, 1, 50))
        session = rng.choice((None, "s1", "s2"))
        if rng.random() < 0.2:
            shown = [f"i{rng.randrange(items)}" for _ in range(rng.randint(1, 5))]
            records.append(Impression(f"e{number}", f"u{user}", shown, ts_ms, session_id=session))
        else:
            name = rng.choice(DOMAIN.actions).name
            records.append(action(number, user, rng.randrange(items), name, ts_ms, session))
    return records


@st.composite
def deliveries(draw, most=40, partitions=2):
    """A world and one way to deliver it: {part: batches of facts}, with repeats, in any order, split anyhow."""
    records = draw(worlds(most))
    rng = draw(st.randoms(use_true_random=False))
    stream = records + [rng.choice(records) for _ in range(rng.randint(0, len(records) // 2))]
    rng.shuffle(stream)
    parts = {}
    for record in stream:
        topic = "impressions" if isinstance(record, Impression) else "user_actions"
        part = Part(topic, rng.randrange(partitions))
        parts.setdefault(part, []).append(record)
    return records, {part: batches_of(rng, logged) for part, logged in parts.items()}


def batches_of(rng, logged):
    """Facts of one log in batches; offsets have gaps, as with transactions or compaction, and some are dead letters."""
    offset, batches = 0, [[]]
    for record in logged:
        offset += rng.choice((1, 1, 1, 1500))
        batches[-1].append(Fact(offset, record))
        if rng.random() < 0.3:
            batches.append([])
    return [batch for batch in batches if batch]


def apply_all(state, part, batches):
    resume = state.resume(part, committed=None, log_start=0)
    for facts in redo_from(resume, batches):
        state.apply(part, facts, last=facts[-1].offset)
    state.beat()


def redo_from(resume, batches):
    """The facts from a resume on: the first batch reaches `hold_to`, as the worker does it."""
    facts = [fact for batch in batches for fact in batch if fact.offset >= resume.start]
    first = [fact for fact in facts if fact.offset <= resume.hold_to]
    rest = [[fact for fact in batch if fact.offset > max(resume.hold_to, resume.start - 1)] for batch in batches]
    return [batch for batch in [first, *rest] if batch]


def expected(records, layout, **limits):
    return digest(PlainState(records, DOMAIN, layout.action_codes, **limits), layout, DOMAIN)


def counted(store):
    return {name: count for name, count in store.counts().items() if not name.startswith("dead")}


def expected_counts(parts):
    """Distinct events are applied, the rest are repeats, per topic."""
    counts = {}
    for topic in {part.topic for part in parts}:
        logged = [fact.record for part, batches in parts.items() if part.topic == topic for b in batches for fact in b]
        distinct = len({getattr(each, "event_id", None) or each.impression_id for each in logged})
        counts[f"applied:{topic}"] = distinct
        if len(logged) > distinct:
            counts[f"repeated:{topic}"] = len(logged) - distinct
    return counts


@given(deliveries())
def test_any_order_split_repeat_and_partition_gives_the_reference_digest(delivery):
    records, parts = delivery
    store = MemoryStore(SHARDS)
    for part, batches in parts.items():
        apply_all(State(store, DOMAIN), part, batches)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == expected(records, layout)
    assert counted(store) == expected_counts(parts)


@given(deliveries(), st.randoms(use_true_random=False))
def test_two_workers_that_race_for_the_same_users_give_the_reference_digest(delivery, rng):
    records, parts = delivery
    store = MemoryStore(SHARDS)
    pending = []
    for part, batches in parts.items():
        state = State(store, DOMAIN)
        state.resume(part, committed=None, log_start=0)
        pending.append((state, part, list(batches)))

    def step(racers):
        open_ = [each for each in racers if each[2]]
        if not open_:
            return
        state, part, batches = rng.choice(open_)
        others = [each for each in open_ if each[0] is not state]
        facts = batches.pop(0)
        state._store = RacingStore(store, [lambda: step(others)] * rng.randint(0, 3))
        state.apply(part, facts, last=facts[-1].offset)

    while any(batches for _, _, batches in pending):
        step(pending)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == expected(records, layout)
    assert counted(store) == expected_counts(parts)


def test_without_comparing_versions_a_race_loses_updates():
    store = MemoryStore(1)
    first, second = State(UnversionedStore(store), DOMAIN), State(store, DOMAIN)
    parts = Part("user_actions", 0), Part("user_actions", 1)
    for state, part in zip((first, second), parts, strict=True):
        state.resume(part, committed=None, log_start=0)
    records = [action(1, 1, 1, "view", START_MS), action(2, 1, 2, "view", START_MS)]
    racing = lambda: second.apply(parts[1], [Fact(0, records[1])], last=0)  # noqa: E731
    first._store = UnversionedStore(RacingStore(store, [racing]))
    first.apply(parts[0], [Fact(0, records[0])], last=0)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) != expected(records, layout)


@given(deliveries(most=60, partitions=2), st.integers(2, 6))
def test_a_log_cut_to_its_newest_records_does_not_depend_on_the_order(delivery, most):
    records, parts = delivery
    once = {id(record): record for record in records}
    limits = (user_log.ACTIONS_MAX, user_log.IMPRESSIONS_MAX, user_log.BOUGHT_MAX)
    user_log.ACTIONS_MAX = user_log.IMPRESSIONS_MAX = user_log.BOUGHT_MAX = most
    try:
        store = MemoryStore(SHARDS)
        for part, batches in parts.items():
            fresh = [[fact for fact in batch if once.pop(id(fact.record), None)] for batch in batches]
            apply_all(State(store, DOMAIN), part, [batch for batch in fresh if batch])
        layout = store.open(DOMAIN)
        wanted = expected(records, layout, actions_max=most, impressions_max=most, bought_max=most)
        assert digest(store, layout, DOMAIN) == wanted
    finally:
        user_log.ACTIONS_MAX, user_log.IMPRESSIONS_MAX, user_log.BOUGHT_MAX = limits


def sessions_log(seed=7, events=60):
    """One partition's log with sessions, repeats and dead letters, in batches."""
    rng = random.Random(seed)
    facts, records = [], []
    for offset in range(events):
        if rng.random() < 0.08:
            facts.append(Fact(offset, None))
        elif records and rng.random() < 0.15:
            facts.append(Fact(offset, rng.choice(records)))
        else:
            ts_ms = START_MS + offset * 20_000 - rng.randrange(60_000)
            session = rng.choice(("s1", None))
            records.append(
                action(offset, rng.randrange(5), rng.randrange(9), rng.choice(DOMAIN.actions).name, ts_ms, session)
            )
            facts.append(Fact(offset, records[-1]))
    return records, [facts[at : at + 12] for at in range(0, events, 12)]


def everything(store):
    """All that must be equal after a redo on one partition: digest, neighbour lists, counters."""
    layout = store.open(DOMAIN)
    items = [int(key, 16) for key, _ in store.scan("i")]
    lists = [store.read_co_visited(sorted(items)), store.read_sessions(sorted(items))]
    return digest(store, layout, DOMAIN), lists, store.counts()


def undisturbed(batches, store=None):
    store = store or MemoryStore(SHARDS)
    apply_all(State(store, DOMAIN), ACTIONS, batches)
    return everything(store)


def run_through_a_crash(store, batches, *, at, applied):
    """Applies, dies at script call `at`, starts anew from the store; True once `at` lies beyond the last call."""
    crashing = CrashingStore(store, at=at, applied=applied)
    try:
        apply_all(State(crashing, DOMAIN), ACTIONS, batches)
    except Crashed:
        apply_all(State(store, DOMAIN), ACTIONS, batches)
        return False
    return True


@pytest.mark.parametrize("applied", [False, True], ids=["before the call", "after the call, before its reply"])
def test_a_crash_between_any_two_script_calls_changes_nothing(applied):
    records, batches = sessions_log()
    wanted = undisturbed(batches)
    assert wanted[0] == expected(records, MemoryStore(SHARDS).open(DOMAIN))
    at, done = 0, False
    while not done:
        at += 1
        store = MemoryStore(SHARDS)
        done = run_through_a_crash(store, batches, at=at, applied=applied)
        assert everything(store) == wanted, f"died at call {at}"
    assert at > 30


def test_a_crash_during_a_redo_changes_nothing():
    _, batches = sessions_log()
    wanted = undisturbed(batches)
    for first in range(5, 40, 5):
        for second in range(1, 12):
            store = MemoryStore(SHARDS)
            with pytest.raises(Crashed):
                apply_all(State(CrashingStore(store, at=first, applied=True), DOMAIN), ACTIONS, batches)
            run_through_a_crash(store, batches, at=second, applied=False)
            assert everything(store) == wanted, f"died at calls {first}, {second}"


@pytest.mark.parametrize("applied", [False, True])
def test_a_lost_connection_is_survived_by_calling_again(applied):
    _, batches = sessions_log()
    wanted = undisturbed(batches)
    for at in range(1, 40):
        store = MemoryStore(SHARDS)
        state = State(LosingReplies(store, at=at, applied=applied), DOMAIN)
        state.resume(ACTIONS, committed=None, log_start=0)
        for facts in batches:
            try:
                state.apply(ACTIONS, facts, last=facts[-1].offset)
            except StoreAway:
                state.apply(ACTIONS, facts, last=facts[-1].offset)
        assert everything(store) == wanted, f"lost at call {at}"


def test_a_store_without_fences_counts_twice_or_not_at_all_after_a_crash():
    _, batches = sessions_log()
    right, wrong = undisturbed(batches), 0
    for at in range(1, 30):
        store = MemoryStore(SHARDS)
        with pytest.raises(Crashed):
            apply_all(State(CrashingStore(store, at=at, applied=True), DOMAIN), ACTIONS, batches)
        apply_all(State(ForgetfulMarks(UnfencedStore(store)), DOMAIN), ACTIONS, batches)
        wrong += everything(store)[0] != right[0]
    assert wrong > 15


@given(st.integers(0, 4), st.integers(0, 3), st.sets(st.integers(0, SHARDS - 1), min_size=1), st.integers(0, 1000))
def test_a_store_that_lost_its_tail_is_noticed_and_made_good(taken_after, lost_after, shards, seed):
    _, batches = sessions_log(seed)
    wanted = undisturbed(batches)
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    taken = snapshot(store)
    try:
        for number, facts in enumerate(batches):
            state.apply(ACTIONS, facts, last=facts[-1].offset)
            if number == taken_after:
                taken = snapshot(store)
            if number == taken_after + lost_after:
                lose_tail(store, taken, shards)
        state.beat()
    except StateLost as error:
        assert error.part == ACTIONS
        apply_all(state, error.part, batches)
    assert everything(store)[::2] == wanted[::2]


@pytest.mark.parametrize("notice", ["batch", "beat"])
def test_a_lost_tail_is_noticed_by_the_next_batch_and_by_the_beat(notice):
    _, batches = sessions_log()
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    taken = snapshot(store)
    for facts in batches[:3]:
        state.apply(ACTIONS, facts, last=facts[-1].offset)
    lose_tail(store, taken, range(SHARDS))
    look = {"batch": lambda: state.apply(ACTIONS, batches[3], last=batches[3][-1].offset), "beat": state.beat}
    with pytest.raises(StateLost):
        look[notice]()


def test_lost_tails_of_two_partitions_in_one_store_are_made_good():
    records, batches = sessions_log(3, events=96)
    parts = {Part("user_actions", 0): batches[::2], Part("user_actions", 1): batches[1::2]}
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    for part in parts:
        state.resume(part, committed=None, log_start=0)
    taken = snapshot(store)
    for number in range(4):
        for part, mine in parts.items():
            state.apply(part, mine[number], last=mine[number][-1].offset)
        if number == 1:
            taken = snapshot(store)
    lose_tail(store, taken, range(SHARDS))
    for part, mine in reversed(parts.items()):
        apply_all(State(store, DOMAIN), part, mine)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == expected(records, layout)
    assert counted(store) == expected_counts(
        {part: [[f for f in b if f.record] for b in mine] for part, mine in parts.items()}
    )


def test_a_shard_that_lost_everything_is_built_again_from_the_part_s_start():
    _, batches = sessions_log()
    wanted = undisturbed(batches)
    store = MemoryStore(SHARDS)
    taken = snapshot(store)
    apply_all(State(store, DOMAIN), ACTIONS, batches)
    lose_tail(store, taken, [2])
    state = State(store, DOMAIN)
    assert state.resume(ACTIONS, committed=60, log_start=0).start == 0
    apply_all(state, ACTIONS, batches)
    assert everything(store) == wanted


def test_a_zombie_that_goes_on_beside_the_new_owner_changes_nothing():
    _, batches = sessions_log()
    store = MemoryStore(SHARDS)
    zombie, owner = State(store, DOMAIN), State(store, DOMAIN)
    for state in (zombie, owner):
        state.resume(ACTIONS, committed=None, log_start=0)
    together = [fact for batch in batches[:2] for fact in batch]
    zombie.apply(ACTIONS, together, last=together[-1].offset)
    for facts in batches:
        owner.apply(ACTIONS, facts, last=facts[-1].offset)
    for facts in batches[2:4]:
        zombie.apply(ACTIONS, facts, last=facts[-1].offset)
    owner.beat()
    assert everything(store)[::2] == undisturbed(batches)[::2]


def test_a_part_begins_at_the_log_s_start_and_goes_on_from_the_smaller_of_mark_and_commit():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    begun = state.resume(ACTIONS, committed=500, log_start=100)
    assert (begun.start, begun.started) == (100, None)
    state.apply(ACTIONS, [Fact(700, action(1, 1, 1, "view", START_MS))], last=800)
    assert state.position(ACTIONS) == 801
    state.beat()
    state.release(ACTIONS)
    assert state.resume(ACTIONS, committed=650, log_start=100).start == 650
    resume = state.resume(ACTIONS, committed=900, log_start=100)
    assert (resume.start, resume.hold_to, resume.started) == (801, 800, 100)


def test_without_a_commit_a_part_is_read_again_from_where_it_began_and_nothing_counts_twice():
    _, batches = sessions_log()
    store = MemoryStore(SHARDS)
    apply_all(State(store, DOMAIN), ACTIONS, batches)  # and the worker dies before its first commit
    before = everything(store)
    again = State(store, DOMAIN)
    resume = again.resume(ACTIONS, committed=None, log_start=0)
    assert (resume.start, resume.hold_to) == (0, batches[-1][-1].offset)
    applied = again.apply(ACTIONS, [fact for batch in batches for fact in batch], last=resume.hold_to)
    assert applied.users  # what an answer is made of
    assert everything(store) == before


def test_without_a_commit_a_shortened_log_is_read_from_its_new_start():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=100)
    state.apply(ACTIONS, [Fact(150, action(1, 1, 1, "view", START_MS))], last=199)
    state.beat()
    assert State(store, DOMAIN).resume(ACTIONS, committed=None, log_start=130).start == 130


def test_a_log_that_no_longer_reaches_back_stops_loudly():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    state.apply(ACTIONS, [Fact(5, action(1, 1, 1, "view", START_MS))], last=5)
    with pytest.raises(StateForeign, match="headrace rebuild"):
        state.resume(ACTIONS, committed=None, log_start=50)


def test_a_log_of_records_that_only_ask_goes_on_where_retention_left_it():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    state.apply(ACTIONS, [Fact(5, action(1, 1, 1, "view", START_MS))], last=5)
    assert state.resume(ACTIONS, committed=6, log_start=50, asks_only=True).start == 50
    state.apply(ACTIONS, [Fact(50, action(2, 2, 1, "view", START_MS))], last=50)
    state.beat()
    assert min(store.marks("u", ACTIONS)) == min(store.marks("i", ACTIONS)) == 50
    assert State(store, DOMAIN).resume(ACTIONS, committed=51, log_start=50).start == 51


def test_marks_of_shards_without_work_follow_within_a_thousand_offsets_and_at_each_beat():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    state.apply(ACTIONS, [Fact(0, action(1, 1, 1, "view", START_MS))], last=0)
    assert min(store.marks("u", ACTIONS)) == -1
    state.apply(ACTIONS, [], last=1500)
    assert min(store.marks("u", ACTIONS)) == min(store.marks("i", ACTIONS)) == 1500
    state.apply(ACTIONS, [], last=1600)
    state.beat()
    assert min(store.marks("u", ACTIONS)) == min(store.marks("i", ACTIONS)) == 1600


def test_a_repeat_is_told_and_counted_once():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    one = action(1, 1, 1, "view", START_MS)
    applied = state.apply(ACTIONS, [Fact(0, one), Fact(1, one), Fact(2, None)], last=2)
    assert applied.fresh.tolist() == [True, False, True]
    assert state.apply(ACTIONS, [Fact(3, one)], last=3).fresh.tolist() == [False]
    assert store.counts() == {"applied:user_actions": 1, "repeated:user_actions": 2, "dead_lettered:user_actions": 1}


def test_a_forgotten_user_s_log_is_gone_and_may_begin_again():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    facts = [Fact(0, action(1, 1, 1, "purchase", START_MS)), Fact(1, Forget("u1", START_MS + 4))]
    assert state.apply(ACTIONS, facts, last=1).users == {"u1": b""}
    assert not list(store.scan("u"))
    again = state.apply(ACTIONS, [Fact(2, action(2, 1, 2, "view", START_MS + 5))], last=2)
    assert len(again.users["u1"]) == 12 + 24


@pytest.mark.parametrize("applied", [False, True])
def test_a_crash_around_a_forgotten_user_brings_nothing_back(applied):
    facts = [Fact(at, action(at, 1, at % 5, "view", START_MS + at)) for at in range(8)]
    facts[4] = Fact(4, Forget("u1", START_MS + 4))
    batches = [facts[:2], facts[2:6], facts[6:]]
    wanted = undisturbed(batches)
    for at in range(1, 12):
        store = MemoryStore(SHARDS)
        run_through_a_crash(store, batches, at=at, applied=applied)
        assert everything(store) == wanted, f"died at call {at}"


def test_requests_and_items_are_counted_and_users_of_requests_are_read():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    requests, items = Part("recommendation_requests", 0), Part("items", 0)
    for part in (ACTIONS, requests, items):
        state.resume(part, committed=None, log_start=0)
    log = state.apply(ACTIONS, [Fact(0, action(1, 1, 1, "view", START_MS))], last=0).users["u1"]
    asked = [Fact(0, RecommendationRequest("r1", "u1", START_MS)), Fact(1, RecommendationRequest("r2", "u9", START_MS))]
    assert state.apply(requests, asked, last=1).users == {"u1": log, "u9": b""}
    entries = [Fact(0, Item("i1", 5, attributes={"genre": ["x"]})), Fact(1, Gone("i2", 6)), Fact(2, None)]
    assert state.apply(items, entries, last=2).fresh.all()
    assert store.counts() == {
        "applied:user_actions": 1,
        "applied:recommendation_requests": 2,
        "applied:items": 2,
        "dead_lettered:items": 1,
    }
    state.apply(ACTIONS, [Fact(1, action(2, 1, 1, "cart", START_MS))], last=1)
    assert store.read_top("a:genre:x", 5)[0].tolist() == store.read_top("top", 1)[0].tolist()
    assert store.read_value_rings([("genre", "x")])[0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=20
    ),
    st.integers(1, 5),
)
def test_item_records_give_the_reference_digest_in_any_order(entries, size):
    items = [Item(f"i{item}", ts_ms, available, {"name": name}) for item, ts_ms, available, name in entries]
    part = Part("items", 0)
    store = MemoryStore(SHARDS)
    facts = [Fact(offset, item) for offset, item in enumerate(items)]
    apply_all(State(store, DOMAIN), part, [facts[at : at + size] for at in range(0, len(facts), size)])
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == expected(items, layout)


def test_the_fresh_context_of_a_session_follows_its_last_three_distinct_items():
    store = MemoryStore(SHARDS)
    facts = [Fact(at, action(at, 1, item, "view", START_MS + at, "s")) for at, item in enumerate([1, 2, 2, 3, 4, 1])]
    apply_all(State(store, DOMAIN), ACTIONS, [facts])
    from features.ids import hash64
    from features.neighbours import co_visited

    _, items, weights = co_visited(store.read_co_visited([hash64("i2")])[0])
    share = dict(zip(items.tolist(), (weights / weights.max()).tolist(), strict=True))
    assert share == pytest.approx({hash64("i3"): 1.0, hash64("i4"): 0.5, hash64("i1"): 1 / 3})


@pytest.mark.services
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
def test_redis_gives_the_reference_digest_too(redis_url, delivery):
    records, parts = delivery
    store = RedisStore(redis_url, app="t", shards=SHARDS)
    store._wire.one("FLUSHALL")
    for part, batches in parts.items():
        apply_all(State(store, DOMAIN), part, batches)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == expected(records, layout)
    assert counted(store) == expected_counts(parts)


@pytest.mark.services
def test_a_crash_between_script_calls_changes_nothing_in_redis(redis_url):
    _, batches = sessions_log()
    wanted = undisturbed(batches)
    for at in range(1, 40, 3):
        store = RedisStore(redis_url, app=f"t{at}", shards=SHARDS)
        run_through_a_crash(store, batches, at=at, applied=at % 2 == 0)
        assert everything(store) == wanted, f"died at call {at}"


def test_a_damaged_log_in_the_store_stops_by_its_shard_names_nobody_and_is_not_written_over():
    class Spoilt(MemoryStore):
        def read_users(self, users):
            return [blob[:-1] + b"?" if blob else blob for blob in super().read_users(users)]

    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    state.apply(ACTIONS, [Fact(0, action(0, 1, 1, "view", START_MS))], last=0)
    store.__class__ = Spoilt
    with pytest.raises(StateForeign, match=f"shard {hash64('u1') % SHARDS}, .*: its checksum differs: damaged") as told:
        state.apply(ACTIONS, [Fact(1, action(1, 1, 1, "view", START_MS))], last=1)
    assert f"{hash64('u1'):016x}" not in str(told.value)
    store.__class__ = MemoryStore
    assert store.marks("u", ACTIONS).max() == 0
