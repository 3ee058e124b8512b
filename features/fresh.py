"""A bounded cache whose entries age: read again when older than the freshness, at most once a micro-batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Tick(NamedTuple):
    """A micro-batch: its number, the wall time at its start, and how many times older than usual its reads may be."""

    number: int
    wall_ms: int
    freshness_times: int = 1

    def is_fresh(self, read: int, freshness_ms: int) -> bool:
        """Whether what was read at the wall time `read` (ms) is young enough; what is read in the future is not: the
        clock was put back, by how much nobody knows.

        >>> Tick(7, 1_000).is_fresh(400, 500), Tick(7, 1_000, 2).is_fresh(400, 500), Tick(7, 1_000).is_fresh(1_001, 500)
        (False, True, False)
        """
        return 0 <= self.wall_ms - read < freshness_ms * self.freshness_times


class FreshCache(Generic[K, V]):
    """The newest `size_max` values by key; the least recently asked goes first.

    >>> cache = FreshCache[str, int](size_max=2, freshness_ms=0)
    >>> cache.get(["a", "b"], lambda keys: [len(key) for key in keys], tick=Tick(1, 0))
    [1, 1]
    """

    def __init__(self, *, size_max: int, freshness_ms: int) -> None:
        self._size_max = size_max
        self._freshness_ms = freshness_ms
        self._entries: OrderedDict[K, tuple[Tick, V]] = OrderedDict()

    def get(self, keys: Sequence[K], read: Callable[[Sequence[K]], Sequence[V]], *, tick: Tick) -> list[V]:
        """The values of `keys`; `read` is called once for all that are missing or too old."""
        entries = self._entries
        stale = [key for key in dict.fromkeys(keys) if not self._fresh(entries.get(key), tick)]
        if stale:
            for key, value in zip(stale, read(stale), strict=True):
                entries[key] = (tick, value)
        values = []
        for key in keys:
            entries.move_to_end(key)
            values.append(entries[key][1])
        while len(entries) > self._size_max:
            entries.popitem(last=False)
        return values

    def _fresh(self, entry: tuple[Tick, V] | None, tick: Tick) -> bool:
        return entry is not None and (
            entry[0].number == tick.number or tick.is_fresh(entry[0].wall_ms, self._freshness_ms)
        )
