"""What an answer may cost: the rungs of the overload ladder, as data. `pipeline/overload.py` picks one by the load.

From the top down each rung gives up what costs most for what it brings: first what only tells about the answer, then
what the ranking can spare, at last the person.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How an answer is made. `lacks`: what its ranking does without, in words for `cause`; empty: nothing.

    extras: reasons and the shadow's look. trees_share: of the model's trees, on all candidates; the rest score the best
    only. candidates_share: of `candidates_max`. freshness_times: how much older caches may be. without: candidate
    sources that are not asked. is_popular: the same items for all, nothing is scored.
    """

    name: str
    lacks: str = ""
    extras: bool = True
    trees_share: float = 1.0
    candidates_share: float = 1.0
    freshness_times: int = 1
    without: frozenset[str] = frozenset()
    is_popular: bool = False

    @property
    def cause(self) -> str:
        """As it stands in the record; empty where the ranking lacks nothing.

        >>> CACHED.cause, PLAIN.cause
        ('overload: harder cascade, cached features, no session_neighbours', '')
        """
        return f"overload: {self.lacks}" if self.lacks else ""


FULL = Effort("full")
PLAIN = Effort("plain", extras=False)
CASCADED = Effort("cascaded", "harder cascade", extras=False, trees_share=0.25, candidates_share=0.5)
CACHED = Effort(
    "cached",
    "harder cascade, cached features, no session_neighbours",  # the dearest source: a third of such an answer
    extras=False,
    trees_share=0.25,
    candidates_share=0.2,
    freshness_times=10,
    without=frozenset({"session_neighbours"}),
)
POPULAR = Effort("popular", "popular items only", extras=False, freshness_times=10, is_popular=True)

RUNGS = (POPULAR, CACHED, CASCADED, PLAIN, FULL)
"""From the cheapest to the dearest."""
