"""A forgotten user: nothing of the old comes back, nothing names the user, and the items' counts stay as they were."""

from contextlib import suppress
from itertools import product, zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import user_log
from features.digest import digest
from features.ids import hash64
from features.neighbours import session_touches
from features.schema import Impression
from features.state import Fact, Forget, State
from features.store.memory import MemoryStore
from features.store.port import Part, StoreAway
from features.user_log import RECORD_BYTES
from tests.faulty_stores import Crashed, CrashingStore, ForgetfulMarks, LosingReplies, UnfencedStore, Wrapped
from tests.features.test_state import (
    ACTIONS,
    DOMAIN,
    SHARDS,
    START_MS,
    action,
    apply_all,
    batches_of,
    redo_from,
    worlds,
)
from tests.plain_forgetting import PlainForgetting

OTHER = Part("user_actions", 1)
SHOWN = Part("impressions", 0)
FAR = 10**9  # committed: reading goes on at the lowest mark


@st.composite
def forgetful_logs(draw, most=40):
    """One log in order: events, repeats, users forgotten at their own or another moment, older records sent again."""
    records = draw(worlds(most))
    rng = draw(st.randoms(use_true_random=False))
    log = []
    for record in records:
        log.append(record)
        if rng.random() < 0.15:
            log.append(rng.choice(log))
        if rng.random() < 0.2:
            user = rng.choice(records).user_id
            log.append(Forget(user, rng.choice(records).ts_ms + rng.choice((-1, 0, 0, 10_000))))
        if rng.random() < 0.3:
            log.append(rng.choice(log))
    return log


def beaten(state, part, batches, *, beats=()):
    """Applies a log with a beat after each batch, or after those that `beats` names: all is committed, so a redo begins late."""
    resume = state.resume(part, committed=FAR, log_start=0)
    for facts, beat in zip_longest(redo_from(resume, batches), beats, fillvalue=True):
        state.apply(part, facts, last=facts[-1].offset)
        if beat:
            state.beat()


def plain(ordered, store):
    return PlainForgetting(ordered, DOMAIN, store.open(DOMAIN).action_codes)


def entries(store):
    """(item, user, ts_ms) of all session lists."""
    named = {}
    for items in [[f"i{number}" for number in range(9)]]:
        for item, blob in zip(items, store.read_sessions([hash64(item) for item in items]), strict=True):
            ts_ms, users, _ = session_touches(blob)
            named[item] = list(zip(users.tolist(), ts_ms.tolist(), strict=True))
    return {(item, user, ts_ms) for item, touches in named.items() for user, ts_ms in touches}


def swept(state):
    while state.sweep() is not None:
        pass
    return state


def check(store, ordered):
    """The store is as the plain reference says, and no session list names who was forgotten."""
    wanted = plain(ordered, store)
    layout = store.open(DOMAIN)
    assert digest(store, layout, DOMAIN) == digest(wanted, layout, DOMAIN)
    assert not store.to_sweep()
    assert entries(store) <= {(item, hash64(user), ts_ms) for item, user, ts_ms in wanted.named()}


def counted(store):
    return sum(count for name, count in store.counts().items() if name.startswith(("applied", "repeated")))


@given(forgetful_logs(), st.randoms(use_true_random=False))
def test_any_split_of_a_log_with_forgotten_users_gives_the_reference(log, rng):
    store = MemoryStore(SHARDS)
    apply_all(state := State(store, DOMAIN), ACTIONS, batches_of(rng, log))
    swept(state)
    check(store, log)
    assert counted(store) == len(log)


@given(
    forgetful_logs(),
    st.randoms(use_true_random=False),
    st.integers(1, 60),
    st.booleans(),
    st.integers(1, 30),
    st.booleans(),
)
def test_a_crash_between_any_two_calls_changes_nothing(log, rng, first, applied, second, beats):
    batches, run = batches_of(rng, log), beaten if beats else apply_all
    store = MemoryStore(SHARDS)
    for at, was_applied in ((first, applied), (second, not applied)):
        try:
            run(State(CrashingStore(store, at=at, applied=was_applied), DOMAIN), ACTIONS, batches)
        except Crashed:
            continue
    run(state := State(store, DOMAIN), ACTIONS, batches)
    swept(state)
    check(store, log)
    assert counted(store) == len(log)


@given(forgetful_logs(), st.randoms(use_true_random=False), st.integers(1, 60), st.booleans())
def test_a_lost_connection_is_survived_by_calling_again(log, rng, at, applied):
    batches = batches_of(rng, log)
    store = MemoryStore(SHARDS)
    state = State(LosingReplies(store, at=at, applied=applied), DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    for facts in batches:
        try:
            state.apply(ACTIONS, facts, last=facts[-1].offset)
        except StoreAway:
            state.apply(ACTIONS, facts, last=facts[-1].offset)
    swept(state)
    check(store, log)


def test_without_fences_a_crash_around_a_forgotten_user_counts_twice():
    log = [action(at, 1, at % 5, "view", START_MS + at) for at in range(6)]
    log.insert(3, Forget("u1", START_MS + 2))
    batches = [[Fact(offset, record) for offset, record in enumerate(log)]]
    wrong = 0
    for at in range(1, 20):
        store = MemoryStore(SHARDS)
        try:
            apply_all(State(CrashingStore(store, at=at, applied=True), DOMAIN), ACTIONS, batches)
        except Crashed:
            apply_all(State(ForgetfulMarks(UnfencedStore(store)), DOMAIN), ACTIONS, batches)
        layout = store.open(DOMAIN)
        wrong += digest(store, layout, DOMAIN) != digest(plain(log, store), layout, DOMAIN)
    assert wrong


@given(worlds(), st.randoms(use_true_random=False))
def test_users_logs_do_not_depend_on_how_two_partitions_interleave_with_the_forgetting(records, rng):
    users = sorted({record.user_id for record in records})
    moments = {user: rng.choice(records).ts_ms for user in users if rng.random() < 0.6}
    # what is older than the forgetting was logged before it or is sent again, what is newer comes when it comes
    stream = [*records, *(Forget(user, ts_ms) for user, ts_ms in moments.items())]
    found = set()
    for _ in range(3):
        rng.shuffle(stream)
        store = MemoryStore(SHARDS)
        state = State(store, DOMAIN)
        for part in (ACTIONS, OTHER, SHOWN):
            state.resume(part, committed=None, log_start=0)
        for offset, record in enumerate(stream):
            part = SHOWN if isinstance(record, Impression) else rng.choice((ACTIONS, OTHER))
            state.apply(part, [Fact(offset, record)], last=offset)
        swept(state)
        kept = [each for each in records if each.ts_ms > moments.get(each.user_id, -1)]
        wanted = plain(kept, store)
        logs = {key: _without_tags(blob) for key, blob in store.scan("u")}
        assert logs == {key: _without_tags(blob) for key, blob in wanted.users()}
        assert entries(store) <= {(item, hash64(user), ts_ms) for item, user, ts_ms in wanted.named()}
        found.add(tuple(sorted(logs.items())))
    assert len(found) == 1


def _without_tags(blob):
    rows = [section.tobytes() for section in user_log.sections(blob)]
    return tuple(
        tuple(row[at : at + 22] for at in range(0, len(row), RECORD_BYTES)) if width == RECORD_BYTES else row
        for row, width in zip(rows, (RECORD_BYTES, RECORD_BYTES, 14), strict=True)
    )


@given(forgetful_logs(most=24), st.randoms(use_true_random=False), st.integers(1, 80), st.booleans())
def test_a_crash_with_a_user_in_two_partitions_changes_nothing(log, rng, at, applied):
    log = list({id(record): record for record in log}.values())  # without repeats: the limit that is stated
    stream = [(rng.choice((ACTIONS, OTHER)), offset, record) for offset, record in enumerate(log)]
    store = MemoryStore(SHARDS)
    state = State(CrashingStore(store, at=at, applied=applied), DOMAIN)
    done = []
    try:
        for part in (ACTIONS, OTHER):
            state.resume(part, committed=None, log_start=0)
        for part, offset, record in stream:
            done.append((part, offset))
            state.apply(part, [Fact(offset, record)], last=offset)
    except Crashed:
        state = State(store, DOMAIN)
        for part in (ACTIONS, OTHER):
            resume = state.resume(part, committed=None, log_start=0)
            read = [
                [Fact(offset, record)] for each, offset, record in stream if (each, offset) in done and each == part
            ]
            for facts in redo_from(resume, read):
                state.apply(part, facts, last=facts[-1].offset)
        for part, offset, record in stream:
            if (part, offset) not in done:
                state.apply(part, [Fact(offset, record)], last=offset)
    swept(state)
    check(store, log)


class Between(Wrapped):
    """Lets somebody else act before a phase's write; each of `others` once."""

    def __init__(self, store, *, users=(), items=()):
        super().__init__(store)
        self.users, self.items = list(users), list(items)

    def commit_users(self, part, calls):
        if self.users:
            self.users.pop(0)()
        return self.store.commit_users(part, calls)

    def commit_items(self, part, calls):
        if self.items:
            self.items.pop(0)()
        return self.store.commit_items(part, calls)


class WithoutEpochs(Wrapped):
    """Takes every call for one that knows who was forgotten."""

    def commit_items(self, part, calls):
        replies = []
        for call in calls:
            (reply,) = self.store.commit_items(part, [call])
            if reply.epoch is not None:
                (reply,) = self.store.commit_items(part, [_knowing(call, reply.epoch)])
            replies.append(reply)
        return replies


def _knowing(call, epoch):
    return type(call)(call.shard, call.prev, call.last, call.ops, epoch)


def two_workers(store, wrap=lambda store: store):
    """One that forgets u1 and sweeps, whenever it is called; one that was given an event of u1 by another partition."""
    first, second = State(store, DOMAIN), State(wrap(store), DOMAIN)
    first.resume(ACTIONS, committed=None, log_start=0)
    second.resume(OTHER, committed=None, log_start=0)

    def forget():
        first.apply(ACTIONS, [Fact(0, Forget("u1", START_MS + 5))], last=0)
        swept(first)

    return first, second, forget


def names_u1(store):
    return {entry for entry in entries(store) if entry[1] == hash64("u1")}


def test_a_worker_between_its_phases_adds_no_session_entry_after_the_sweep():
    store = MemoryStore(SHARDS)
    first, second, forget = two_workers(store)
    event = action(1, 1, 3, "view", START_MS)
    second._store = Between(store, items=[forget])
    second.apply(OTHER, [Fact(0, event)], last=0)
    assert not names_u1(store)
    assert not list(store.scan("u"))
    assert len(list(store.scan("i"))) == 1  # it was counted before its user was forgotten: anonymous, it stays
    again = second.apply(OTHER, [Fact(1, event)], last=1)
    assert again.fresh.tolist() == [False]
    assert first.sweep() is None


def test_without_epochs_that_worker_would_name_the_user_again():
    store = MemoryStore(SHARDS)
    _, second, forget = two_workers(store)
    second._store = WithoutEpochs(Between(store, items=[forget]))
    second.apply(OTHER, [Fact(0, action(1, 1, 3, "view", START_MS))], last=0)
    assert names_u1(store)


def test_a_worker_between_reading_and_writing_a_log_finds_that_the_user_is_forgotten():
    store = MemoryStore(SHARDS)
    _, second, forget = two_workers(store)
    second._store = Between(store, users=[forget])
    applied = second.apply(OTHER, [Fact(0, action(1, 1, 3, "view", START_MS))], last=0)
    assert applied.fresh.tolist() == [False]
    assert not list(store.scan("u"))
    assert not list(store.scan("i"))
    assert not names_u1(store)


@pytest.mark.parametrize("applied", [False, True])
def test_a_worker_that_dies_between_its_phases_while_another_forgets_counts_once_and_names_nobody(applied):
    event, other = action(1, 1, 3, "view", START_MS), action(2, 2, 3, "view", START_MS)
    facts = [Fact(0, event), Fact(1, other)]
    for at in range(1, 12):
        store = MemoryStore(SHARDS)
        first, _, forget = two_workers(store)
        dying = State(CrashingStore(store, at=at, applied=applied), DOMAIN)
        dying.resume(OTHER, committed=None, log_start=0)
        with suppress(Crashed):
            dying.apply(OTHER, facts, last=1)
        counted = bool(store.read_users([hash64("u1")])[0])
        forget()
        apply_all(State(store, DOMAIN), OTHER, [facts])
        swept(first)
        layout = store.open(DOMAIN)
        wanted = plain([event, Forget("u1", START_MS + 5), other][0 if counted else 1 :], store)
        assert digest(store, layout, DOMAIN) == digest(wanted, layout, DOMAIN), f"died at call {at}"
        assert not names_u1(store)


@pytest.mark.parametrize("beats", list(product((False, True), repeat=3)))
def test_wherever_the_marks_stand_a_redo_tells_events_repeats_and_refused_ones_apart(beats):
    event = action(1, 1, 3, "view", START_MS)
    log = [event, event, Forget("u1", START_MS), event, action(2, 1, 4, "view", START_MS + 1)]
    batches = [[Fact(offset, record)] for offset, record in enumerate(log)]
    for at in range(9, 60):
        store = MemoryStore(SHARDS)
        state = State(CrashingStore(store, at=at, applied=True), DOMAIN)
        with suppress(Crashed):
            beaten(state, ACTIONS, batches, beats=beats)
        beaten(State(store, DOMAIN), ACTIONS, batches)
        swept(State(store, DOMAIN))
        check(store, log)


def test_a_refused_record_is_refused_in_a_redo_too():
    event = action(1, 1, 3, "view", START_MS)
    log = [event, Forget("u1", START_MS), event, action(2, 1, 4, "view", START_MS + 1)]
    batches = [[Fact(0, log[0])], [Fact(1, log[1])], [Fact(2, log[2]), Fact(3, log[3])]]
    for at in range(1, 40):
        store = MemoryStore(SHARDS)
        try:
            apply_all(State(CrashingStore(store, at=at, applied=True), DOMAIN), ACTIONS, batches)
        except Crashed:
            apply_all(State(store, DOMAIN), ACTIONS, batches)
        swept(State(store, DOMAIN))
        check(store, log)


def test_a_clock_that_ran_ahead_carries_nothing_over_the_forgetting():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    ahead = action(1, 1, 3, "view", START_MS + 90_000)
    state.apply(ACTIONS, [Fact(0, ahead, 90_000), Fact(1, Forget("u1", START_MS + 10))], last=1)
    swept(state)
    assert not list(store.scan("u"))
    assert not names_u1(store)
    assert not state.apply(ACTIONS, [Fact(2, ahead, 80_000)], last=2).fresh.any()
    assert state.apply(ACTIONS, [Fact(3, action(2, 1, 3, "view", START_MS + 90_001))], last=3).fresh.all()


def test_a_newer_event_that_another_partition_brought_first_stays():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    for part in (ACTIONS, OTHER):
        state.resume(part, committed=None, log_start=0)
    state.apply(OTHER, [Fact(0, action(1, 1, 3, "purchase", START_MS + 20))], last=0)
    state.apply(ACTIONS, [Fact(0, action(0, 1, 3, "purchase", START_MS)), Fact(1, Forget("u1", START_MS + 10))], last=1)
    swept(state)
    (log,) = store.read_users([hash64("u1")])
    assert [len(section) for section in user_log.sections(log)] == [1, 0, 1]
    assert {ts_ms for _, _, ts_ms in names_u1(store)} == {START_MS + 20}


def test_a_user_may_be_forgotten_again_and_again():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    log = []
    for round_ in range(40):
        event = action(round_, 1, round_ % 5, "view", START_MS + 10 * round_)
        log += [event, Forget("u1", START_MS + 10 * round_), event]
    for offset, record in enumerate(log):
        state.apply(ACTIONS, [Fact(offset, record)], last=offset)
    swept(state)
    check(store, log)
    assert len(store.read_tombstones([hash64("u1")])[0]) < 2_000
    assert state.apply(ACTIONS, [Fact(999, Forget("u1", START_MS))], last=999).users == {"u1": b""}


def test_a_sweep_that_was_broken_off_is_carried_on_by_another():
    store = MemoryStore(SHARDS)
    state = State(store, DOMAIN)
    state.resume(ACTIONS, committed=None, log_start=0)
    facts = [Fact(at, action(at, at % 3, at % 9, "view", START_MS + at)) for at in range(60)]
    state.apply(ACTIONS, [*facts, Fact(60, Forget("u1", START_MS + 60))], last=60)
    assert store.to_sweep()
    state.sweep()
    assert store.to_sweep()
    swept(State(store, DOMAIN))
    assert not names_u1(store)
    assert entries(store)
    assert not store.to_sweep()


class Racing(Wrapped):
    """Somebody else acts between the reading of logs and the first write that follows."""

    def __init__(self, store, other):
        super().__init__(store)
        self.other = other

    def commit_users(self, part, calls):
        other, self.other = self.other, lambda: None
        other()
        return self.store.commit_users(part, calls)


@pytest.mark.parametrize(
    ("part", "event"),
    [(SHOWN, Impression("p1", "u1", ["i1", "i2"], START_MS)), (OTHER, action(1, 1, 3, "view", START_MS))],
)
def test_who_is_forgotten_while_another_writes_a_first_log_stays_forgotten(part, event):
    """A null whose user had no log has nothing to write over, and still must find the log that another just wrote."""
    store = MemoryStore(SHARDS)
    writer = State(store, DOMAIN)
    writer.resume(part, committed=None, log_start=0)
    forgetter = State(Racing(store, lambda: writer.apply(part, [Fact(0, event)], last=0)), DOMAIN)
    forgetter.resume(ACTIONS, committed=None, log_start=0)
    forgetter.apply(ACTIONS, [Fact(0, Forget("u1", START_MS + 5))], last=0)
    swept(forgetter)
    writer.apply(part, [Fact(1, event)], last=1)
    assert not list(store.scan("u"))
    assert not entries(store)
