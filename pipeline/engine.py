"""Everything that runs on the store thread: apply a batch to the state, answer who asked.

Synchronous and without a clock; the agents call it through `patience.StoreThread`, tests call it directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from features.domain import Action, Domain
from features.state import State
from features.store.port import Part, StateForeign, StateLost, StoreAway
from features.view import StateView
from pipeline import telemetry
from pipeline.answers import query, without_answer
from pipeline.kafka.slices import LogRecord, Slice
from pipeline.logs import get_logger
from pipeline.reading import Ask, Reading, read
from recommender.effort import FULL, Effort
from recommender.recommend import Ranked, Recommender

log = get_logger(__name__)


class OutOfTurn(RuntimeError):
    """The batch follows a record that is not applied: something before it got lost on the way."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Slices of one part that follow each other, as one step."""

    part: Part
    follows: int
    seek_no: int
    records: list[LogRecord]
    last: int


class Question(NamedTuple):
    """A trigger and its user's log as it stands after the trigger was applied."""

    ask: Ask
    user_log: bytes


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch left to do."""

    reading: Reading
    questions: list[Question]


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that a step needs. `kinds` {topic: its name in the contract}; `identities` {topic: 16 hex}."""

    domain: Domain
    state: State
    view: StateView
    recommender: Recommender
    kinds: Mapping[str, str]
    identities: Mapping[str, str]
    actions: Mapping[str, Action]
    k: int

    def apply(self, batch: Batch, *, answer_from: int, is_current: Callable[[Batch], bool]) -> Applied | None:
        """Reads the batch and applies it; None when it is void by now.

        Raises `OutOfTurn`, and what the state raises.
        """
        if not is_current(batch):
            return None
        if batch.follows >= self.state.position(batch.part):
            raise OutOfTurn(f"{batch.part}: follows {batch.follows}, applied up to {self.state.position(batch.part)}")
        reading = read(
            self.kinds[batch.part.topic], batch.part, batch.records, actions=self.actions, answer_from=answer_from
        )
        applied = self.state.apply(batch.part, reading.facts, last=batch.last)
        return Applied(reading, [Question(ask, applied.users[ask.record.user_id]) for ask in reading.asks])

    def answer(self, questions: Sequence[Question], *, wall_ms: int, effort: Effort = FULL) -> list[Ranked]:
        """One ranking per question, in order. Raises only what the store raises: a bug answers with its cause."""
        self.view.advance(wall_ms=wall_ms, freshness_times=effort.freshness_times)
        try:
            return self._rank_all(questions, effort)
        except StoreAway:
            self.state.doubt()
            raise

    def _rank_all(self, questions: Sequence[Question], effort: Effort) -> list[Ranked]:
        try:
            return self._rank(questions, effort)
        except (StoreAway, StateLost, StateForeign):
            raise
        except Exception:
            log.exception("a ranking failed, trying its questions one by one", questions=len(questions))
            return [self._rank_alone(question, effort) for question in questions]

    def _rank(self, questions: Sequence[Question], effort: Effort) -> list[Ranked]:
        looks, nobody = self.recommender.looks_at_users(effort), self.view.history(b"", now_ms=0)
        queries = [
            query(
                ask,
                identity=self.identities[ask.part.topic],
                # of a request nothing else tells which item the user is on
                user=self.view.history(user_log, now_ms=ask.record.ts_ms) if looks or ask.is_request else nobody,
                k=self.k,
            )
            for ask, user_log in questions
        ]
        return self.recommender.recommend(queries, effort=effort)

    def _rank_alone(self, question: Question, effort: Effort) -> Ranked:
        try:
            return self._rank([question], effort)[0]
        except (StoreAway, StateLost, StateForeign):
            raise
        except Exception as error:
            telemetry.ANSWER_FAILURES.inc()
            log.exception("a ranking failed", topic=question.ask.part.topic, offset=question.ask.offset)
            return without_answer(
                question.ask,
                identity=self.identities[question.ask.part.topic],
                cause=f"internal error: {type(error).__name__}",
                features_hash=self.recommender.catalog.fingerprint,
            )


def merge(slices: Sequence[Slice]) -> list[Batch]:
    """The slices as few batches: those of one part and one seek that follow each other become one.

    >>> from pipeline.kafka.slices import LogRecord
    >>> def piece(part, follows, *offsets): return Slice(part, follows, 1, [LogRecord(o, 0, None, b"") for o in offsets], offsets[-1])
    >>> a, b = Part("t", 0), Part("t", 1)
    >>> [(x.part.partition, x.follows, x.last) for x in merge([piece(a, -1, 0, 1), piece(b, 4, 5), piece(a, 1, 2), piece(a, 7, 8)])]
    [(0, -1, 2), (0, 7, 8), (1, 4, 5)]
    """
    batches: dict[Part, list[Batch]] = {}
    for piece in slices:
        runs = batches.setdefault(piece.part, [])
        if runs and runs[-1].seek_no == piece.seek_no and runs[-1].last == piece.follows:
            runs[-1].records.extend(piece.records)
            runs[-1] = replace(runs[-1], last=piece.last)
        else:
            runs.append(Batch(piece.part, piece.follows, piece.seek_no, list(piece.records), piece.last))
    return [batch for runs in batches.values() for batch in runs]
