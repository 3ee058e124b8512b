"""Brings users' logs in line with tombstones that came from another generation of the state, as a Forget would now.

What a log holds up to the tombstone's time goes, and the user's session entries with it (`State.sweep` removes them);
what is later stays, and so do the counts of items, which name nobody. Workers may write meanwhile: whoever read a log or
the tombstones before loses the comparison of versions or epochs, and reads again. A log that is in line is not written,
so that to do it again costs the reading, and one that was killed in the middle is gone on with from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from features import tombstone, user_log
from features.fold import Forgotten
from features.item_ops import forget_op
from features.store.port import (
    ANEW,
    CARRIED,
    PHASES,
    FeatureStore,
    ItemCall,
    Layout,
    Phase,
    Reply,
    StateForeign,
    StoreAway,
    UserCall,
)  # fmt: skip

MARK = -1  # of CARRIED, for good: nothing is counted by it
TRIES_MAX = 64  # rounds of one page: each is lost only to another writer's progress


class _Clipped(NamedTuple):
    """`put`: user, version of the log as it was read, log to write. `forgotten`: what the sweep has to know."""

    put: tuple[int, bytes, bytes]
    forgotten: Forgotten


@dataclass(frozen=True, slots=True)
class _Work:
    store: FeatureStore
    layout: Layout
    epochs: dict[Phase, list[int]]


def clip(store: FeatureStore, layout: Layout) -> Iterator[int]:
    """All logs, a page an element: how many were written. `CARRIED` has to have begun.

    Raises `StoreAway`, `StateForeign` for a damaged log or tombstone.
    """
    work = _Work(store, layout, {phase: [0] * layout.shards for phase in PHASES})
    for users in store.users():
        yield _page(work, users)


def _page(work: _Work, users: Sequence[int]) -> int:
    """Sweeps are ordered before the logs are written, for one that dies in between, and after: for a redo that read a
    log just before, and whose items come when the first sweep is done.
    """
    written, waiting = 0, list(users)
    for _ in range(TRIES_MAX):
        found = _out_of_line(work, waiting)
        if not found:
            return written
        _order_sweeps(work, found)
        lost = _write(work, found)
        _order_sweeps(work, found)
        waiting = list(lost)
        written += len(found) - len(lost)
    raise StoreAway(f"lost {TRIES_MAX} races for users' logs")


def _out_of_line(work: _Work, users: Sequence[int]) -> list[_Clipped]:
    stones = work.store.read_tombstones(users) if users else ()
    packed = {user: stone for user, stone in zip(users, stones, strict=True) if stone}
    logs = work.store.read_users(list(packed)) if packed else ()
    found = []
    for (user, stone), blob in zip(packed.items(), logs, strict=True):
        try:
            log, until_ms = user_log.take_apart(blob), tombstone.unpack(stone).until_ms
        except ValueError as error:
            raise StateForeign(
                f"shard {work.layout.shard_of(user)}, a user's log or tombstone: {error}: {ANEW}"
            ) from error
        items = user_log.clip(log, until_ms)
        clipped = user_log.pack(log)
        if clipped != blob:
            put = user, user_log.version(blob), clipped
            found.append(_Clipped(put, Forgotten(0, user, until_ms, items)))
    return found


def _write(work: _Work, found: Sequence[_Clipped]) -> set[int]:
    """The users whose logs have still to be written."""
    puts: dict[int, list[tuple[int, bytes, bytes]]] = {}
    for each in found:
        puts.setdefault(work.layout.shard_of(each.put[0]), []).append(each.put)
    epochs = work.epochs["u"]
    calls = [UserCall(shard, MARK, MARK, listed, epoch=epochs[shard]) for shard, listed in puts.items()]
    lost: set[int] = set()
    for call, reply in zip(calls, work.store.commit_users(CARRIED, calls), strict=True):
        if not _taken(reply, epochs, call):
            lost.update(user for user, *_ in call.puts)
    return lost


def _order_sweeps(work: _Work, found: Sequence[_Clipped]) -> None:
    """Each shard notes whose session entries have to go."""
    epochs, shards = work.epochs["i"], work.layout.shards
    waiting: Sequence[int] = range(shards)
    for _ in range(TRIES_MAX):
        calls = [
            ItemCall(shard, MARK, MARK, [forget_op(each.forgotten, shard, shards) for each in found], epochs[shard])
            for shard in waiting
        ]
        replies = work.store.commit_items(CARRIED, calls)
        waiting = [call.shard for call, reply in zip(calls, replies, strict=True) if not _taken(reply, epochs, call)]
        if not waiting:
            return
    raise StoreAway(f"lost {TRIES_MAX} races for items")


def _taken(reply: Reply, epochs: list[int], call: UserCall | ItemCall) -> bool:
    """Whether a call was applied; the shard's epoch is known afterwards. Raises `StoreAway` where marks are lost."""
    if reply.applied:
        epochs[call.shard] += isinstance(call, ItemCall)
    elif reply.epoch is not None:
        epochs[call.shard] = reply.epoch
    elif reply.mark != MARK:
        raise StoreAway("the marks under which logs are clipped are lost")
    return reply.applied
