# ruff: noqa: F811  (the fixture is test_feature_store's)
"""What every store promises of forgotten users: tombstones, epochs, and sweeps that leave the others alone."""

import pytest

from features.neighbours import session_entry
from features.store.layout import SWEPT_MAX
from features.store.port import ItemCall, ItemOp, Reply, UserCall
from tests.contracts.test_feature_store import PART, A, B, log_of, store  # noqa: F401

NOW = 1_700_000_000_000


def touched(store, item, *touches, mark):
    entries = b"".join(sorted(session_entry(ts_ms, user, 0) for user, ts_ms in touches))
    (reply,) = store.commit_items(PART, [ItemCall(item % 2, mark, mark + 1, [ItemOp("s", f"{item:016x}", entries)])])
    assert reply.applied


def forget_op(user, until_ms, *items):
    body = until_ms.to_bytes(6, "big") + b"".join(item.to_bytes(8, "big") for item in items)
    return ItemOp("f", f"{user:016x}", body)


def forgotten(store, *ops, marks, epochs=(0, 0)):
    calls = [ItemCall(shard, marks[shard], marks[shard] + 1, ops, epochs[shard]) for shard in (0, 1)]
    assert all(reply.applied for reply in store.commit_items(PART, calls))


def test_a_tombstone_is_read_by_its_user_and_raises_the_epoch(store):
    put = UserCall(0, 9, 20, [(A, b"", log_of(1))], tombstones=[(B, b"stone")])
    assert store.commit_users(PART, [put]) == [Reply(applied=True, mark=20)]
    assert store.read_tombstones([A, B, 5]) == [b"", b"stone", b""]
    late = UserCall(0, 20, 30, [(B, b"", log_of(2))], {"applied:t": 1}, epoch=0)
    assert store.commit_users(PART, [late]) == [Reply(applied=False, mark=20, epoch=1)]
    assert store.read_users([B]) == [b""]
    assert store.counts() == {}
    knowing = UserCall(0, 20, 30, [(B, b"", log_of(2))], tombstones=[(B, b"other")], epoch=1)
    assert store.commit_users(PART, [knowing]) == [Reply(applied=True, mark=30)]
    assert store.read_tombstones([B]) == [b"other"]
    assert store.commit_users(PART, [UserCall(1, 9, 20)]) == [Reply(applied=True, mark=20)]  # another shard's epoch


def test_items_that_do_not_know_who_was_forgotten_are_told_and_not_written(store):
    forgotten(store, forget_op(A, NOW), marks=(9, 9))
    op = ItemOp("s", f"{B:016x}", session_entry(NOW, A, 0))
    assert store.commit_items(PART, [ItemCall(0, 10, 11, [op])]) == [Reply(applied=False, mark=10, epoch=1)]
    assert store.commit_items(PART, [ItemCall(0, 9, 11, [op])]) == [Reply(applied=False, mark=10)]
    assert store.read_sessions([B]) == [b""]
    assert store.commit_items(PART, [ItemCall(0, 10, 11, [op], 1)]) == [Reply(applied=True, mark=11)]


@pytest.mark.parametrize("users", [1, 40])
def test_a_sweep_removes_the_forgotten_up_to_their_time_and_nobody_else(store, users):
    leaving = range(1, users + 1)
    for item in (A, B, 7):
        others = [(1000 + user, NOW + user) for user in range(20)]
        touched(store, item, *((user, NOW - user) for user in leaving), *others, mark=9 + (item == B))
    touched(store, 9, *((user, NOW) for user in leaving), mark=10)
    touched(store, 11, (1, NOW + 1), mark=11)
    forgotten(store, *(forget_op(user, NOW, A, 7) for user in leaving), marks=(11, 12))
    due = store.to_sweep()
    assert {shard: sorted(users) for shard, users in due.items()} == {0: [*leaving], 1: [*leaving]}
    assert sum(store.sweep(due)) == 4 * users
    wanted = b"".join(sorted(session_entry(NOW + user, 1000 + user, 0) for user in range(20)))
    assert store.read_sessions([A, B, 7]) == [wanted] * 3
    assert store.read_sessions([9, 11]) == [b"", session_entry(NOW + 1, 1, 0)]
    assert store.to_sweep() == {}


def test_who_is_forgotten_again_during_a_sweep_stays_due_until_the_later_time(store):
    touched(store, A, (5, NOW), (5, NOW - 9), (6, NOW), mark=9)
    forgotten(store, forget_op(5, NOW - 5), marks=(10, 9))
    first = store.sweep(store.to_sweep())
    next(first)
    forgotten(store, forget_op(5, NOW + 5, A), marks=(11, 10), epochs=(1, 1))
    for _ in first:
        pass
    assert [*store.to_sweep()] == [0, 1]
    forgotten(store, forget_op(5, NOW - 7), marks=(12, 11), epochs=(2, 2))  # a redo may say less: the later time stays
    sum(store.sweep(store.to_sweep()))
    assert store.read_sessions([A]) == [session_entry(NOW, 6, 0)]
    assert store.to_sweep() == {}


def test_a_sweep_that_is_broken_off_is_due_as_before_and_two_may_sweep_at_once(store):
    touched(store, A, (5, NOW), mark=9)
    forgotten(store, forget_op(5, NOW), marks=(10, 9))
    next(store.sweep(store.to_sweep()))
    due = store.to_sweep()
    one, other = store.sweep(due), store.sweep(due)
    assert sum(removed for pair in zip(one, other, strict=True) for removed in pair) <= 1
    assert store.read_sessions([A]) == [b""]
    assert store.to_sweep() == {}


def test_a_pass_takes_a_bounded_number_of_users_and_the_next_the_next(store):
    ops = [forget_op(user, NOW) for user in range(1, SWEPT_MAX + 11)]
    forgotten(store, *ops, marks=(9, 9))
    assert [len(users) for users in store.to_sweep().values()] == [SWEPT_MAX] * 2
    sum(store.sweep(store.to_sweep()))
    assert [len(users) for users in store.to_sweep().values()] == [10] * 2
