"""What another generation of the state remembers of forgotten users, into the one that a store writes.

A rebuild may bring a user back whose null record retention has dropped: from a folder, or from a topic that reaches back
further. So the tombstones of the generation that served come last, when everything is applied, as a Forget would now:
what the logs of these users hold up to then goes, the counts of items stay. Come first, they would refuse events that a
replay counts. For the same reason those of nulls that came since the rebuild began are left out: the topics hold them, and
what stands before them may not be applied yet. All come once more when workers have moved over, for one may have forgotten a
user late.
"""

from __future__ import annotations

from collections.abc import Callable

from features.clipping import clip
from features.state import State
from features.store.port import CARRIED
from features.store.redis import RedisStore


def carry(
    store: RedisStore, state: State, source: int, *, before_ms: int, on_page: Callable[[], None] = lambda: None
) -> int:
    """All that generation `source` remembers of nulls before `before_ms`; returns how many tombstones it has in all.
    `state` drives `store`.

    To do it again is always safe, and what one that died has left is done. `on_page` may raise to end it.
    """
    store.begin(CARRIED, 0)
    remembered = 0
    for tombstones in store.carry(source, before_ms=before_ms):
        remembered += tombstones
        on_page()
    if remembered:
        for _ in clip(store, state.layout):
            on_page()
        while state.sweep() is not None:
            on_page()
    return remembered
