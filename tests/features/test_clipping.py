"""Logs that are brought in line with tombstones from elsewhere: as by a Forget, whoever writes meanwhile."""

import pytest

from features.clipping import clip
from features.digest import digest
from features.domain import Action, Domain
from features.facts import Fact, Forget
from features.ids import hash64
from features.schema import Impression, UserAction
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import CARRIED, Part, StateForeign, StoreAway, UserCall
from features.tombstone import Tombstone, pack
from tests.faulty_stores import RacingStore, snapshot

DOMAIN = Domain(actions=(Action("view"), Action("buy", weight=5.0, purchase=True)))
PART, SHOWN = Part("user_actions", 0), Part("impressions", 0)
USERS = [f"u{number}" for number in range(6)]
T_MS = 1_700_000_000_000


def facts(first=0, until=120):
    return [
        Fact(at, UserAction(f"e{at}", USERS[at % 6], f"i{at % 7}", ("view", "buy")[at % 2], T_MS + at))
        for at in range(first, until)
    ]


def filled(store=None):
    state = State(store or MemoryStore(4), DOMAIN)
    for part in (PART, SHOWN):
        state.resume(part, committed=None, log_start=0)
    state.apply(PART, facts(), last=119)
    state.apply(SHOWN, [Fact(at, Impression(f"l{at}", user, ["i1"], T_MS)) for at, user in enumerate(USERS)], last=5)
    state.beat()
    return state


def remember(store, user, until_ms):
    """A tombstone, as it is carried from another generation: the log does not know of it."""
    store.begin(CARRIED, 0)
    key = hash64(user)
    store._shards[key % 4].tombstones[key] = pack(Tombstone(until_ms))
    store._shards[key % 4].epochs["u"] = store._shards[key % 4].epochs.get("u", 0) + 1


def clipped(store, state):
    written = sum(clip(store, state.layout))
    while state.sweep() is not None:
        pass
    return written


def listed(store, user):
    return sum(
        hash64(user).to_bytes(8, "big") in bytes(each) for shard in store._shards for each in shard.sessions.values()
    )


@pytest.mark.parametrize("until_ms", [T_MS + 1_000, T_MS + 60, T_MS + 62])
def test_the_state_is_that_of_a_forget_at_the_end(until_ms):
    store, other = MemoryStore(4), MemoryStore(4)
    state, forgetting = filled(store), filled(other)
    remember(store, "u2", until_ms)
    assert clipped(store, state) == 1
    forgetting.apply(PART, [Fact(120, Forget("u2", until_ms))], last=120)
    while forgetting.sweep() is not None:
        pass
    assert digest(store, state.layout, DOMAIN) == digest(other, state.layout, DOMAIN)
    assert listed(store, "u2") == listed(other, "u2")
    assert bool(listed(store, "u2")) == (until_ms < T_MS + 120)
    late = [
        Fact(121, UserAction("late", "u2", "i1", "view", until_ms)),
        Fact(122, UserAction("n", "u2", "i1", "view", until_ms + 1)),
    ]
    for each in (state, forgetting):
        assert each.apply(PART, late, last=122).fresh.tolist() == [False, True]
    assert digest(store, state.layout, DOMAIN) == digest(other, state.layout, DOMAIN)


def test_a_second_time_writes_nothing_and_orders_no_sweep():
    store = MemoryStore(4)
    state = filled(store)
    remember(store, "u2", T_MS + 60)
    assert clipped(store, state) == 1
    before = snapshot(store)
    assert clipped(store, state) == 0
    assert snapshot(store) == before


def test_a_log_that_began_later_is_told_of_the_tombstone():
    """Its user came back, and the older events may still come."""
    store = MemoryStore(4)
    state = filled(store)
    remember(store, "u3", T_MS - 1)
    assert clipped(store, state) == 1
    old = UserAction("old", "u3", "i1", "view", T_MS - 1)
    assert not state.apply(PART, [Fact(120, old)], last=120).fresh.any()


def test_one_that_dies_before_the_logs_has_ordered_the_sweep_and_is_gone_on_with():
    class Dies(RacingStore):
        def commit_users(self, part, calls):
            raise StoreAway("it died")

    store = MemoryStore(4)
    state = filled(store)
    remember(store, "u2", T_MS + 1_000)
    with pytest.raises(StoreAway):
        sum(clip(Dies(store, []), state.layout))
    assert {user for due in store.to_sweep().values() for user in due} == {hash64("u2")}
    assert clipped(store, state) == 1
    assert not listed(store, "u2")
    assert store.to_sweep() == {}


def test_a_worker_that_writes_between_read_and_write_is_not_overwritten():
    store = MemoryStore(4)
    state = filled(store)
    remember(store, "u2", T_MS + 60)
    worker = State(store, DOMAIN)
    worker.resume(PART, committed=120, log_start=0)
    more = facts(120, 132)
    racing = RacingStore(store, [lambda: worker.apply(PART, more, last=131)])
    assert sum(clip(racing, state.layout)) == 1
    state = filled(MemoryStore(4))
    state.apply(PART, [*more, Fact(132, Forget("u2", T_MS + 60))], last=132)
    assert digest(store, worker.layout, DOMAIN) == digest(state._store, worker.layout, DOMAIN)


def test_a_worker_that_knows_of_no_tombstone_adds_nothing_to_a_session_list_afterwards():
    """It was between its phases: the log is clipped and swept, then its items come."""
    store = MemoryStore(4)
    filled(store)
    worker = State(Between(store), DOMAIN)
    worker.resume(PART, committed=120, log_start=0)
    worker.apply(PART, [Fact(120, UserAction("x", "u2", "i1", "view", T_MS + 130))], last=120)
    assert not store.read_users([hash64("u2")])[0]
    assert not listed(store, "u2")


class Between(RacingStore):
    """Carries a tombstone between the phases of the first batch."""

    def __init__(self, store):
        super().__init__(store, [])

    def commit_items(self, part, calls):
        if part == PART and calls and calls[0].last == 120 and not hasattr(self, "done"):
            self.done = True
            remember(self.store, "u2", T_MS + 1_000)
            clipped(self.store, State(self.store, DOMAIN))
        return self.store.commit_items(part, calls)


def test_a_redo_that_read_the_log_just_before_leaves_no_trace_after_the_sweep():
    """The sweep that was ordered first is done, the worker knows of it, and its redo has nothing to write to the log."""
    store = MemoryStore(4)
    state = filled(store)
    again = [Fact(120, UserAction("x", "u2", "i1", "view", T_MS + 130))]
    dying = State(NoItems(store, []), DOMAIN)
    dying.resume(PART, committed=120, log_start=0)
    with pytest.raises(StoreAway):
        dying.apply(PART, again, last=120)
    remember(store, "u2", T_MS + 1_000)
    assert sum(clip(Meanwhile(store, again), state.layout)) == 1
    assert listed(store, "u2")
    while state.sweep() is not None:
        pass
    assert not listed(store, "u2")


class NoItems(RacingStore):
    """Dies between the phases."""

    def commit_items(self, part, calls):
        raise StoreAway("it died")


class Meanwhile(RacingStore):
    """Just before the log is written the sweep is done, and a worker reads the log; afterwards it goes on."""

    def __init__(self, store, again):
        super().__init__(store, [])
        self.again = again

    def commit_users(self, part, calls):
        if not calls[0].epoch:  # not known yet: refused
            return self.store.commit_users(part, calls)
        replies = []
        store = RacingStore(self.store, [])
        worker = State(store, DOMAIN)
        for each in (PART, SHOWN):
            worker.resume(each, committed=6, log_start=0)
        while worker.sweep() is not None:
            pass
        near = next(user for user in map(str, range(99)) if hash64(user) % 4 == hash64("u2") % 4)
        worker.apply(SHOWN, [Fact(6, Impression("l6", near, ["i1"], T_MS))], last=6)  # learns both epochs
        store.others.append(lambda: replies.extend(self.store.commit_users(part, calls)))
        worker.apply(PART, self.again, last=120)
        return replies


def test_lost_marks_are_waited_for_and_a_damaged_log_names_no_user():
    store = MemoryStore(4)
    state = filled(store)
    remember(store, "u2", T_MS + 60)
    for shard in store._shards:
        shard.marks = {name: mark for name, mark in shard.marks.items() if CARRIED.topic not in name}
    with pytest.raises(StoreAway, match="marks"):
        sum(clip(store, state.layout))
    store.begin(CARRIED, 0)
    key = hash64("u2")
    store.commit_users(
        CARRIED, [UserCall(key % 4, -1, -1, [(key, store.read_users([key])[0][:4], b"x" * 40)], epoch=1)]
    )
    with pytest.raises(StateForeign, match=f"shard {key % 4}, a user's log") as foreign:
        sum(clip(store, state.layout))
    assert f"{key:016x}" not in str(foreign.value)
    with pytest.raises(StateForeign, match=f"shard {key % 4}, a user's log") as foreign:
        state.apply(PART, [Fact(120, UserAction("x", "u2", "i1", "view", T_MS + 130))], last=120)
    assert f"{key:016x}" not in str(foreign.value)
