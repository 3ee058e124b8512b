"""What the state itself says: its counts, its marks, its digest. The demo trusts these, not the worker's words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from features.digest import digest
from features.store.port import PHASES, FeatureStore, Part, StoreAway
from features.store.redis import RedisStore
from pipeline.config import Settings

UNKNOWN = -2


@dataclass(frozen=True, slots=True)
class Counts:
    """Over all input topics: distinct accepted events, known event ids, distinct refused source offsets."""

    applied: int = 0
    repeated: int = 0
    dead_lettered: int = 0

    @property
    def done(self) -> int:
        """Records that the state has accounted for."""
        return self.applied + self.repeated + self.dead_lettered


def counts_of(counters: dict[str, int]) -> Counts:
    """Adds the counters `<what>:<topic>` up over the topics.

    >>> counts_of({"applied:items": 2, "applied:user_actions": 3, "repeated:user_actions": 1})
    Counts(applied=5, repeated=1, dead_lettered=0)
    """
    sums = {"applied": 0, "repeated": 0, "dead_lettered": 0}
    for name, count in counters.items():
        what = name.partition(":")[0]
        if what in sums:
            sums[what] += count
    return Counts(**sums)


class StateReader:
    """Reads while the worker writes. `refresh` never raises for an absent Redis: `trouble` says so."""

    def __init__(self, settings: Settings) -> None:
        redis = settings.redis
        self._domain = settings.domain
        self._store: FeatureStore = RedisStore(
            redis.url, app=redis.app, shards=redis.shards, timeout_ms=redis.timeout_ms
        )
        self._layout = self._store.open(self._domain)
        self.counts = Counts()
        self.trouble = ""

    def refresh(self) -> None:
        """Reads the counts again."""
        try:
            self.counts = counts_of(self._store.counts())
            self.trouble = ""
        except StoreAway as error:
            self.trouble = f"Redis: {error.cause}"

    def hwm(self, parts: Iterable[tuple[str, int]]) -> dict[str, int]:
        """The last offset that every shard has applied in both phases, by `topic-partition`; -2: unknown or away."""
        return {f"{topic}-{partition}": self._mark(Part(topic, partition)) for topic, partition in sorted(parts)}

    def _mark(self, part: Part) -> int:
        try:
            return min(int(self._store.marks(phase, part).min()) for phase in PHASES)
        except StoreAway as error:
            self.trouble = f"Redis: {error.cause}"
            return UNKNOWN

    def digest(self) -> str:
        """One hash over the state; meaningful when nobody writes."""
        return digest(self._store, self._layout, self._domain)

    def close(self) -> None:
        """Ends the connection."""
        self._store.close()
