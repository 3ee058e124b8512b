from types import SimpleNamespace

import numpy as np
import pytest

from features.domain import Action, Attribute, Domain
from features.scene import SetColumn, UserHistory
from features.store.port import Layout
from recommender.query import Query

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def make_history(*events, bought=(), now_ms=NOW_MS):
    """A user's log, oldest first, of (minutes ago, item, session[, weight[, action]]) events."""
    rows = [(ago, item, session, *rest, *(1.0, 1)[len(rest) :]) for ago, item, session, *rest in events]
    ago, items, sessions, weights, actions = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    sessions = np.array(sessions, np.int32)
    return UserHistory(
        ts_ms=np.array([now_ms - minutes * MINUTE_MS for minutes in ago], np.int64),
        items=np.array(items, np.uint64),
        actions=np.array(actions, np.uint8),
        sessions=sessions,
        in_session=sessions == (sessions[-1] if len(sessions) else -1),
        weights=np.array(weights, np.float32),
        bought=np.array(bought, np.uint64),
        impressions_ts_ms=np.empty(0, np.int64),
    )


def make_query(*events, query_id="q", user_id="me", k=10, now_ms=NOW_MS, bought=(), **rest):
    return Query(query_id, user_id, now_ms, make_history(*events, bought=bought, now_ms=now_ms), k, **rest)


class ToyView:
    """Answers a source's questions from dictionaries; the state itself is tried in tests/features/."""

    def __init__(self, *, tops=None, co_visited=None, sessions=None, members=None, rarity=None, genres=None, gone=()):
        actions = (Action("view"), Action("buy", purchase=True), Action("hide", weight=0, negative=True))
        self.domain = Domain(actions=actions, attributes=(Attribute("genre", "set", candidates=True),))
        self.layout = Layout(16, self.domain.columns, {"view": 1, "buy": 2, "hide": 3})
        self._tops, self._co_visited, self._sessions = tops or {}, co_visited or {}, sessions or {}
        self._members, self._rarity, self._genres = members or {}, rarity or {}, genres or {}
        self._gone = gone
        self._texts = sorted({genre for genres in self._genres.values() for genre in genres})

    def top(self, name, k):
        found = self._tops.get(name, [])[:k]
        return np.array([item for item, _ in found], np.uint64), np.array([score for _, score in found], np.float64)

    def co_visited(self, items):
        lists = [self._co_visited.get(item, []) for item in items.tolist()]
        return [(np.array([i for i, _ in each], np.uint64), np.array([w for _, w in each], float)) for each in lists]

    def sessions(self, items):
        lists = [self._sessions.get(item, []) for item in items.tolist()]
        kinds = (np.int64, np.uint64, np.uint16)
        return [tuple(np.array([row[c] for row in each], kind) for c, kind in enumerate(kinds)) for each in lists]

    def session_members(self, users, sessions, ts_ms):
        owned = [
            (owner, item)
            for owner, key in enumerate(zip(users.tolist(), sessions.tolist(), strict=True))
            for item in self._members.get(key, [])
        ]
        return np.array([o for o, _ in owned], np.int64), np.array([i for _, i in owned], np.uint64)

    def rarity(self, items):
        return np.array([self._rarity.get(item, 1.0) for item in items.tolist()])

    def records(self, items):
        codes = [[self._texts.index(genre) for genre in self._genres.get(item, ())] for item in items.tolist()]
        start = np.cumsum([0, *map(len, codes)])
        genre = SetColumn(start, np.array([code for each in codes for code in each], np.int64))
        return SimpleNamespace(sets={"genre": genre})

    def available(self, items):
        return np.array([item not in self._gone for item in items.tolist()], bool)

    def idf(self, attribute):
        return np.ones(len(self._texts), np.float32)

    def values(self, attribute):
        return self._texts


@pytest.fixture
def history():
    return make_history


@pytest.fixture
def query():
    return make_query


@pytest.fixture
def toy_view():
    return ToyView


@pytest.fixture
def now_ms():
    return NOW_MS
