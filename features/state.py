"""The exact rolling state: applies micro-batches of one log partition to a store, each event once, whatever happens.

**Users first, then items.** A micro-batch makes two fenced calls a shard. The user phase writes the users' logs, the
item phase what the accepted events do to items. Each call compares and sets its own mark (the last offset applied), so
a retry, a zombie or a replayed request writes nothing twice. Users go first because the log is what tells a repeat from
an event: two workers that get one event through two partitions both write the user's log, one of them loses the
comparison of versions, reads again and finds the repeat before any item was touched.

**Redo.** After a crash between the phases, or when the store lost its tail, events are folded again. A record in a
user's log carries a tag of the log record that put it there, so its own events are told from repeats: they have the
same effects as the first time, and each item shard takes those beyond its own mark. What all items have is folded
apart from the rest: a log that has cut its events off since would take a repeat of them for new, and the next for one
of it.

**Marks lag.** A batch moves the marks of shards that it has something for, or that lie more than 1000 offsets behind;
`beat` moves the rest. Starting from the smallest mark is always safe: what a shard has, its mark keeps out.

**Forgetting.** A user's log goes in the user phase, with a tombstone in its place; the item phase notes in each shard
that the user's session entries have to go, and `sweep` removes them, page by page, whoever does it. What came before it
in the same log is in the items first, so that a redo need not know what the log held. Each shard counts its changes of
tombstones, once for each phase (its epoch), and refuses a call that knows an older count: a worker that was between its
reads or phases reads the tombstones again, and adds no session entry of the forgotten user after the sweep began.
Whoever met an absent store takes no epoch for known: the count may have gone back, and come to the same number again.

**After a loss.** A store that comes back may hold the users of a batch and not its items. Before the next batch writes
users, the items' marks are asked for: a redo of two batches at once could find the event of a repeat cut off a full log by
the second, and take the repeat for it (`hot_users`, seed 703: one of 157 000 events twice).

Limits, stated: a repeat older than the 256 newest events of its user (64 newest impressions) is not recognised. In a
cluster whose nodes lose tails of different age, an event that came through two partitions, or a repeat whose event a
full log has cut off or a null has forgotten since, may count twice or not at all for an item; in one Redis it cannot. A
forgotten user's event counts for the items if it came before in the store's order; one that another partition brings
later does not. One that was a repeat, not yet left behind by all marks of its partition when another partition forgot
its user, may count once more if its worker dies in that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from features import tombstone, user_log
from features.domain import Domain
from features.facts import Fact, Forget, Gone, Record
from features.fold import Effect, Forgotten, Rules, fold, rules_of
from features.ids import hash64
from features.item_ops import Operations, Values, ValuesOf, record_ops, values_of
from features.micro_batch import MicroBatch, came_before, halves, is_delicate, pieces, sorted_out
from features.schema import Item
from features.store.port import (
    ANEW,
    PHASES,
    Beat,
    FeatureStore,
    ItemCall,
    ItemOp,
    Layout,
    Part,
    Phase,
    Reply,
    StateForeign,
    StateLost,
    StoreAway,
    UserCall,
)  # fmt: skip

__all__ = ["Applied", "Fact", "Forget", "Gone", "Record", "Resume", "State"]

P = ParamSpec("P")
T = TypeVar("T")

UNKNOWN = -1  # of an epoch: the call is refused, and says which it is
LAG_MAX = 1_000  # offsets that a shard's mark may lie behind before a batch moves it
TRIES_MAX = 64  # rounds of one phase: each is lost only to another writer's progress
VALUES_CACHED_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Applied:
    """`fresh` bool[facts]: changed the state, in this or an earlier try (False: a repeat). `users`: the log after the
    batch of every user whom a fact names.
    """

    fresh: NDArray[np.bool_]
    users: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Resume:
    """Where to start reading, and the offset that the first batch should reach: up to `hold_to` the user logs may
    already stand, and one batch over them rebuilds the items' neighbour lists byte by byte. `started`: where the
    part began, None: the state held nothing of it.
    """

    start: int
    hold_to: int
    started: int | None = None


@dataclass(slots=True)
class _Held:
    marks: dict[Phase, list[int]]
    done: int  # last offset applied everywhere, or with nothing for the shards behind it


def _doubting(call: Callable[Concatenate[State, P], T]) -> Callable[Concatenate[State, P], T]:
    """Has a store that was away doubted."""

    @wraps(call)
    def doubted(state: State, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(state, *args, **kwargs)
        except StoreAway:
            state.doubt()
            raise

    return doubted


class State:
    """Drives one store. One thread; many parts. `values_of_items` gives the attribute lists and rings of items by
    hash; by default it reads the items' records.
    """

    def __init__(self, store: FeatureStore, domain: Domain, *, values_of_items: ValuesOf | None = None) -> None:
        self._store = store
        self._domain = domain
        self.layout: Layout = store.open(domain)
        self._rules: Rules = rules_of(domain, self.layout)
        self._held: dict[Part, _Held] = {}
        self._doubted: set[Part] = set()  # parts whose marks may have gone back unseen
        self._epochs: dict[Phase, list[int]] = {phase: [0] * self.layout.shards for phase in PHASES}
        self._sweep: Iterator[int] | None = None
        self._values: dict[bytes, Values] = {}
        listed = any(attribute.candidates or attribute.rate for attribute in domain.attributes)
        self._values_of = values_of_items or (self._values_of_records if listed else _no_values)

    def doubt(self) -> None:
        """Call it where somebody else met an absent store. One that comes back without its newest writes has a smaller
        epoch, and what is done again would bring it up to the one that is known here, unseen.
        """
        for epochs in self._epochs.values():
            epochs[:] = [UNKNOWN] * len(epochs)
        self._doubted.update(self._held)

    @_doubting
    def resume(self, part: Part, *, committed: int | None, log_start: int, asks_only: bool = False) -> Resume:
        """Takes a part: loads its marks, beginning it at `log_start` if it never began.

        Without a commit the part counts as committed where it began: the marks tell what is applied, nobody tells what
        was answered, so all of it is read again (a worker may die between its first batch and its first commit).
        Raises `StateForeign` when the log no longer reaches back to where the state has to go on; asks_only: its records
        change nothing, so what retention took of them is not missing.
        """
        known = self._store.started_at(part)
        started = log_start if known is None else known
        marks = self._marks(part)
        if known is None or any(mark == -2 for phase in PHASES for mark in marks[phase]):
            self._store.begin(part, started)
            marks = self._marks(part)
        lowest = min(min(marks[phase]) for phase in PHASES)
        if lowest + 1 < log_start and not asks_only:
            raise StateForeign(
                f"{part.topic}-{part.partition}: the state has to go on from offset {lowest + 1}, but the log no "
                f"longer reaches back before {log_start}: {ANEW}"
            )
        start = max(log_start, min(started if committed is None else committed, lowest + 1))
        self._held[part] = _Held(marks, start - 1)
        self._doubted.discard(part)
        return Resume(start, max(marks["u"]), started=known)

    def release(self, part: Part) -> None:
        """Lets a part go; its marks stay in the store."""
        self._held.pop(part, None)
        self._doubted.discard(part)

    def position(self, part: Part) -> int:
        """The next offset that is not yet applied everywhere."""
        return self._held[part].done + 1

    @_doubting
    def apply(self, part: Part, facts: Sequence[Fact], *, last: int) -> Applied:
        """Applies facts in ascending order of offset; offsets up to `last` without a fact hold nothing.

        Returns when the state is safe in the store. Raises `StateLost` when the store is behind what was applied
        (resume), `StoreAway` when it does not answer (call again with the same facts; nothing counts twice).
        """
        held = self._held[part]
        if part in self._doubted:
            self._items_reach(held, part, UNKNOWN)
            self._doubted.discard(part)
        settled, seen = min(held.marks["i"]), max(held.marks["u"])
        fresh: list[NDArray[np.bool_]] = []
        users: dict[str, bytes] = {}
        left = [*pieces(facts, last, settled=settled, seen=seen)][::-1]
        while left:
            piece = left.pop()
            if piece.forgets:
                self._items_reach(held, part, piece.facts[0].offset - 1)
            batch = sorted_out(part, piece.facts, piece.last, self.layout.shards)
            is_new = bool(piece.facts) and piece.facts[0].offset > seen
            if not self._user_phase(held, batch, may_part=is_new and len(piece.facts) > 1):
                left += halves(piece)[::-1]
                continue
            self._item_phase(held, batch, everywhere=not is_new or is_delicate(batch))
            held.done = max(held.done, piece.last)
            fresh.append(batch.fresh)
            users.update(batch.blobs)
        return Applied(np.concatenate(fresh), users)

    @_doubting
    def sweep(self) -> int | None:
        """Goes on removing the session entries of forgotten users, a page: how many it removed, None: nothing to do.

        A page takes some milliseconds. It begins anew where it raises `StoreAway`.
        """
        try:
            if self._sweep is None:
                due = self._store.to_sweep()
                if not due:
                    return None
                self._sweep = self._store.sweep(due)
            return next(self._sweep)
        except StopIteration:
            self._sweep = None
            return 0
        except BaseException:
            self._sweep = None
            raise

    @_doubting
    def beat(self) -> None:
        """Verifies all marks of all held parts, and moves those that had nothing to do.

        Raises `StateLost`, with `part`, when one is behind what this process saw applied.
        """
        beats: dict[int, list[Beat]] = {shard: [] for shard in range(self.layout.shards)}
        for part, held in self._held.items():
            for phase in PHASES:
                for shard, mark in enumerate(held.marks[phase]):
                    beats[shard].append(Beat(phase, part, mark, max(mark, held.done)))
        if not self._held:
            return
        missed = self._store.beat(beats)
        for held in self._held.values():
            for phase in PHASES:
                held.marks[phase] = [max(mark, held.done) for mark in held.marks[phase]]
        for shard, beat, mark in missed:
            self._see(beat.part, beat.phase, shard, believed=beat.prev, mark=mark)

    def _marks(self, part: Part) -> dict[Phase, list[int]]:
        return {phase: self._store.marks(phase, part).tolist() for phase in PHASES}

    def _see(self, part: Part, phase: Phase, shard: int, *, believed: int, mark: int) -> None:
        """Takes note of a mark that is not what was believed: ahead is somebody's progress, behind is a loss."""
        if mark < believed:
            name = f"{part.topic}-{part.partition}"
            raise StateLost(f"shard {shard} has {phase} mark {mark} of {name}, this process saw {believed}", part)
        self._held[part].marks[phase][shard] = mark

    # --- users ---

    def _user_phase(self, held: _Held, batch: MicroBatch, *, may_part: bool) -> bool:
        """False: nothing was done, for a redo of so many facts at once could not tell what came out (`may_part`)."""
        marks = held.marks["u"]
        pending = set(batch.by_user) | set(batch.counted)
        pending.update(shard for shard, mark in enumerate(marks) if batch.last - mark > LAG_MAX)
        stale = {user for shard in pending for user in batch.by_user.get(shard, ())}
        for _ in range(TRIES_MAX):
            self._fold(batch, marks, stale)
            if may_part and any(folded.unsteady for folded in batch.folded.values()):
                return False
            may_part = False
            calls = [
                call
                for shard in sorted(pending)
                if (call := self._user_call(batch, shard, marks[shard])).puts
                or call.counts
                or _lags(call)
                or came_before(batch, call)
            ]
            replies = self._store.commit_users(batch.part, calls) if calls else []
            pending, stale = self._settle_users(batch, calls, replies)
            if not pending:
                return True
        raise StoreAway(f"{batch.part.topic}-{batch.part.partition}: lost {TRIES_MAX} races for users' logs")

    def _fold(self, batch: MicroBatch, marks: Sequence[int], users: Iterable[str]) -> None:
        """Reads the logs of these users, and the tombstones of those who may have one, and folds their facts."""
        users = list(users)
        hashes = [hash64(user) for user in users]
        blobs = self._store.read_users(hashes) if users else []
        asked = [key for key, blob in zip(hashes, blobs, strict=True) if user_log.has_tombstone(blob)]
        tombstones = self._tombstones(asked)
        for user, key, blob in zip(users, hashes, blobs, strict=True):
            shard = self.layout.shard_of(key)
            indices = batch.by_user[shard][user]
            facts = [batch.facts[index] for index in indices]
            batch.blobs[user] = blob
            if facts:
                known = tombstones.get(key, b"")
                try:
                    folded = fold(blob, facts, part=batch.part, mark=marks[shard], rules=self._rules, known=known)
                except ValueError as error:
                    raise StateForeign(f"shard {shard}, a user's log or tombstone: {error}: {ANEW}") from error
                batch.folded[user] = folded
                batch.fresh[indices] = folded.fresh

    def _tombstones(self, users: Sequence[int]) -> dict[int, bytes]:
        """The packed tombstones of those of the users (hashes) who were forgotten."""
        found = self._store.read_tombstones(users) if users else ()
        return {user: blob for user, blob in zip(users, found, strict=True) if blob}

    def _user_call(self, batch: MicroBatch, shard: int, mark: int) -> UserCall:
        puts, tombstones = [], []
        counts = {"applied": 0, "repeated": 0, "dead_lettered": 0}
        for user in batch.by_user.get(shard, ()):
            folded = batch.folded.get(user)
            if folded is None:
                continue
            counts["applied"] += folded.applied
            counts["repeated"] += folded.repeated
            read = batch.blobs[user]
            if folded.blob != read or folded.tombstone:  # who is forgotten had the log that was read, and no other
                puts.append((hash64(user), user_log.version(read), folded.blob))
            if folded.tombstone:
                tombstones.append((hash64(user), folded.tombstone))
        for index in batch.counted.get(shard, ()):
            offset, record, _ = batch.facts[index]
            if offset > mark:
                counts["dead_lettered" if record is None else "applied"] += 1
        topic = batch.part.topic
        named = {f"{name}:{topic}": count for name, count in counts.items() if count}
        return UserCall(shard, mark, max(mark, batch.last), puts, named, tombstones, self._epochs["u"][shard])

    def _settle_users(
        self, batch: MicroBatch, calls: Sequence[UserCall], replies: Sequence[Reply]
    ) -> tuple[set[int], set[str]]:
        """Takes the replies in; returns the shards to call again and the users to fold again."""
        marks = self._held[batch.part].marks["u"]
        pending: set[int] = set()
        stale: set[str] = set()
        for call, reply in zip(calls, replies, strict=True):
            users = batch.by_user.get(call.shard, {})
            if reply.applied:
                marks[call.shard] = call.last
                self._epochs["u"][call.shard] += bool(call.tombstones)
                batch.blobs.update((user, batch.folded[user].blob) for user in users if user in batch.folded)
                continue
            pending.add(call.shard)
            if reply.epoch is not None:
                self._epochs["u"][call.shard] = reply.epoch
                stale.update(users)
            elif reply.mark == call.prev:
                losers = set(reply.losers)
                stale.update(user for user in users if hash64(user) in losers)
            else:
                self._see(batch.part, "u", call.shard, believed=call.prev, mark=reply.mark)
                stale.update(users)
        return pending, stale

    # --- items ---

    def _item_phase(self, held: _Held, batch: MicroBatch, *, everywhere: bool) -> None:
        """`everywhere`: all shards' marks move, those with nothing to do as well."""
        marks, epochs = held.marks["i"], self._epochs["i"]
        effects = sorted(effect for folded in batch.folded.values() for effect in folded.effects)
        forgotten = sorted(each for user in batch.forgets for each in batch.folded[user].forgotten)
        values = self._values_of([item for effect in effects for item, _ in effect.items]) if effects else {}
        only: set[int] | None = None
        for _ in range(TRIES_MAX):
            calls = [
                ItemCall(shard, marks[shard], batch.last, ops, epochs[shard])
                for shard, ops in enumerate(self._operations(batch, effects, forgotten, marks, values))
                if (only is None or shard in only)
                and marks[shard] < batch.last
                and (ops or everywhere or batch.last - marks[shard] > LAG_MAX)
            ]
            only = self._settle_items(batch.part, calls)
            if not only:
                return
            effects = self._without_traces(effects)
        raise StoreAway(f"{batch.part.topic}-{batch.part.partition}: lost {TRIES_MAX} races for items")

    def _settle_items(self, part: Part, calls: Sequence[ItemCall]) -> set[int]:
        """Makes the calls; returns the shards to call again."""
        marks, epochs = self._held[part].marks["i"], self._epochs["i"]
        again: set[int] = set()
        for call, reply in zip(calls, self._store.commit_items(part, calls) if calls else (), strict=True):
            if reply.applied:
                marks[call.shard] = call.last
                epochs[call.shard] += any(op.kind == "f" for op in call.ops)
                continue
            again.add(call.shard)
            if reply.epoch is not None:
                epochs[call.shard] = reply.epoch
            else:
                self._see(part, "i", call.shard, believed=call.prev, mark=reply.mark)
        return again

    def _items_reach(self, held: _Held, part: Part, last: int) -> None:
        """Moves the items' marks up to `last`, so that no redo has to ask what a log held that is gone.

        All of them, the believed ones too: a store that was away may have lost some.
        """
        marks, epochs = held.marks["i"], self._epochs["i"]
        pending = set(range(self.layout.shards))
        for _ in range(TRIES_MAX):
            calls = [ItemCall(at, marks[at], max(marks[at], last), (), epochs[at]) for at in sorted(pending)]
            pending = self._settle_items(part, calls)
            if not pending:
                return
        raise StoreAway(f"{part.topic}-{part.partition}: lost {TRIES_MAX} races for items")

    def _without_traces(self, effects: Sequence[Effect]) -> list[Effect]:
        """Effects that name nobody who was forgotten since they were folded."""
        users = list({effect.user for effect in effects if effect.interest})
        until_ms = {user: tombstone.unpack(blob).until_ms for user, blob in self._tombstones(users).items()}
        return [
            effect._replace(interest=effect.interest and effect.ts_ms > until_ms.get(effect.user, -1))
            for effect in effects
        ]

    def _operations(
        self,
        batch: MicroBatch,
        effects: Sequence[Effect],
        forgotten: Sequence[Forgotten],
        marks: Sequence[int],
        values: Mapping[int, Values],
    ) -> list[list[ItemOp]]:
        entries = [(offset, entry) for offset, entry, _ in batch.facts if isinstance(entry, (Item, Gone))]
        if entries:
            return record_ops(entries, marks)
        operations = Operations(marks, values)
        operations.take(effects)
        operations.forget(forgotten)
        return operations.packed()

    def _values_of_records(self, items: Sequence[int]) -> Mapping[int, Values]:
        """Reads the items' records; a record is decoded once as long as it stays in the cache."""
        distinct = list(dict.fromkeys(items))
        if len(self._values) > VALUES_CACHED_MAX:
            self._values.clear()
        found = {}
        for item, record in zip(distinct, self._store.read_records(distinct), strict=True):
            values = self._values.get(record)
            if values is None:
                values = self._values[record] = values_of(record, self._domain)
            found[item] = values
        return found


def _no_values(items: Sequence[int]) -> Mapping[int, Values]:
    del items
    return {}


def _lags(call: UserCall) -> bool:
    return call.last - call.prev > LAG_MAX
