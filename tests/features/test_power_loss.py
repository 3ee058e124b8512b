"""Redis loses its newest writes while the worker lives on and tries again: it must not trust what it believed before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import user_log
from features.digest import digest
from features.ids import hash64
from features.state import Fact, Forget, State
from features.store.memory import MemoryStore
from features.store.port import StateLost, StoreAway
from tests.faulty_stores import PowerLoss, Wrapped, lose_tail, snapshot
from tests.features.test_forgetting import OTHER, Between, check, counted, entries, forgetful_logs, names_u1, swept
from tests.features.test_state import ACTIONS, DOMAIN, SHARDS, START_MS, action, batches_of, redo_from


def live_patiently(state, batches, *, beats=False):
    """What a worker does: a batch that met an absent store is called again; after a loss the state says where to start."""
    resume = state.resume(ACTIONS, committed=None, log_start=0)
    left, committed = redo_from(resume, batches), None
    while left is not None:
        try:
            while left:
                patiently(state.apply, ACTIONS, left[0], last=left[0][-1].offset)
                committed = left.pop(0)[-1].offset + 1
                if beats:
                    patiently(state.beat)
            patiently(state.beat)
            left = None
        except StateLost:
            resume = patiently(state.resume, ACTIONS, committed=committed, log_start=0)
            left = redo_from(resume, batches)


def patiently(call, *args, **kwargs):
    while True:
        try:
            return call(*args, **kwargs)
        except StoreAway:
            continue


@given(forgetful_logs(), st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 25))
def test_a_power_loss_under_a_living_worker_changes_nothing(log, rng, at, lost):
    batches, store = batches_of(rng, log), MemoryStore(SHARDS)
    state = State(PowerLoss(store, at=at, lost=lost), DOMAIN)
    live_patiently(state, batches)
    swept(state)
    check(store, log)
    assert counted(store) == len(log)


@pytest.mark.parametrize("lost", range(6))
def test_what_was_refused_before_the_loss_is_refused_after_it(lost):
    log = [action(at, 1, at % 5, "view", START_MS + at) for at in range(4)]
    log += [Forget("u1", START_MS + 9), *(action(at, 1, at % 5, "view", START_MS + at) for at in range(4, 8)), log[0]]
    facts = [Fact(offset, record) for offset, record in enumerate(log)]
    for at in range(1, 40):
        store = MemoryStore(SHARDS)
        state = State(PowerLoss(store, at=at, lost=lost), DOMAIN)
        live_patiently(state, [facts[:2], facts[2:]])
        swept(state)
        check(store, log)


@pytest.mark.parametrize("lost", range(1, 12))
def test_a_repeat_counts_once_though_the_next_batch_cuts_its_event_off_a_full_log(monkeypatch, lost):
    """The store lost what the repeat's batch left at the items, not the log; a next batch in between would leave the redo
    without the event that tells a repeat.
    """
    monkeypatch.setattr(user_log, "ACTIONS_MAX", 4)
    log = [action(at, 1, at, "view", START_MS + at) for at in range(4)]
    log += [log[0], *(action(at, 1, at, "view", START_MS + at) for at in range(5, 9))]
    facts = [Fact(offset, record) for offset, record in enumerate(log)]
    batches = [facts[:4], facts[4:5], facts[5:]]

    def lived(store):
        live_patiently(State(store, DOMAIN), batches, beats=True)
        return digest(store, store.open(DOMAIN), DOMAIN)

    undisturbed = lived(MemoryStore(SHARDS))
    for at in range(1, 60):
        assert lived(PowerLoss(MemoryStore(SHARDS), at=at, lost=lost)) == undisturbed, at


class Away(Wrapped):
    def beat(self, beats):
        raise StoreAway("connection lost")


def u1_is_forgotten_again(phase):
    """A worker with an event of u1, which another forgets anew before the write of `phase`: what was known of that is lost."""
    store = MemoryStore(SHARDS)
    first, second = State(store, DOMAIN), State(store, DOMAIN)
    first.resume(ACTIONS, committed=None, log_start=0)
    second.resume(OTHER, committed=None, log_start=0)
    taken = snapshot(store)

    def forget(state):
        state.apply(ACTIONS, [Fact(0, Forget("u1", START_MS + 5))], last=0)
        swept(state)

    forget(first)
    others = [f"u{at}" for at in range(2, 40) if hash64(f"u{at}") % SHARDS == hash64("u1") % SHARDS]
    for offset, user in enumerate(others[:8]):  # from which the second learns the epochs of all shards
        second.apply(OTHER, [Fact(offset, action(offset, int(user[1:]), offset, "view", START_MS))], last=offset)
    lose_tail(store, taken, range(SHARDS))
    second._store = Away(store)
    with pytest.raises(StoreAway):
        second.beat()
    again = State(store, DOMAIN)
    again.resume(ACTIONS, committed=1, log_start=0)
    second._store = Between(store, **{phase: [lambda: forget(again)]})
    second.resume(OTHER, committed=None, log_start=0)
    second.apply(OTHER, [Fact(9, action(9, 1, 3, "view", START_MS))], last=9)
    return store


def test_who_was_forgotten_again_after_a_loss_has_no_log_by_an_event_under_way():
    store = u1_is_forgotten_again("users")
    assert not list(store.scan("u"))
    assert not entries(store)


def test_who_was_forgotten_again_after_a_loss_is_not_listed_by_an_event_under_way():
    assert not names_u1(u1_is_forgotten_again("items"))


@pytest.mark.parametrize("later", [(), (61,)])
def test_an_event_of_two_partitions_counts_once_whichever_is_done_again_first_after_a_loss(later):
    """A heartbeat or a next batch comes before the loss shows: it must not move marks over what has to be done again."""
    user = next(number for number in range(1, 99) if hash64(f"u{number}") % SHARDS == 0)
    other = next(number for number in range(1, 99) if hash64(f"u{number}") % SHARDS)
    event = action(1, user, 3, "view", START_MS)
    logs = {OTHER: [Fact(7, event)], ACTIONS: [Fact(60, event)]}
    rest = [Fact(offset, action(offset, other, 3, "view", START_MS)) for offset in later]
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    for part in (ACTIONS, OTHER):
        state.resume(part, committed=None, log_start=0)
    taken = snapshot(store)
    for part, facts in logs.items():
        state.apply(part, facts, last=facts[-1].offset)
    lose_tail(store, taken, range(SHARDS))
    logs[ACTIONS] += rest

    def go_on():
        if rest:
            state.apply(ACTIONS, rest, last=rest[-1].offset)
        state.beat()

    with pytest.raises(StateLost):
        go_on()
    for part in (ACTIONS, OTHER):
        resume = state.resume(part, committed=1000, log_start=0)
        if facts := [fact for fact in logs[part] if fact.offset >= resume.start]:
            state.apply(part, facts, last=facts[-1].offset)
    check(store, [event, *(fact.record for fact in rest)])
