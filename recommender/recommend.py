"""THE path: find -> filter -> hydrate -> score -> select, for one micro-batch of questions.

`Recommender.recommend` reads top to bottom like the product. It knows no clock and no topic; what it must never do is
give no answer: a source that fails is left out, a missing model means the sources' own order, and `cause` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog
from features.scene import Floats
from features.store.port import StateForeign, StateLost, StoreAway
from features.view import StateView, scene
from recommender.query import EMPTY, Candidates, CandidateSource, Filter, Found, Query
from recommender.ranker import Ranker
from recommender.selection import best_first, blend, given, merge

Level = Literal["full", "partial", "popular"]
NO_VERSION = "none"
GIVEN_SOURCE = "given"
POPULAR_SOURCES = frozenset({"trending", "new"})


@dataclass(frozen=True, slots=True)
class Hydrated:
    """One query ready to be scored: its candidates and their rows, float32[n, features]."""

    candidates: Candidates
    matrix: Floats


@dataclass(frozen=True, slots=True)
class Ranked:
    """One answer, best first. matrix float32[k, features]: the very rows that were scored, of what is shown."""

    query_id: str
    item_ids: list[str]
    scores: NDArray[np.float64]
    sources: list[str]
    level: Level
    cause: str | None
    model_version: str
    features_hash: str
    matrix: Floats


@dataclass(slots=True)
class Recommender:
    """The path with its parts. One per worker thread, like its view.

    sources: in merge order. quotas {source: share of `candidates_max`}; a source without one proposes nothing, but
    its score is still a feature. ranker_of: the serving ranker now. cause_of: why there is none.
    """

    view: StateView
    catalog: Catalog
    sources: Sequence[CandidateSource]
    filters: Sequence[Filter]
    quotas: Mapping[str, float]
    candidates_max: int
    ranker_of: Callable[[], Ranker | None]
    cause_of: Callable[[], str | None] = lambda: "no model"

    def recommend(self, queries: Sequence[Query]) -> list[Ranked]:
        """One answer per query, in order, all by the same model. Raises only what the store raises."""
        ranker = self.ranker_of()
        found, failed = self.find(queries)
        pools = self.filter(queries, self.merge(queries, found))
        ready = self.hydrate(queries, pools)
        scores = [self.score(each, ranker) for each in ready]
        return [
            self.select(query, each, score, ranker, failed)
            for query, each, score in zip(queries, ready, scores, strict=True)
        ]

    def rows(self, queries: Sequence[Query]) -> list[Hydrated]:
        """The same path up to the rows that a ranker would score: what it is trained on."""
        found, _ = self.find(queries)
        return self.hydrate(queries, self.filter(queries, self.merge(queries, found)))

    def find(self, queries: Sequence[Query]) -> tuple[list[list[Found]], list[str]]:
        """What every source knows, per query in merge order, and the sources that failed, in words."""
        failed: list[str] = []
        columns = []
        for source in self.sources:
            try:
                columns.append(source.find(queries, self.view))
            except (StoreAway, StateLost, StateForeign):
                raise
            except Exception as error:
                failed.append(f"{source.name} failed: {type(error).__name__}")
                columns.append([EMPTY] * len(queries))
        return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in queries], failed

    def merge(self, queries: Sequence[Query], found: Sequence[Sequence[Found]]) -> list[Candidates]:
        """The caller's own list as it is, else the sources' by their quotas; then all items are read at once."""
        pools = [self._merged(query, each) for query, each in zip(queries, found, strict=True)]
        if pools:
            self.view.hydrate(np.unique(np.concatenate([pool.items for pool in pools])))
        return pools

    def filter(self, queries: Sequence[Query], pools: Sequence[Candidates]) -> list[Candidates]:
        """Without what must not be shown; a caller's own list stays whole."""
        return [
            pool if query.given is not None else self._kept(query, pool)
            for query, pool in zip(queries, pools, strict=True)
        ]

    def hydrate(self, queries: Sequence[Query], pools: Sequence[Candidates]) -> list[Hydrated]:
        """All that is known of the candidates, the user and the context, as one matrix a query."""
        scenes = [
            scene(
                self.view,
                now_ms=query.now_ms,
                items=pool.items,
                user=query.user,
                sources=pool.scores,
                context=query.context,
                item_context=query.item_context,
                position=query.position,
            )
            for query, pool in zip(queries, pools, strict=True)
        ]
        return [Hydrated(pool, self.catalog.matrix(each)) for pool, each in zip(pools, scenes, strict=True)]

    def score(self, ready: Hydrated, ranker: Ranker | None) -> NDArray[np.float64]:
        """float64[n]: the ranker's scores, or the sources' own where there is none."""
        if ranker is None:
            return blend(ready.candidates, self._shares)
        return ranker.score(ready.matrix)

    def select(
        self, query: Query, ready: Hydrated, scores: NDArray[np.float64], ranker: Ranker | None, failed: Sequence[str]
    ) -> Ranked:
        """The best k whose id is known, and how good an answer this is."""
        candidates = ready.candidates
        order = best_first(scores, candidates.items, query_id=query.salt or query.query_id)
        shown, item_ids = self._named(query, candidates, order)
        names = [source.name for source in self.sources]
        level, cause = self._level(query, candidates, ranker, failed)
        return Ranked(
            query_id=query.query_id,
            item_ids=item_ids,
            scores=scores[shown],
            sources=[names[index] if index >= 0 else GIVEN_SOURCE for index in candidates.source[shown].tolist()],
            level=level,
            cause=cause,
            model_version=ranker.version if ranker else NO_VERSION,
            features_hash=self.catalog.fingerprint,
            matrix=ready.matrix[shown],
        )

    def _merged(self, query: Query, found: Sequence[Found]) -> Candidates:
        """Found candidates never hold the item just acted on: nobody is shown the page they are on."""
        names = [source.name for source in self.sources]
        if query.given is not None:
            return given(names, found, self.view.learn(query.given))
        merged = merge(names, found, self._shares, at_most=self.candidates_max)
        current = query.user.items[-1:][query.user.in_session[-1:]]
        return merged.only(merged.items != current) if len(current) else merged

    def _kept(self, query: Query, pool: Candidates) -> Candidates:
        for rule in self.filters:
            keep = rule.keep(query, pool.items, self.view)
            pool = pool if keep.all() else pool.only(keep)
        return pool

    def _named(
        self, query: Query, candidates: Candidates, order: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """The first k places of `order` whose item has an id, and the ids: a bare hash cannot be shown."""
        if query.given is not None:
            shown = order[: query.k]
            return shown, [query.given[place] for place in shown]
        for head in (order[: query.k], order):
            ids = self.view.ids(candidates.items[head])
            known = [(place, item_id) for place, item_id in zip(head, ids, strict=True) if item_id is not None]
            if len(known) == len(head):
                break
        known = known[: query.k]
        return np.array([place for place, _ in known], np.int64), [item_id for _, item_id in known]

    def _level(
        self, query: Query, candidates: Candidates, ranker: Ranker | None, failed: Sequence[str]
    ) -> tuple[Level, str | None]:
        causes = [*failed, *([self.cause_of() or "no model"] if ranker is None else [])]
        proposed = {self.sources[index].name for index in set(candidates.source.tolist()) if index >= 0}
        if query.given is None and proposed <= POPULAR_SOURCES:
            causes.append("no personal candidates" if len(query.user.items) else "nothing known of the user")
            return "popular", "; ".join(causes)
        return ("partial", "; ".join(causes)) if causes else ("full", None)

    @property
    def _shares(self) -> list[float]:
        return [self.quotas.get(source.name, 0.0) for source in self.sources]
