"""Candidate sources: where items to rank come from. One source a file; a new one is a file and a line in `SOURCES`."""

from __future__ import annotations

from recommender.candidates.affinity import Affinity
from recommender.candidates.co_visited import CoVisited
from recommender.candidates.history import History
from recommender.candidates.new import New
from recommender.candidates.session_neighbours import SessionNeighbours
from recommender.candidates.trending import Trending
from recommender.query import CandidateSource

# In merge order: the first that proposes an item is its source.
SOURCES: tuple[CandidateSource, ...] = (
    CoVisited(),
    SessionNeighbours(),
    History(),
    Affinity(),
    Trending(),
    New(),
)
