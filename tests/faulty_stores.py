"""Stores that fail on purpose, at the port: crashes between any two script calls, lost replies, lost tails, races."""

import copy
from dataclasses import replace

from features.store.port import StoreAway


class Wrapped:
    """Passes everything on; subclasses spoil one thing."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


class Crashed(Exception):
    """The process died here."""


class CrashingStore(Wrapped):
    """Dies at the n-th script call of one shard: before it, or after it was applied and before its reply."""

    def __init__(self, store, *, at, applied, error=Crashed):
        super().__init__(store)
        self.at, self.applied, self.error, self.calls = at, applied, error, 0

    def commit_users(self, part, calls):
        return [reply for call in calls for reply in self._one(self.store.commit_users, part, [call])]

    def commit_items(self, part, calls):
        return [reply for call in calls for reply in self._one(self.store.commit_items, part, [call])]

    def beat(self, beats):
        return [missed for shard, each in beats.items() for missed in self._one(self.store.beat, {shard: each})]

    def _one(self, commit, *arguments):
        self.calls += 1
        if self.calls != self.at:
            return commit(*arguments)
        if self.applied:
            commit(*arguments)
        raise self.error("killed" if self.error is Crashed else "connection lost")


class LosingReplies(CrashingStore):
    """The connection breaks, the process lives: the worker's own retry."""

    def __init__(self, store, *, at, applied):
        super().__init__(store, at=at, applied=applied, error=StoreAway)


class UnfencedStore(Wrapped):
    """Ignores the marks: what a store without fences would do."""

    def commit_users(self, part, calls):
        return self._forced(self.store.commit_users, "u", part, calls)

    def commit_items(self, part, calls):
        return self._forced(self.store.commit_items, "i", part, calls)

    def _forced(self, commit, phase, part, calls):
        marks = self.store.marks(phase, part)
        return commit(part, [replace(call, prev=int(marks[call.shard])) for call in calls])


class ForgetfulMarks(Wrapped):
    """Resumes from where the process began, whatever stands in the store: a worker that trusts only its memory."""

    def marks(self, phase, part):
        marks = self.store.marks(phase, part)
        return marks * 0 - 1


class UnversionedStore(Wrapped):
    """Overwrites users' logs without comparing versions: two writers of one user lose updates."""

    def commit_users(self, part, calls):
        read = lambda user: self.store.read_users([user])[0][:4]  # noqa: E731
        puts = [replace(call, puts=[(user, read(user), blob) for user, _, blob in call.puts]) for call in calls]
        return self.store.commit_users(part, puts)


class RacingStore(Wrapped):
    """Lets somebody else act between a read of users' logs and the write that follows."""

    def __init__(self, store, others):
        super().__init__(store)
        self.others = others

    def read_users(self, users):
        blobs = self.store.read_users(users)
        if self.others:
            self.others.pop(0)()
        return blobs


def snapshot(store):
    """All shards of a memory store as they stand."""
    return copy.deepcopy(store._shards)


def lose_tail(store, taken, shards):
    """Puts shards of a memory store back to a snapshot."""
    for shard in shards:
        store._shards[shard] = copy.deepcopy(taken[shard])


class PowerLoss(Wrapped):
    """At the n-th script call of one shard the server dies, comes back without its newest `lost` calls, and the
    connection breaks: what the process believes of marks and logs is no longer so. The call itself is not made.
    """

    def __init__(self, store, *, at, lost):
        super().__init__(store)
        self.at, self.lost, self.calls = at, lost, 0
        self._taken = [snapshot(store)]

    def commit_users(self, part, calls):
        return [reply for call in calls for reply in self._one(self.store.commit_users, part, [call])]

    def commit_items(self, part, calls):
        return [reply for call in calls for reply in self._one(self.store.commit_items, part, [call])]

    def begin(self, part, start):
        self.store.begin(part, start)
        self._taken.append(snapshot(self.store))

    def beat(self, beats):
        return [missed for shard, each in beats.items() for missed in self._one(self.store.beat, {shard: each})]

    def _one(self, commit, *arguments):
        self.calls += 1
        if self.calls == self.at:
            taken = self._taken[max(0, len(self._taken) - 1 - self.lost)]
            lose_tail(self.store, taken, range(len(taken)))
            raise StoreAway("connection lost")
        replies = commit(*arguments)
        self._taken.append(snapshot(self.store))
        return replies
