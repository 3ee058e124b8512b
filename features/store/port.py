"""The port: what a feature store can do. Synchronous, batched, idempotent by fences.

Two implementations, `memory.MemoryStore` and `redis.RedisStore`, one contract suite (`tests/contracts/`).
`features/state.py` drives the writes, `features/view.py` the reads; nobody else touches a store.

Words: a *part* is one partition of one input topic. A *mark* (hwm) is the last offset of a part that a shard has
applied, one per shard and phase; -1 before the first. A *call* is everything one micro-batch changes in one shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain

Phase = Literal["u", "i"]  # user logs first, then items: features/state.py says why
PHASES: tuple[Phase, Phase] = ("u", "i")


class Part(NamedTuple):
    """One partition of one input topic."""

    topic: str
    partition: int


# No topic has such a name: the part's marks fence what comes of another generation, and of no log.
CARRIED = Part("carried/", 0)


class StateLost(RuntimeError):
    """A shard's mark is behind what this process saw applied: the store lost data. Reload marks and seek back."""

    def __init__(self, message: str, part: Part) -> None:
        super().__init__(message)
        self.part = part


ANEW = "`headrace rebuild` builds the state anew from the topics"


class StateMoved(RuntimeError):
    """Another generation of the state serves now: open the store again, and place every part by the start rule."""


class StateForeign(RuntimeError):
    """The state belongs to another log, layout or shard count, or is damaged: stop loudly, never guess."""


class StoreAway(ConnectionError):
    """The store does not answer or refuses to write (full): wait with back-off, nothing is lost. `cause` says why."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class StoreRefused(RuntimeError):
    """The store does not let us in: wrong password, missing permission, a certificate that nobody we trust has signed.

    Not a `StoreAway`: secrets and certificates are read at the start, so waiting in this process would mend nothing, and
    a permission that is missing in one command out of ten would leave a state that stands still. Stop loudly; whoever
    starts the process again has it read them anew.
    """


@dataclass(frozen=True, slots=True)
class Layout:
    """What `meta` fixes for the life of the data: shards, ring columns in order, action codes (never reused)."""

    shards: int
    columns: tuple[str, ...]
    action_codes: Mapping[str, int]  # 1..255; 0 is an impression

    def shard_of(self, key: int) -> int:
        """The logical shard that owns a 64-bit hash."""
        return key % self.shards


@dataclass(frozen=True, slots=True)
class UserCall:
    """One shard's user phase: blobs by user hash with the version each was read at (b"" = absent), and counts.

    `counts` are added to the shard's counters under the same fence (applied, repeated, dead_lettered ...). `tombstones`
    are put (user hash, blob) and raise the shard's epoch of this phase; `epoch` is the one before the logs were read.
    """

    shard: int
    prev: int
    last: int
    puts: Sequence[tuple[int, bytes, bytes]] = ()  # (user hash, expected version, new blob); empty blob: delete
    counts: Mapping[str, int] = field(default_factory=dict)
    tombstones: Sequence[tuple[int, bytes]] = ()
    epoch: int = 0


class ItemOp(NamedTuple):
    """One key's change in the item phase: `kind` is the script's verb, `key` its name within shard, `body` packed."""

    kind: str
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ItemCall:
    """One shard's item phase, in offset order per key. An op of kind "f" raises the shard's epoch of this phase; `epoch`
    is the one before the forgotten among the ops' users were left out.
    """

    shard: int
    prev: int
    last: int
    ops: Sequence[ItemOp] = ()
    epoch: int = 0


class Reply(NamedTuple):
    """A call's outcome. `mark`: the shard's mark now. `losers`: users whose version moved; then nothing was written.
    `epoch`: the shard's, where it is not the call's: users were forgotten since; then nothing was written.
    """

    applied: bool
    mark: int
    losers: tuple[int, ...] = ()
    epoch: int | None = None


class Beat(NamedTuple):
    """One mark to verify (`prev == last`) or to move over offsets that held nothing for the shard."""

    phase: Phase
    part: Part
    prev: int
    last: int


class FeatureStore(Protocol):
    """See the module. Every method may raise `StoreAway`; a failed call wrote nothing or is told apart by its mark."""

    def begun(self) -> bool:
        """Whether there is a state; asked before `open` by those who only read, for `open` begins one."""
        ...

    def open(self, domain: Domain) -> Layout:
        """Check or create `meta`; raises `StateForeign` when it contradicts `domain` or the shard count.

        From here on `marks`, `begin` and `beat` raise `StateMoved` when `meta` names another serving generation.
        """
        ...

    def bind_log(self, topic: str, identity: str) -> None:
        """Remember the topic's identity; raises `StateForeign` when the state was built from another log."""
        ...

    def marks(self, phase: Phase, part: Part) -> NDArray[np.int64]:
        """int64[shards]: the marks; -2 where the field is missing (never begun, or lost).

        `marks` and `begin` put back what the store lost of `meta`: just what this process opened and bound. They raise
        `StateForeign` when another process has put something else there first.
        """
        ...

    def begin(self, part: Part, start: int) -> None:
        """First assignment ever: write start-1 into every missing mark of both phases, and remember `start`."""
        ...

    def started_at(self, part: Part) -> int | None:
        """The `start` that `begin` remembered, None if the part was never begun."""
        ...

    def commit_users(self, part: Part, calls: Sequence[UserCall]) -> list[Reply]: ...

    def commit_items(self, part: Part, calls: Sequence[ItemCall]) -> list[Reply]: ...

    def beat(self, beats: Mapping[int, Sequence[Beat]]) -> list[tuple[int, Beat, int]]:
        """Per shard, compare-and-set marks; returns (shard, beat, actual mark) of those that did not match."""
        ...

    def counts(self) -> dict[str, int]:
        """The counters of all shards added up: `applied:<topic>`, `repeated:<topic>`, `dead_lettered:<topic>` ..."""
        ...

    def users(self) -> Iterator[list[int]]:
        """The hashes of all users who have a log, some at a time; one may come twice."""
        ...

    def read_users(self, users: Sequence[int]) -> list[bytes]: ...

    def read_tombstones(self, users: Sequence[int]) -> list[bytes]:
        """What is remembered of forgotten users (`features/tombstone.py`), b"" for the others."""
        ...

    def to_sweep(self) -> dict[int, dict[int, bytes]]:
        """{shard: {user hash: body of the op "f"}}: the forgotten users whose session entries may not all be gone yet,
        at most `layout.SWEPT_MAX` a shard; shards without any are left out.
        """
        ...

    def sweep(self, due: Mapping[int, Mapping[int, bytes]]) -> Iterator[int]:
        """Goes through all session lists, a page an element: how many entries of the users that are `due` it removed.
        After the last one they are no longer to be swept. Several may sweep at once; to begin again is always safe.
        """
        ...

    def read_rings(self, items: Sequence[int]) -> list[bytes]: ...

    def read_records(self, items: Sequence[int]) -> list[bytes]: ...

    def read_sample(self) -> list[bytes]:
        """The records of at most 64 items a shard, picked by their hash alone: what document frequencies count over."""
        ...

    def read_co_visited(self, items: Sequence[int]) -> list[bytes]: ...

    def read_sessions(self, items: Sequence[int]) -> list[bytes]: ...

    def read_value_rings(self, values: Sequence[tuple[str, str]]) -> list[bytes]:
        """Rings of attribute values (attribute, value), where the domain says `rate = true`."""
        ...

    def read_global(self) -> bytes: ...

    def read_top(self, name: str, k: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """The best k of a bounded list over all shards, best first (score, then greater hash): "top", "new", "a:<attr>:<value>"."""
        ...

    def scan(self, kind: Literal["u", "i", "r", "g"]) -> Iterator[tuple[str, bytes]]:
        """All keys of a kind with their values, in the order of the keys, for the digest: user logs, item rings, item
        records, global ring. Some at a time: a state need not fit into memory.
        """
        ...

    def ping(self) -> Mapping[str, str]:
        """Server facts for doctor: version, policy, memory, persistence. The memory store says so of itself."""
        ...

    def close(self) -> None: ...
