"""A log with repeats and late events, and a worker's loop over it: applies, resumes after every loss, waits what is away."""

import random
import time

from features.schema import UserAction
from features.state import Fact
from features.store.port import Part, StateLost, StoreAway

PART = Part("user_actions", 0)
PATIENCE_S = 60.0
WAIT_S = 0.02


def log(events, seed):
    rng = random.Random(seed)
    facts = []
    for offset in range(events):
        ts_ms = 1_700_000_000_000 + offset * 5_000 - rng.randrange(60_000)
        name = rng.choice(("view", "view", "buy"))
        record = UserAction(f"e{offset}", f"u{rng.randrange(40)}", f"i{rng.randrange(60)}", name, ts_ms, session_id="s")
        facts.append(Fact(offset, rng.choice(facts).record if facts and rng.random() < 0.1 else record))
    return facts


def patiently(call):
    """What `call` returns, asked again while the store is away."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except StoreAway:
            if time.monotonic() > until_s:
                raise
            time.sleep(WAIT_S)


def go_on(state, facts, until, size):
    """Applies from where the state stands; returns how many losses were noticed."""
    losses = 0
    resume = patiently(lambda: state.resume(PART, committed=None, log_start=0))
    at, hold_to = resume.start, resume.hold_to
    while at < until:
        end = min(until, max(at + size, hold_to + 1))
        batch = facts[at:end]
        try:
            patiently(lambda batch=batch, end=end: state.apply(PART, batch, last=end - 1))
            at = end
        except StateLost:
            losses += 1
            resume = patiently(lambda at=at: state.resume(PART, committed=at, log_start=0))
            at, hold_to = resume.start, resume.hold_to
    return losses
