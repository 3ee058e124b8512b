"""A log through the live code, without Kafka and Redis: the same state, the same features, the same path.

`replay` yields the recommendations that a worker with no lag would have given; `training_rows` the labelled rows a
ranker learns from; `Replayer` is the clockwork under both. Records come decoded and in time order, as
`(topic, record)`; `(topic, None)` is a dead letter. Every question sees the state of its own moment: what came before
it in the log is applied, what comes after is not (`freshness_ms` 0).

    replayer = Replayer(domain)
    for answer in replay(records, replayer): ...
    replayer.digest(), replayer.counts()

    replayer = Replayer(domain)
    asked = plan(read_columns(records, domain), domain, "lists")  # or "next": the log has no impressions
    rows = training_rows(records, replayer, asked)
    train(rows, replayer.catalog, directory=models / "ranker", version="...")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.catalog import catalog
from features.digest import digest
from features.domain import Domain
from features.facts import Fact, Forget, Record
from features.ids import hash64
from features.scene import UserHistory
from features.schema import (
    IMPRESSIONS,
    INPUT_TOPICS,
    ITEMS,
    REQUESTS,
    USER_ACTIONS,
    Impression,
    RecommendationRequest,
    UserAction,
)
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part
from features.view import StateView
from recommender.candidates import SOURCES
from recommender.filters import filters as filters_of
from recommender.query import CandidateSource, Query, item_columns, question
from recommender.quotas import Quotas
from recommender.ranker import Ranker
from recommender.recommend import Hydrated, Ranked, Recommender

Entry = tuple[str, Record | None]

QUOTAS: Mapping[str, float] = Quotas().shares
APPLY_ORDER = (ITEMS, IMPRESSIONS, USER_ACTIONS, REQUESTS)  # within a batch: as a data set orders equal times


class Answer(NamedTuple):
    """One recommendation and the record that caused it (a trigger action or a request)."""

    topic: str
    offset: int
    record: UserAction | RecommendationRequest
    ranked: Ranked


class Replayer:
    """State in memory, a view that is never stale, and the path over both.

    feed() queues a record, settle() applies what is queued (it happens by itself every `batch_max` records). The
    n-th record of a topic has offset n of its partition 0, so marks, counters and digest are those of such a log.
    on_apply(topic, facts) hears of every batch that was applied.
    """

    def __init__(
        self,
        domain: Domain,
        *,
        quotas: Mapping[str, float] = QUOTAS,
        candidates_max: int = 200,
        filters: Sequence[str] = ("available",),
        blocked_items: Sequence[str] = (),
        k: int = 20,
        use_position: bool = False,
        reasons: int = 0,
        ranker_of: Callable[[], Ranker | None] = lambda: None,
        sources: Sequence[CandidateSource] = SOURCES,
        batch_max: int = 2_000,
        on_apply: Callable[[str, Sequence[Fact]], None] | None = None,
    ) -> None:
        self.domain = domain
        self.k = k
        self.candidates_max = candidates_max
        self.use_position = use_position
        self.batch_max = batch_max
        self.on_apply = on_apply
        self.store = MemoryStore()
        self.state = State(self.store, domain)
        self.layout = self.state.layout
        self.view = StateView(self.store, domain, self.layout, freshness_ms=0)
        self.catalog = catalog(domain, sources=[source.name for source in sources], use_position=use_position)
        rules = filters_of(filters, domain=domain, layout=self.layout, blocked_items=blocked_items)
        self.recommender = Recommender(
            self.view, self.catalog, sources, rules, quotas, candidates_max, ranker_of, reasons=reasons
        )
        self.fed = dict.fromkeys(INPUT_TOPICS, 0)
        self._pending: dict[str, list[Fact]] = {topic: [] for topic in APPLY_ORDER}
        self._queued = 0
        self._forgets = False
        for topic in INPUT_TOPICS:
            self.state.resume(Part(topic, 0), committed=None, log_start=0)

    def feed(self, topic: str, record: Record | None) -> int:
        """Queues the next record of `topic`; returns its offset."""
        offset = self.fed[topic]
        self.fed[topic] = offset + 1
        self._pending[topic].append(Fact(offset, record))
        self._queued += 1
        self._forgets |= isinstance(record, Forget)
        if self._queued >= self.batch_max:
            self.settle()
        return offset

    def settle(self) -> None:
        """Applies everything that was fed."""
        if not self._queued:
            return
        for topic in APPLY_ORDER:
            if facts := self._pending[topic]:
                self.state.apply(Part(topic, 0), facts, last=facts[-1].offset)
                if self.on_apply is not None:
                    self.on_apply(topic, facts)
                self._pending[topic] = []
        self._queued = 0
        while self._forgets and self.state.sweep() is not None:
            pass
        self._forgets = False
        self.view.advance(wall_ms=0)

    def query(self, query_id: str, user_id: str, now_ms: int, **given: object) -> Query:
        """A question about the state as it stands after settle()."""
        user = self.user(user_id, now_ms)
        return Query(query_id, user_id, now_ms, user, **{"k": self.k, **given})  # type: ignore[arg-type]

    def user(self, user_id: str, now_ms: int) -> UserHistory:
        """What the state knows of a user after settle()."""
        return self.view.histories([hash64(user_id)], now_ms=now_ms)[0]

    def list_query(self, record: Impression) -> Query:
        """The question that a shown list was the answer to."""
        position = np.arange(len(record.item_ids), dtype=np.float32) if self.use_position else None
        return self.query(
            record.impression_id,
            record.user_id,
            record.ts_ms,
            k=len(record.item_ids),
            given=record.item_ids,
            context=record.context or {},
            item_context=item_columns(record.item_context),
            position=position,
        )

    def rows(self, query: Query) -> Hydrated:
        """Candidates and feature rows of one question, now."""
        return self.recommender.rows([query])[0]

    def counts(self) -> dict[str, int]:
        """The state's own counters: `applied:<topic>`, `repeated:<topic>`, `dead_lettered:<topic>` ..."""
        self.settle()
        return self.store.counts()

    def digest(self) -> str:
        """64 hex digits: equal to those of any other state that took the same set of records."""
        self.settle()
        return digest(self.store, self.layout, self.domain)


def replay(records: Iterable[Entry], replayer: Replayer, *, answers: bool = True) -> Iterator[Answer]:
    """Feeds the log and yields an answer for every trigger action and request, each at its own moment.

    With `answers=False` it yields nothing and only builds the state, in batches.
    """
    triggers = {action.name for action in replayer.domain.actions if action.trigger}
    for topic, record in records:
        offset = replayer.feed(topic, record)
        if not answers:
            continue
        if isinstance(record, UserAction) and record.action in triggers:
            query_id = record.event_id
        elif isinstance(record, RecommendationRequest):
            query_id = record.request_id
        else:
            continue
        replayer.settle()
        query = question(record, query_id=query_id, user=replayer.user(record.user_id, record.ts_ms), k=replayer.k)
        yield Answer(topic, offset, record, replayer.recommender.recommend([query])[0])
    replayer.settle()
