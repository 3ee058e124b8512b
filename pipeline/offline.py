"""Replay and training on a data set folder: which settings hold, the clockwork, and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from features.schema import IMPRESSIONS, InputRecord, Refused
from features.store.port import Part
from pipeline import reading
from pipeline.answers import Stamp, encoded, rec_id
from pipeline.config import ConfigError, Recommend, Settings, load
from pipeline.dataset import entries, files
from pipeline.initialise import initialise, settings_of
from pipeline.models import opener
from recommender.model.artefact import ModelRefused
from recommender.model.labels import training_rows
from recommender.model.log_columns import LogColumns, read_columns
from recommender.model.plan import Kind, Plan, plan
from recommender.model.rows import TrainingRows
from recommender.model.training_settings import TrainingSettings
from recommender.ranker import Ranker
from recommender.replay import Answer, Replayer

QUESTIONS_MAX = 20_000
ROWS_MAX = 500_000  # of labelled rows: 200 columns of float32 are 400 MB; twice as many gained nothing (serenade)
NEGATIVES_MAX = 100  # of a question that is learned from: those of a longer list are thinned
FEATURE_ANSWERS_MAX = 5_000  # a file of features: 5 000 answers of 20 rows and 300 columns are 120 MB

# What a folder says of its events. Where a model goes is not the folder's to say.
MEANING = (
    "actions", "attributes", "context", "item_context", "session_gap_min", "user_retention_days",
    "item_retention_days",
)  # fmt: skip

# Of these sections the folder has a say where nobody else has.
SILENT = {"recommend": Recommend(), "training": TrainingSettings()}

NO_LOG = "0000"  # a folder's identity in rec_id

Entry = tuple[str, InputRecord | None]


def settings_for(directory: Path, settings: Settings, *, before_ms: int | None = None) -> Settings:
    """`settings` where they say what the events mean; else with the meaning in the folder's own worker.toml, or, where
    there is none, the one that `init` would guess.

    A folder kept by the demo has its worker.toml. before_ms: a guess looks at no record of then or later.
    """
    if settings.actions:
        return settings
    own = directory / "worker.toml"
    meant = load(own, {}) if own.is_file() else settings_of(initialise(directory, before_ms=before_ms))
    taken = {name: getattr(meant, name) for name in MEANING}
    taken |= {name: getattr(meant, name) for name, silent in SILENT.items() if getattr(settings, name) == silent}
    return structs.replace(settings, **taken)


class Source:
    """A folder as a replay's records, as often as wanted, with the dead letters counted by reason (of the last pass)."""

    def __init__(self, directory: Path, settings: Settings, *, limit: int | None = None) -> None:
        self._directory, self._limit = directory, limit
        self._actions = frozenset(action.name for action in settings.actions)
        self.refused: Counter[str] = Counter()
        self.first_refused: str | None = None
        self.rows = 0
        files(directory)

    def __iter__(self) -> Iterator[Entry]:
        self.refused.clear()
        self.rows = 0
        for entry in entries(self._directory, actions=self._actions, refused=self._refuse):
            if self.rows == self._limit:
                return
            self.rows += 1
            yield entry

    @property
    def kind(self) -> Kind:
        """What a ranker learns from here: `lists` where the folder has impressions, else `next`."""
        return "lists" if IMPRESSIONS in files(self._directory) else "next"

    def _refuse(self, where: str, error: Refused) -> None:
        self.refused[f"{error.field}: {error.reason}"] += 1
        self.first_refused = self.first_refused or f"{where}: {error}"


def replayer(settings: Settings, *, ranker_of: Callable[[], Ranker | None] = lambda: None) -> Replayer:
    """The clockwork under `settings`."""
    asked = settings.recommend
    return Replayer(
        settings.domain,
        quotas=asked.quotas.shares,
        candidates_max=asked.candidates_max,
        filters=asked.filters,
        blocked_items=asked.blocked_items,
        k=asked.k,
        reasons=asked.reasons,
        ranker_of=ranker_of,
    )


def with_model(settings: Settings, model: Path) -> Replayer:
    """The clockwork with the artefact `model` (a version's folder) as its ranker. Raises `ConfigError` if refused."""
    serving: list[Ranker] = []
    clockwork = replayer(settings, ranker_of=lambda: serving[0] if serving else None)
    try:
        serving.append(opener(settings, timed=False)(model))
    except ModelRefused as error:
        raise ConfigError(f"{model}: {error.reason}") from None
    return clockwork


def labelled_rows(
    source: Source,
    clockwork: Replayer,
    *,
    questions_max: int = QUESTIONS_MAX,
    after_ms: int = 0,
    whole: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingRows:
    """The newest `questions_max` labelled questions of a folder, of event time above `after_ms`; all of it is replayed.

    As few as have together about `ROWS_MAX` rows. whole: with every row of a question, to judge by; else its negatives
    beyond `NEGATIVES_MAX` are thinned, to learn from. progress(records replayed, of how many). Raises `ConfigError` for a folder that cannot be read.
    """
    log = read_columns(source, clockwork.domain)
    asked = plan(log, clockwork.domain, source.kind).after(after_ms)
    negatives_max = max(clockwork.candidates_max, int(log.lists.sizes.max(initial=0))) if whole else NEGATIVES_MAX
    rows_each = np.minimum(_rows_each(log, asked, clockwork), negatives_max)
    asked = asked.newest(min(questions_max, rows_within(rows_each)))
    heard = None if progress is None else lambda count: progress(count, log.records)
    return training_rows(source, clockwork, asked, negatives_max=negatives_max, progress=heard)


def rows_within(rows_each: NDArray[np.int64]) -> int:
    """How many of the newest questions, the last of int64[Q], have together at most `ROWS_MAX` rows; at least one.

    >>> rows_within(np.array([400_000, 100_000, 200_000, 200_000])), rows_within(np.array([600_000]))
    (3, 1)
    """
    return max(1, int(np.searchsorted(np.cumsum(rows_each[::-1]), ROWS_MAX, side="right")))


def _rows_each(log: LogColumns, asked: Plan, clockwork: Replayer) -> NDArray[np.int64]:
    """How many rows each question has: of its list, or at most so many candidates."""
    if asked.kind != "lists":
        return np.full(len(asked), clockwork.candidates_max, np.int64)
    return log.lists.sizes[np.searchsorted(log.lists.at, asked.at)]


def recommendation(answer: Answer) -> bytes:
    """A replayed answer as it would stand on the topic; its clock is the event's own, so ages and latency are 0."""
    now_ms = answer.record.ts_ms
    ask = reading.Ask(Part(answer.topic, 0), answer.offset, now_ms, answer.record)
    ranked = replace(answer.ranked, query_id=rec_id(ask, NO_LOG))
    return encoded(ask, ranked, stamp=Stamp(read_ms=now_ms, now_ms=now_ms, latency_ms=0.0))


class FeatureFiles:
    """The served rows of replayed answers as `features-00000.npz` ...; a context manager.

    Each holds matrix float32[N, F], groups int64[Q], query_ids, item_ids, ts_ms int64[Q], names.
    """

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self._directory, self._names = directory, names
        self._answers: list[Answer] = []
        self._written = 0

    def __enter__(self) -> FeatureFiles:
        return self

    def __exit__(self, *exc: object) -> None:
        self._flush()

    def add(self, answer: Answer) -> None:
        """Takes one answer; a file is written every 5 000."""
        self._answers.append(answer)
        if len(self._answers) == FEATURE_ANSWERS_MAX:
            self._flush()

    def _flush(self) -> None:
        if not self._answers:
            return
        ranked = [answer.ranked for answer in self._answers]
        np.savez_compressed(
            self._directory / f"features-{self._written:05}.npz",
            matrix=np.concatenate([each.matrix for each in ranked]),
            groups=np.array([len(each.item_ids) for each in ranked], np.int64),
            query_ids=np.array([each.query_id for each in ranked]),
            item_ids=np.array([item for each in ranked for item in each.item_ids]),
            ts_ms=np.array([answer.record.ts_ms for answer in self._answers], np.int64),
            names=np.array(self._names),
        )
        self._written += 1
        self._answers.clear()


def save_training_rows(path: Path, rows: TrainingRows, names: tuple[str, ...]) -> None:
    """Training rows as one .npz: matrix, grades, items, groups, ts_ms, users, query_ids, names."""
    np.savez_compressed(
        path,
        matrix=rows.matrix,
        grades=rows.grades,
        items=rows.items,
        groups=rows.groups,
        ts_ms=rows.ts_ms,
        users=rows.users,
        query_ids=np.array(rows.query_ids),
        names=np.array(names),
    )
