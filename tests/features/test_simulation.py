"""Whole histories of workers, crashes, lost replies, power losses and moving parts: each ends as the logs say.

HEADRACE_TEST_HISTORIES=5000 of each kind for more than the 80 of a test run (half as many where servers lose tails of their own).
A seed that fails fails again.
"""

import os
from contextlib import nullcontext
from itertools import chain
from random import Random

import pytest

from features import tombstone, user_log
from features.ids import hash64
from features.neighbours import session_touches
from features.schema import Impression
from features.state import Fact, Forget, State
from features.store.memory import MemoryStore
from features.store.port import Part
from tests.features.simulated import Simulation
from tests.features.test_full_logs import everything, small_logs
from tests.features.test_state import DOMAIN, START_MS, action

HISTORIES = int(os.environ.get("HEADRACE_TEST_HISTORIES", "80"))
CHUNK = 20
SHARDS = 3
ITEMS = 6
FAULTS_MAX = 12
PARTS = (Part("user_actions", 0), Part("user_actions", 1), Part("impressions", 0))
PASSING = 100  # users from here on are forgotten, and shown no lists: what then follows is one partition's order


def busy_log(random, part, *, users, first):
    """Few users who do more than a log of theirs holds, some of it late, much of it sent again soon."""
    log = []
    for number in range(first, first + random.randint(5, 40)):
        ts_ms = START_MS + (number - first) * 1000 - random.choice((0, 0, 0, 2500))
        side = part.partition if part.topic == "user_actions" else random.randrange(2)
        user = 2 * random.randrange(users) + side
        if part.topic == "impressions":
            shown = [f"i{random.randrange(ITEMS)}" for _ in range(random.randint(1, 3))]
            log.append(Impression(f"p{number}", f"u{user}", shown, ts_ms))
        else:
            log.append(action(number, user, random.randrange(ITEMS), "view", ts_ms))
        if random.random() < 0.35:
            log.append(random.choice(log[-6:]))
    return log


def with_forgotten_ones(random, log, part, *, first):
    """Between its records those of two users who come, are forgotten at some moment, and come back."""
    mixed, theirs = [], []
    for number, record in enumerate(log, first):
        mixed.append(record)
        user = PASSING + 2 * random.randrange(2) + part.partition
        if random.random() < 0.5:
            ts_ms = record.ts_ms + random.choice((0, 0, 5000))
            theirs.append(action(number, user, random.randrange(ITEMS), "view", ts_ms))
            mixed.append(theirs[-1])
        if random.random() < 0.12:
            mixed.append(Forget(f"u{user}", record.ts_ms + random.choice((0, -3000, 2000))))
        if theirs and random.random() < 0.2:
            mixed.append(random.choice(theirs[-5:]))
    return mixed


def forgotten_elsewhere(random, part, *, first):
    """Three users in every part, forgotten in two of them: what counts has no order, what is gone has."""
    log = []
    for number in range(first, first + random.randint(10, 40)):
        user, item, ts_ms = random.randrange(3), random.randrange(ITEMS), START_MS + (number - first) * 1000
        if part.topic == "impressions":
            log.append(Impression(f"p{number}", f"u{user}", [f"i{item}"], ts_ms))
        elif random.random() < 0.15:
            log.append(Forget(f"u{user}", ts_ms + random.choice((0, 5_000, 40_000))))
        else:
            log.append(action(number, user, item, random.choice(("view", "purchase")), ts_ms))
    return log


def numbered(random, log):
    """Offsets have gaps, as with transactions or compaction."""
    offset, facts = 0, []
    for record in log:
        offset += random.choice((1, 1, 1, 1500))
        facts.append(Fact(offset, record))
    return facts


def crossed(random, logs):
    """By two partitioners at once: some records through both partitions, some through the other one."""
    one, other = PARTS[:2]
    all_of_them = sorted(logs[one] + logs[other], key=lambda record: record.ts_ms)
    twice = {part: [each for each in all_of_them if random.random() < 0.7] for part in (one, other)}
    return logs | twice


def logs_of(random, kind):
    """Of one `kind`: busy, forgetting or crossed."""
    users = random.choice((1, 1, 2, 5))
    logs = {part: busy_log(random, part, users=users, first=1_000 * at) for at, part in enumerate(PARTS)}
    if kind == "forgetting":
        for at, part in enumerate(PARTS[:2]):
            logs[part] = with_forgotten_ones(random, logs[part], part, first=100_000 + 1_000 * at)
    if kind == "crossed":
        logs = crossed(random, logs)
    return {part: numbered(random, log) for part, log in logs.items()}


def traces(store, logs):
    """What is left of who was forgotten: records and session entries, tombstones that say too little, sweeps to do."""
    until_ms = {}
    for fact in chain.from_iterable(logs.values()):
        if isinstance(fact.record, Forget):
            user = hash64(fact.record.user_id)
            until_ms[user] = max(until_ms.get(user, -1), fact.record.forgotten_ms)
    known = dict(zip(until_ms, store.read_tombstones(list(until_ms)), strict=True))
    found = [f"to sweep: {store.to_sweep()}"] if store.to_sweep() else []
    found += [
        f"tombstone of {user}" for user, blob in known.items() if tombstone.unpack(blob).until_ms != until_ms[user]
    ]
    for user, blob in zip(until_ms, store.read_users(list(until_ms)), strict=True):
        times = [user_log.times_ms(section) for section in user_log.sections(blob) if len(section)]
        found += [f"record of {user}" for each in times if (each <= until_ms[user]).any()]
    for blob in store.read_sessions([hash64(f"i{item}") for item in range(ITEMS)]):
        ts_ms, users, _ = session_touches(blob)
        touches = zip(users.tolist(), ts_ms.tolist(), strict=True)
        found += [f"entry of {user}" for user, at_ms in touches if at_ms <= until_ms.get(user, -1)]
    return found


def as_the_logs_say(logs):
    """One undisturbed worker, one record at a time."""
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    for part, facts in logs.items():
        state.resume(part, committed=None, log_start=0)
        for fact in facts:
            state.apply(part, [fact], last=fact.offset)
        state.beat()
    while state.sweep() is not None:
        pass
    return everything(store)


def played(random, logs, *, workers, **how):
    """The store after a history, and its faults."""
    store = MemoryStore(SHARDS)
    world = Simulation(random, DOMAIN, logs, store=store, workers=workers, faults=random.randint(0, FAULTS_MAX), **how)
    try:
        world.run()
    except Exception as error:
        raise AssertionError(f"after {world.struck}") from error
    return store, world.struck


def differing(seed, kind, *, full_logs=True, **how):
    """The faults of the seed's history where it does not end as its logs say, else None."""
    random = Random(seed)
    logs = logs_of(random, kind)
    with small_logs() if full_logs else nullcontext():
        store, struck = played(random, logs, workers=random.randint(1, 3), **how)
        same = everything(store) == as_the_logs_say(logs) and not traces(store, logs)
        return None if same else struck


@pytest.mark.parametrize("kind", ["busy", "forgetting", "crossed"])
@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_every_history_ends_as_its_logs_say(first, kind):
    full_logs = kind != "crossed"  # what is beyond the newest of a log follows from its order: two partitions have none
    for seed in range(first, first + CHUNK):
        assert differing(seed, kind, full_logs=full_logs) is None, f"seed {seed}"


@pytest.mark.parametrize("kind", ["busy", "forgetting"])
@pytest.mark.parametrize("first", range(0, HISTORIES // 2, CHUNK))
def test_so_does_one_where_each_shard_s_server_loses_a_tail_of_its_own(first, kind):
    """But for repeats of full logs and events in two partitions: the state's stated limits."""
    for seed in range(first, first + CHUNK):
        assert differing(seed, kind, full_logs=False, nodes=True) is None, f"seed {seed}"


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_who_is_forgotten_in_one_part_leaves_no_trace_by_another(first):
    for seed in range(first, first + CHUNK):
        random = Random(seed)
        logs = {
            part: numbered(random, forgotten_elsewhere(random, part, first=1_000 * at)) for at, part in enumerate(PARTS)
        }
        store, struck = played(random, logs, workers=random.randint(2, 3))
        assert not traces(store, logs), f"seed {seed}: {struck}"


def test_one_seed_is_one_history():
    def told(seed):
        random = Random(seed)
        store, struck = played(random, logs_of(random, "forgetting"), workers=3)
        return struck, random.random(), everything(store)

    assert told(5) == told(5)


def test_without_fences_some_histories_differ():
    assert any(differing(seed, "busy", fenced=False) for seed in range(20))
