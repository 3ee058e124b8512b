"""Redis loses its newest writes while the worker lives on and tries again: it must not trust what it believed before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.state import Fact, Forget, State
from features.store.memory import MemoryStore
from features.store.port import StateLost, StoreAway
from tests.faulty_stores import PowerLoss
from tests.features.test_forgetting import check, counted, forgetful_logs, swept
from tests.features.test_state import ACTIONS, DOMAIN, SHARDS, START_MS, action, batches_of, redo_from


def live_patiently(state, batches):
    """What a worker does: a batch that met an absent store is called again; after a loss the state says where to start."""
    resume = state.resume(ACTIONS, committed=None, log_start=0)
    left, committed = redo_from(resume, batches), None
    while left is not None:
        try:
            while left:
                patiently(state.apply, ACTIONS, left[0], last=left[0][-1].offset)
                committed = left.pop(0)[-1].offset + 1
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
