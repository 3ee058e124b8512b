"""Logs that overflow: a repeat is one, whatever was cut off the log since, in any split and through any crash."""

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import user_log
from features.digest import digest
from features.schema import Impression
from features.state import Fact, State
from features.store.memory import MemoryStore
from tests.faulty_stores import Crashed, CrashingStore, PowerLoss
from tests.features.test_power_loss import live_patiently
from tests.features.test_state import ACTIONS, DOMAIN, SHARDS, START_MS, action, apply_all, batches_of

MOST = 5


@contextmanager
def small_logs():
    """Room for 5 of a kind."""
    kept = user_log.ACTIONS_MAX, user_log.IMPRESSIONS_MAX
    user_log.ACTIONS_MAX = user_log.IMPRESSIONS_MAX = MOST
    try:
        yield
    finally:
        user_log.ACTIONS_MAX, user_log.IMPRESSIONS_MAX = kept


@st.composite
def busy_logs(draw):
    """Two users who do much, some of it late, much of it sent again soon."""
    rng = draw(st.randoms(use_true_random=False))
    log = []
    for number in range(draw(st.integers(10, 40))):
        ts_ms, user = START_MS + number * 1000 - rng.choice((0, 0, 0, 2500)), rng.randrange(2)
        if rng.random() < 0.2:
            log.append(Impression(f"p{number}", f"u{user}", [f"i{rng.randrange(6)}"], ts_ms))
        else:
            log.append(action(number, user, rng.randrange(6), "view", ts_ms))
        if rng.random() < 0.4:
            log.append(rng.choice(log[-8:]))
    return log


def everything(store):
    layout = store.open(DOMAIN)
    return digest(store, layout, DOMAIN), {name: count for name, count in store.counts().items() if count}


def one_by_one(batches):
    store = MemoryStore(SHARDS)
    apply_all(State(store, DOMAIN), ACTIONS, [[fact] for batch in batches for fact in batch])
    return everything(store)


@given(busy_logs(), st.randoms(use_true_random=False))
def test_any_split_of_a_log_counts_as_one_by_one(log, rng):
    with small_logs():
        batches, store = batches_of(rng, log), MemoryStore(SHARDS)
        apply_all(State(store, DOMAIN), ACTIONS, batches)
        assert everything(store) == one_by_one(batches)


@given(busy_logs(), st.randoms(use_true_random=False), st.integers(1, 80), st.booleans())
def test_a_crash_between_any_two_calls_changes_nothing(log, rng, at, applied):
    with small_logs():
        batches, store = batches_of(rng, log), MemoryStore(SHARDS)
        try:
            apply_all(State(CrashingStore(store, at=at, applied=applied), DOMAIN), ACTIONS, batches)
        except Crashed:
            apply_all(State(store, DOMAIN), ACTIONS, batches)
        assert everything(store) == one_by_one(batches)


@given(busy_logs(), st.randoms(use_true_random=False), st.integers(1, 80), st.integers(0, 20))
def test_a_power_loss_under_a_living_worker_changes_nothing(log, rng, at, lost):
    with small_logs():
        batches, store = batches_of(rng, log), MemoryStore(SHARDS)
        live_patiently(State(PowerLoss(store, at=at, lost=lost), DOMAIN), batches)
        assert everything(store) == one_by_one(batches)


@pytest.mark.parametrize("applied", [False, True])
def test_a_repeat_stays_one_when_its_event_was_cut_in_the_same_batch(applied):
    log = [action(at, 1, at, "view", START_MS + at) for at in range(MOST)]
    log += [log[0], *(action(at, 1, at % 3, "view", START_MS + at) for at in range(10, 18)), log[1]]
    facts = [Fact(offset, record) for offset, record in enumerate(log)]
    batches = [facts[:MOST], facts[MOST:]]
    with small_logs():
        wanted = one_by_one(batches)
        for at in range(1, 60):
            store = MemoryStore(SHARDS)
            try:
                apply_all(State(CrashingStore(store, at=at, applied=applied), DOMAIN), ACTIONS, batches)
            except Crashed:
                apply_all(State(store, DOMAIN), ACTIONS, batches)
            assert everything(store) == wanted, f"died at call {at}"


def test_a_redo_that_begins_before_what_the_items_have_brings_no_cut_event_back():
    """A crash lost the items' newest, the commit lies further back: a repeat there finds nothing in the log, which cut
    its event off since, and must not be put in for the next one to find.
    """
    log = [action(at, 1, at % 3, "view", START_MS + 1000 * at) for at in range(MOST)]
    log += [log[0], *(action(at, 1, at % 3, "view", START_MS + 1000 * at) for at in range(5, 8)), log[0]]
    log.append(action(8, 1, 2, "view", START_MS + 8000))
    facts = [Fact(offset, record) for offset, record in enumerate(log)]
    with small_logs():
        store = MemoryStore(SHARDS)
        state = State(store, DOMAIN)
        state.resume(ACTIONS, committed=None, log_start=0)
        for fact in facts[:-2]:
            state.apply(ACTIONS, [fact], last=fact.offset)
        state.beat()
        dying = State(CrashingStore(store, at=2, applied=False), DOMAIN)
        dying.resume(ACTIONS, committed=len(log) - 2, log_start=0)
        with pytest.raises(Crashed):
            dying.apply(ACTIONS, facts[-2:], last=facts[-1].offset)
        again = State(store, DOMAIN)
        resume = again.resume(ACTIONS, committed=MOST, log_start=0)
        assert (resume.start, resume.hold_to) == (MOST, len(log) - 1)
        again.apply(ACTIONS, facts[MOST:], last=facts[-1].offset)
        assert everything(store) == one_by_one([facts])
