"""`evaluate rerank --through-kafka`: the protocol over real topics, in lock step with the protocol in process.

What the replay applies is published, in the order in which it is applied; the model that it fits is named on
model_control; and for a sample of its test lists a request goes in, whose answer must be the one in process: the same
order, scores and rows equal to the bit. At the end both states must have one digest.

Items are kept apart from what comes before and after them, as in the replay: an action knows its item's record or
does not. Impressions and actions between two questions are on their way together: the state they leave is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from features.facts import Fact
from features.scene import Floats
from features.schema import ITEMS, Impression, Item, RecommendationRequest, UserAction
from pipeline.config import Kafka, Redis, Settings, forget_secrets
from pipeline.embedded import embedded
from pipeline.model_control import name_version
from pipeline.private_worker import Answer, PrivateWorker, WorkerFailed, private
from recommender.query import Query
from recommender.recommend import Hydrated
from recommender.replay import Replayer
from recommender.selection import best_first

LOAD_S = 60.0  # that a worker may take to load a model that it was told of
AGAIN_S = 0.05
DIFFERENCES_MAX = 10
COLUMNS_TOLD = 5

Save = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Expected:
    """A list as the protocol ranks it, best first: scores float64[n], matrix float32[n, features]."""

    query_id: str
    item_ids: list[str]
    scores: NDArray[np.float64]
    matrix: Floats


@dataclass(slots=True)
class Comparison:
    """How many lists, rows and scores were compared and how many were equal to the bit; lists: same items in order."""

    lists: int = 0
    lists_equal: int = 0
    rows: int = 0
    rows_equal: int = 0
    scores_equal: int = 0
    digests_equal: bool = False
    differences: list[str] = field(default_factory=list)

    @property
    def all_equal(self) -> bool:
        """Whether nothing differs at all."""
        equal = (self.lists, self.rows, self.rows) == (self.lists_equal, self.rows_equal, self.scores_equal)
        return equal and self.digests_equal

    def add(self, expected: Expected, answer: Answer, names: Sequence[str]) -> None:
        """One list, in process and through Kafka."""
        recommendation, served = answer
        item_ids = [item.item_id for item in recommendation.items]
        self.lists += 1
        self.rows += len(expected.item_ids)
        if sorted(item_ids) != sorted(expected.item_ids):
            self._note(f"{expected.query_id}: {len(item_ids)} items came back of {len(expected.item_ids)}")
            return
        # item by item: where the order differs the figures still tell why
        theirs, mine = (np.argsort(np.array(ids), kind="stable") for ids in (item_ids, expected.item_ids))
        scores = np.array([item.score for item in recommendation.items])[theirs]
        same_score = scores.view(np.uint64) == expected.scores[mine].view(np.uint64)
        same_cell = served.rows[theirs].view(np.uint32) == expected.matrix[mine].view(np.uint32)
        self.lists_equal += item_ids == expected.item_ids
        self.scores_equal += int(same_score.sum())
        self.rows_equal += int(same_cell.all(axis=1).sum())
        if item_ids != expected.item_ids or not (same_score.all() and same_cell.all()):
            order = "equal" if item_ids == expected.item_ids else "another"
            columns = [name for name, same in zip(names, same_cell.all(axis=0), strict=True) if not same]
            self._note(
                f"{expected.query_id}: {order} order, {(~same_score).sum()} scores differ, "
                f"columns: {', '.join(columns[:COLUMNS_TOLD]) or 'none'}"
            )

    def summary(self) -> str:
        """One line."""
        return (
            f"through Kafka: {self.lists} lists compared, {self.lists_equal} in equal order; of {self.rows} rows "
            f"{self.rows_equal} and of their scores {self.scores_equal} equal to the bit; "
            f"digests {'equal' if self.digests_equal else 'DIFFER'}"
        )

    def _note(self, difference: str) -> None:
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)


class LockStep:
    """Goes along with `rerank_folder`, which calls begin, serve, watch and end; a context manager. Main thread only."""

    def __init__(
        self, *, sample: int, servers: tuple[Kafka, Redis] | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """sample: how many test lists are asked, spread over the test. servers: None for embedded ones."""
        self._sample, self._servers, self._say = sample, servers, say
        self._stack = ExitStack()
        self._items_last = True
        self._serves = False
        self.comparison = Comparison()

    def __enter__(self) -> LockStep:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def begin(self, settings: Settings, clockwork: Replayer, questions: range) -> None:
        """Starts the worker, and publishes from now on whatever `clockwork` applies. questions: those of the test."""
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="headrace-lockstep-")))
        if self._servers is None:
            forget_secrets()
            started = self._stack.enter_context(embedded(directory / "servers"))
            self._servers = Kafka(bootstrap=started.bootstrap), Redis(url=started.redis_url)
        kafka, redis = self._servers
        self._settings = private(settings, kafka=kafka, redis=redis, directory=directory)
        self._models = Path(self._settings.model.directory) / self._settings.model.name
        self._models.mkdir(parents=True)
        self._worker = self._stack.enter_context(PrivateWorker(self._settings, directory=directory))
        places = np.linspace(0, len(questions) - 1, min(self._sample, len(questions)))
        self._asked = {questions[round(place)] for place in places}
        self._clockwork = clockwork
        clockwork.on_apply = self._follow

    def serve(self, save: Save) -> None:
        """Names the model that `save(registry folder)` puts there as a version."""
        version = save(self._models).name
        name_version(self._settings.kafka, self._settings.model.name, version, ts_ms=time.time_ns() // 1_000_000)
        self._version = version

    def watch(self, question: int, query: Query, ready: Hydrated, scores: NDArray[np.float64]) -> None:
        """Asks the worker what was just asked in process, if the question is of the sample, and compares."""
        if question not in self._asked:
            return
        self._say(f"through Kafka: {self.comparison.lists + 1} of {len(self._asked)} lists")
        self._worker.settle()
        answer = self._answer(request(query))
        self.comparison.add(expected(query, ready, scores), answer, self._clockwork.catalog.names)

    def end(self) -> None:
        """After the log's last record: compares the states."""
        self._worker.settle()
        self.comparison.digests_equal = self._worker.digest() == self._clockwork.digest()
        if not self.comparison.digests_equal:
            self.comparison.differences.append("the state in Redis has another digest than that in process")

    def _answer(self, asked: RecommendationRequest) -> Answer:
        """The worker's answer by the model that was named; asking changes nothing, so it may be asked again."""
        until_s = time.monotonic() + LOAD_S
        while (answer := self._worker.ask(asked)).recommendation.model.version != self._version:
            if self._serves or time.monotonic() > until_s:
                told = answer.recommendation
                raise WorkerFailed(f"{self._version} does not serve, but {told.model.version}: {told.cause}")
            time.sleep(AGAIN_S)
        self._serves = True
        return answer

    def _follow(self, topic: str, facts: Sequence[Fact]) -> None:
        records = [fact.record for fact in facts if isinstance(fact.record, (Item, Impression, UserAction))]
        if records and (topic == ITEMS) != self._items_last:
            self._worker.settle()
            self._items_last = topic == ITEMS
        self._worker.publish(topic, records)


def request(query: Query) -> RecommendationRequest:
    """A question about a given list as a request; its id is the list's, so that equal scores come in one order."""
    return RecommendationRequest(
        request_id=query.query_id,
        user_id=query.user_id,
        ts_ms=query.now_ms,
        item_ids=list(query.given or ()),
        context=dict(query.context) or None,
        item_context={
            name: [None if np.isnan(value) else value for value in column.tolist()]
            for name, column in query.item_context.items()
        }
        or None,
    )


def expected(query: Query, ready: Hydrated, scores: NDArray[np.float64]) -> Expected:
    """The list in the order in which it would be answered."""
    order = best_first(scores, ready.candidates.items, query_id=query.salt or query.query_id)
    given = query.given or ()
    return Expected(query.query_id, [given[place] for place in order], scores[order], ready.matrix[order])
