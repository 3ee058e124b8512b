"""Session neighbours: what sessions like this one contain (VMIS-kNN, Kersbergen, Sprangers and Schelter: Serenade,
SIGMOD 2022), on state that is seconds old instead of an index built at night.

Every item of the user's session names the 64 newest sessions that touched it. A session's similarity is the sum of
the shared items' weights, which fall linearly from the newest item of ours (1) to the oldest (1 / length). The `k` most
similar ones, newer first, vote for their own items: similarity x (1 - .1 x place of the newest shared item) x the
item's inverse frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.distinct import distinct
from features.ids import hash64
from features.scene import Hashes
from features.view import StateView
from recommender.candidates.ragged import best
from recommender.candidates.session import session_items
from recommender.query import EMPTY, Found, Query

Touches = tuple[NDArray[np.int64], Hashes, NDArray[np.uint16]]  # ts_ms, users, sessions


class Neighbours(NamedTuple):
    """n sessions like ours: user uint64[n], session uint16[n], newest touch int64[n], vote float64[n]."""

    users: Hashes
    sessions: NDArray[np.uint16]
    ts_ms: NDArray[np.int64]
    votes: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SessionNeighbours:
    """depth: items of the own session looked at (4 beat 9 on a validation set: MRR@20 .324 to .318, and reads less).
    k: neighbours that vote (288 gained nothing over 100). limit: items kept.
    """

    depth: int = 4
    k: int = 100
    limit: int = 200
    name: str = "session_neighbours"

    def find(self, queries: Sequence[Query], view: StateView) -> list[Found]:
        """One read of the items' session lists, one of the neighbours' logs, for the whole micro-batch."""
        mine = [session_items(query.user, at_most=self.depth) for query in queries]
        asked = np.unique(np.concatenate(mine)) if mine else np.empty(0, np.uint64)
        if not len(asked):
            return [EMPTY] * len(queries)
        lists = dict(zip(asked.tolist(), view.sessions(asked), strict=True))
        retention_ms = view.domain.user_retention_ms
        near = [self._neighbours(query, items, lists, retention_ms) for query, items in zip(queries, mine, strict=True)]
        return self._vote(near, view)

    def _neighbours(self, query: Query, mine: Hashes, lists: dict[int, Touches], retention_ms: int) -> Neighbours:
        """The `k` most similar sessions; never the user's own one of now, never one beyond the retention."""
        parts = [lists[item] for item in mine.tolist()]
        ts_ms, users, sessions = (
            (np.concatenate([part[column] for part in parts]) for column in range(3)) if parts else _NONE
        )
        place = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        kept = (ts_ms > query.now_ms - retention_ms) & ~self._own(query, users, ts_ms)
        ts_ms, users, sessions, place = ts_ms[kept], users[kept], sessions[kept], place[kept]
        key = users ^ (sessions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        # places ascend: the first of equal keys is the newest shared item
        _, first, of = np.unique(key, return_index=True, return_inverse=True)
        similarity = np.bincount(of, weights=1 - place / max(len(parts), 1), minlength=len(first))
        newest = np.zeros(len(first), np.int64)
        np.maximum.at(newest, of, ts_ms)
        order = np.lexsort((key[first], -newest, -similarity))[: self.k]
        chosen = first[order]
        votes = similarity[order] * np.maximum(0.9 - 0.1 * place[chosen], 0)
        return Neighbours(users[chosen], sessions[chosen], ts_ms[chosen], votes)

    def _own(self, query: Query, users: Hashes, ts_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The user's own session of now: their entries since it began."""
        user = query.user
        began_ms = user.ts_ms[user.sessions == user.sessions[-1]][0] if len(user.ts_ms) else 0
        own: NDArray[np.bool_] = (users == np.uint64(hash64(query.user_id))) & (ts_ms >= began_ms)
        return own

    def _vote(self, near: Sequence[Neighbours], view: StateView) -> list[Found]:
        """Every neighbour's items, read at once, summed up per query."""
        users, sessions, ts_ms, _ = (np.concatenate(column) for column in zip(*near, strict=True))
        owner, items = view.session_members(users, sessions, ts_ms)
        found = []
        ends = np.cumsum([len(each.users) for each in near])
        bounds = np.searchsorted(owner, [0, *ends])
        for index, each in enumerate(near):
            rows = slice(bounds[index], bounds[index + 1])
            if rows.start == rows.stop:
                found.append(EMPTY)
                continue
            start = ends[index] - len(each.users)
            voted = _voted(owner[rows] - start, items[rows], each.votes, at_most=self.limit)
            found.append(self._rare_first(voted, view))
        return found

    def _rare_first(self, voted: Found, view: StateView) -> Found:
        """Weighs by rarity what the votes left: a ring is read for at most `limit` items, not for all of them."""
        scores = voted.scores * view.rarity(voted.items)
        return best(voted.items, scores, at_most=self.limit)


def _voted(owner: NDArray[np.int64], items: Hashes, votes: NDArray[np.float64], *, at_most: int) -> Found:
    """Every session's vote for each of its items, once however often it was touched."""
    found, of = distinct(items)
    has = np.zeros(len(votes) * len(found), np.bool_)
    has[owner * len(found) + of] = True
    session, item = np.divmod(np.flatnonzero(has), len(found))
    return best(found, np.bincount(item, weights=votes[session], minlength=len(found)), at_most=at_most)


_NONE = (np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint16))
