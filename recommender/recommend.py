"""THE path: find -> filter -> hydrate -> score -> select, for one micro-batch of questions.

`Recommender.recommend` reads top to bottom like the product. It knows no clock and no topic; what it must never do is
give no answer: a source that fails is left out, a missing model means the sources' own order, and `cause` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog
from features.scene import Floats
from features.store.port import StateForeign, StateLost, StoreAway
from features.view import StateView, scene
from recommender.effort import FULL, Effort
from recommender.popular import GIVEN_SOURCE, Pick, pick, stock
from recommender.query import EMPTY, Candidates, CandidateSource, Filter, Found, Query
from recommender.ranker import Ranker
from recommender.reasons import Explained, Explainer
from recommender.selection import best_first, blend, given, merge, sampled
from recommender.shadow import Divergence, rank_correlation, top_overlap

Level = Literal["full", "partial", "popular"]
NO_VERSION = "none"
POPULAR_SOURCES = frozenset({"trending", "new"})
EXPLAINED_MAX = 100  # items of one answer: 20 reasons each are 300 kB of the record's megabyte, and 0.1 s of CPU
NO_ROWS: Floats = np.empty((0, 0), np.float32)
NO_REASONS = "no reasons"  # how a cause begins that tells of answers without them


@dataclass(frozen=True, slots=True)
class Hydrated:
    """One query ready to be scored: its candidates and their rows, float32[n, features]."""

    candidates: Candidates
    matrix: Floats


@dataclass(frozen=True, slots=True)
class Sample:
    """Candidates that were scored and not shown, for the record: a fair draw of them, in the order of `draws` (float64[m],
    ascending, in [0, rate)). matrix float32[m, features], scores float64[m].
    """

    item_ids: list[str] = field(default_factory=list)
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    matrix: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    draws: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """One answer, best first. matrix float32[k, features]: the very rows that were scored, of what is shown.

    cascade_trees: the prefix of the cascade that scored, 0 where all trees scored all rows. explained: the reasons of
    each shown item, None for one without; empty where none were asked for or could be given. shadow: how far the
    shadow's answer lies from this one. is_whole: every source was asked and answered; other rows must teach nothing.
    """

    query_id: str
    item_ids: list[str]
    scores: NDArray[np.float64]
    sources: list[str]
    level: Level
    cause: str | None
    model_version: str
    features_hash: str
    matrix: Floats
    cascade_trees: int = 0
    sample: Sample = field(default_factory=Sample)
    explained: Sequence[Explained | None] = ()
    shadow: Divergence | None = None
    is_whole: bool = True


@dataclass(slots=True)
class Recommender:
    """The path with its parts. One per worker thread, like its view.

    sources: in merge order. quotas {source: share of `candidates_max`}; a source without one proposes nothing, but
    its score is still a feature. ranker_of: the serving ranker now. cause_of: why there is none. shadow_of: a second
    ranker, which scores the same rows for comparison only. sample_rate: the share of what is not shown that goes on
    record. reasons: how many each shown item gets.
    """

    view: StateView
    catalog: Catalog
    sources: Sequence[CandidateSource]
    filters: Sequence[Filter]
    quotas: Mapping[str, float]
    candidates_max: int
    ranker_of: Callable[[], Ranker | None]
    cause_of: Callable[[], str | None] = lambda: "no model"
    shadow_of: Callable[[], Ranker | None] = lambda: None
    sample_rate: float = 0.0
    reasons: int = 0
    _explainer: Explainer | None = None

    def recommend(self, queries: Sequence[Query], *, effort: Effort = FULL) -> list[Ranked]:
        """One answer per query, in order, all by the same model. Raises only what the store raises.

        What less than full effort leaves out, `cause` tells.
        """
        if effort.is_popular:
            return self.popular(queries, effort)
        ranker, shadow = _at_effort(self.ranker_of(), effort), self.shadow_of() if effort.extras else None
        found, failed = self.find(queries, without=effort.without)
        pools = self.filter(queries, self.merge(queries, found, share=effort.candidates_share))
        ready = self.hydrate(queries, pools)
        scores = [self.score(each, ranker, shown=query.k) for query, each in zip(queries, ready, strict=True)]
        answers = [
            self.select(query, each, score, ranker, failed)
            for query, each, score in zip(queries, ready, scores, strict=True)
        ]
        if effort.cause:
            answers = [_reduced(answer, effort) for answer in answers]
        if self.reasons and ranker is not None:
            answers = [
                self.explain(answer, ranker) if effort.extras else _unexplained(answer, "busy") for answer in answers
            ]
        if shadow is None:
            return answers
        return [
            replace(answer, shadow=self.compare(query, each, score, shadow))
            for answer, query, each, score in zip(answers, queries, ready, scores, strict=True)
        ]

    def popular(self, queries: Sequence[Query], effort: Effort) -> list[Ranked]:
        """The same popular items for all, without those that a user must not see: next to no work, and no rows."""
        newest = [max(queries, key=lambda query: query.now_ms)] if queries else []
        names = [source.name for source in self.sources]
        found, failed = self.find(newest, without=set(names) - POPULAR_SOURCES)
        cause = "; ".join([*failed, effort.cause])
        personal = [rule for rule in self.filters if rule.personal]
        shelves = [
            stock(
                query,
                each,
                self.view,
                names=names,
                shares=self._shares,
                filters=[rule for rule in self.filters if not rule.personal],
                at_most=self.candidates_max,
            )
            for query, each in zip(newest, found, strict=True)
        ]
        return [
            self._unscored(query, pick(query, shelf, self.view, filters=personal), cause)
            for shelf in shelves
            for query in queries
        ]

    def looks_at_users(self, effort: Effort) -> bool:
        """Whether an answer depends on what its user did, beyond the action that asks."""
        return not effort.is_popular or any(rule.personal for rule in self.filters)

    def rows(self, queries: Sequence[Query]) -> list[Hydrated]:
        """The same path up to the rows that a ranker would score: what it is trained on."""
        found, _ = self.find(queries)
        return self.hydrate(queries, self.filter(queries, self.merge(queries, found)))

    def find(self, queries: Sequence[Query], *, without: Set[str] = frozenset()) -> tuple[list[list[Found]], list[str]]:
        """What every source knows, per query in merge order, and the sources that failed, in words. Nothing of those
        that are not asked (`without`).
        """
        failed: list[str] = []
        columns = []
        for source in self.sources:
            if source.name in without:
                columns.append([EMPTY] * len(queries))
                continue
            try:
                columns.append(source.find(queries, self.view))
            except (StoreAway, StateLost, StateForeign):
                raise
            except Exception as error:
                failed.append(f"{source.name} failed: {type(error).__name__}")
                columns.append([EMPTY] * len(queries))
        return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in queries], failed

    def merge(
        self, queries: Sequence[Query], found: Sequence[Sequence[Found]], *, share: float = 1.0
    ) -> list[Candidates]:
        """The caller's own list as it is, else the sources' by their quotas, `share` of what may be scored; then all
        items are read at once.
        """
        pools = [self._merged(query, each, share) for query, each in zip(queries, found, strict=True)]
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

    def score(self, ready: Hydrated, ranker: Ranker | None, *, shown: int = 0) -> NDArray[np.float64]:
        """float64[n]: the ranker's scores (of the best `shown` the full ones), or the sources' own where there is none."""
        if ranker is None:
            return blend(ready.candidates, self._shares)
        return ranker.score(ready.matrix, shown=shown)

    def select(
        self, query: Query, ready: Hydrated, scores: NDArray[np.float64], ranker: Ranker | None, failed: Sequence[str]
    ) -> Ranked:
        """The best k whose id is known, and how good an answer this is."""
        candidates = ready.candidates
        order = self._order(query, ready, scores)
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
            cascade_trees=ranker.cascade_trees if ranker else 0,
            sample=self._sample(query, ready, scores, np.setdiff1d(order, shown)),
            is_whole=not failed,
        )

    def explain(self, answer: Ranked, ranker: Ranker) -> Ranked:
        """The answer with its reasons; a failure is a cause, never a lost answer. One thread only, as `contributions`."""
        if self._explainer is None:
            self._explainer = Explainer(self.catalog.names, self.catalog.categorical)
        rows, unexplained = answer.matrix[:EXPLAINED_MAX], max(0, len(answer.matrix) - EXPLAINED_MAX)
        try:
            parts = ranker.contributions(rows)
            explained = self._explainer.explain(rows, parts, answer.scores[:EXPLAINED_MAX], top=self.reasons)
        except Exception as error:
            return _unexplained(answer, type(error).__name__)
        whole = replace(answer, explained=[*explained, *[None] * unexplained])
        return whole if all(explained) else _unexplained(whole, "contributions that do not add up")

    def compare(self, query: Query, ready: Hydrated, scores: NDArray[np.float64], shadow: Ranker) -> Divergence:
        """How far the shadow's answer to the same rows lies from ours; its failure is its own."""
        try:
            theirs = shadow.score(ready.matrix, shown=query.k)
            overlap = top_overlap(self._order(query, ready, scores), self._order(query, ready, theirs), k=query.k)
            return Divergence(shadow.version, overlap, rank_correlation(scores, theirs))
        except Exception as error:
            return Divergence(shadow.version, failure=type(error).__name__)

    def _merged(self, query: Query, found: Sequence[Found], share: float) -> Candidates:
        """Found candidates never hold the item just acted on: nobody is shown the page they are on."""
        names = [source.name for source in self.sources]
        if query.given is not None:
            return given(names, found, self.view.learn(query.given))
        at_most = min(self.candidates_max, max(ceil(self.candidates_max * share), 2 * query.k))
        merged = merge(names, found, self._shares, at_most=at_most)
        current = query.current
        return merged.only(merged.items != current) if len(current) else merged

    def _unscored(self, query: Query, shown: Pick, cause: str) -> Ranked:
        return Ranked(
            query_id=query.query_id,
            item_ids=shown.item_ids,
            scores=shown.scores,
            sources=shown.sources,
            level="popular",
            cause=cause,
            model_version=NO_VERSION,
            features_hash=self.catalog.fingerprint,
            matrix=NO_ROWS,
        )

    def _kept(self, query: Query, pool: Candidates) -> Candidates:
        for rule in self.filters:
            keep = rule.keep(query, pool.items, self.view)
            pool = pool if keep.all() else pool.only(keep)
        return pool

    def _named(
        self, query: Query, candidates: Candidates, order: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """The first k places of `order` whose item has an id, and the ids: a bare hash cannot be shown."""
        for head in (order[: query.k], order):
            ids = self._ids(query, candidates, head)
            known = [(place, item_id) for place, item_id in zip(head, ids, strict=True) if item_id is not None]
            if len(known) == len(head):
                break
        known = known[: query.k]
        return np.array([place for place, _ in known], np.int64), [item_id for _, item_id in known]

    def _order(self, query: Query, ready: Hydrated, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        return best_first(scores, ready.candidates.items, query_id=query.salt or query.query_id)

    def _sample(self, query: Query, ready: Hydrated, scores: NDArray[np.float64], unshown: NDArray[np.int64]) -> Sample:
        """A fair draw of what is not shown; the same one whenever the question is asked again."""
        if not self.sample_rate:
            return Sample()
        drawn, draws = sampled(ready.candidates.items[unshown], rate=self.sample_rate, query_id=query.query_id)
        places = unshown[drawn]
        ids = self._ids(query, ready.candidates, places)
        known = np.array([item_id is not None for item_id in ids], np.bool_)
        places = places[known]
        named = [item_id for item_id in ids if item_id is not None]
        return Sample(named, scores[places], ready.matrix[places], draws[known], self.sample_rate)

    def _ids(self, query: Query, candidates: Candidates, places: NDArray[np.int64]) -> Sequence[str | None]:
        if query.given is not None:
            return [query.given[place] for place in places]
        return self.view.ids(candidates.items[places])

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


def _unexplained(answer: Ranked, why: str) -> Ranked:
    """The answer, whose cause says that reasons are missing; its level stays: the ranking lacks nothing."""
    return replace(answer, cause="; ".join(filter(None, (answer.cause, f"{NO_REASONS}: {why}"))))


def _reduced(answer: Ranked, effort: Effort) -> Ranked:
    """The answer, whose cause says what its ranking lacks: it is not the full one any more, whoever scored it."""
    level: Level = "partial" if answer.level == "full" else answer.level
    cause = "; ".join(filter(None, (answer.cause, effort.cause)))
    return replace(answer, level=level, cause=cause, is_whole=answer.is_whole and not effort.without)


def _at_effort(ranker: Ranker | None, effort: Effort) -> Ranker | None:
    return ranker.hurried(effort.trees_share) if ranker is not None and effort.trees_share < 1 else ranker
