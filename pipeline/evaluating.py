"""The evaluations of `headrace evaluate`: a folder's settings, the clockwork, the protocol, and what is reported of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any, Protocol

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray

from features.ids import hash64
from features.scene import Hashes
from pipeline.config import ConfigError, Settings
from pipeline.offline import NEGATIVES_MAX, QUESTIONS_MAX, ROWS_MAX, Source, rows_within, settings_for
from recommender.evaluation import next_item
from recommender.evaluation.report import Fact, Judged, Report, report
from recommender.evaluation.rerank import Judgement, cut, rerank
from recommender.model.artefact import ModelRefused, read_manifest, save
from recommender.model.artefact import load as load_ranker
from recommender.model.fitting import fit_ranker
from recommender.model.log_columns import LogColumns, read_columns
from recommender.model.parameters import NotTrainable
from recommender.model.plan import Kind, Plan, plan, positive
from recommender.model.rows import TrainingRows
from recommender.model.search import TUNED
from recommender.model.training import manifest_of
from recommender.model.training_settings import TrainingSettings
from recommender.query import Query
from recommender.ranker import LightGBMRanker, Ranker
from recommender.recommend import Hydrated
from recommender.replay import Replayer

SEED = 20_181_107
GUESSES = 3  # of settings, where labels thin out and the test begins before the 80 % that `init` reads
REASONS_MAX = 20  # that a report names: a broken line's reason may tell its value
EVALUATED = "evaluated"  # the version of the protocol's own ranker

Say = Callable[..., None]  # `pipeline.cli.progress.bar`


class EvaluationError(ConfigError):
    """The data cannot be evaluated this way; says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose. model: a version's folder to judge instead of a ranker of the protocol's own."""

    training: TrainingSettings
    questions_max: int = QUESTIONS_MAX
    use_position: bool = False
    model: Path | None = None
    without_items: tuple[str, ...] = ()
    without_attributes: tuple[str, ...] = ()


class Companion(Protocol):
    """What goes along with `rerank_folder`: `pipeline.lockstep` does."""

    def begin(self, settings: Settings, clockwork: Replayer, questions: range) -> None:
        """Before the first record. questions: the numbers of the test's."""
        ...

    def serve(self, save: Callable[[Path], Path]) -> None:
        """At the cut: `save(folder)` puts the ranker there as a version and returns its path."""
        ...

    def watch(self, question: int, query: Query, ready: Hydrated, scores: NDArray[np.float64]) -> None:
        """At every question of the test."""
        ...

    def end(self) -> None:
        """After the last record."""
        ...


def rerank_folder(
    directory: Path, settings: Settings, options: Options, *, say: Say, companion: Companion | None = None
) -> tuple[Report, Judgement, Plan]:
    """Shown lists ordered again; see `recommender.evaluation.rerank`."""
    given, before_ms = settings, None
    for _ in range(GUESSES):
        settings = without(settings_for(directory, given, before_ms=before_ms), options)
        source = Source(directory, settings)
        columns = read_columns(source, settings.domain, progress=lambda count: say(f"{count} records read"))
        asked = plan(columns, settings.domain, "lists")
        border = cut(len(asked))
        if not 0 < border < len(asked):
            raise EvaluationError(f"{directory}: {len(asked)} lists with a label, too few to train and to test")
        first_test_ms = int(asked.ts_ms[border:].min())
        if before_ms is not None and before_ms <= first_test_ms:
            break
        if settings == without(settings_for(directory, given, before_ms=first_test_ms), options):
            break
        before_ms = first_test_ms
    clockwork = _clockwork(settings, options, filters=settings.recommend.filters)
    if companion is not None:
        companion.begin(settings, clockwork, range(border, len(asked)))
    sizes = columns.lists.sizes[np.searchsorted(columns.lists.at, asked.at[:border])]
    judgement = rerank(
        source,
        asked,
        clockwork,
        fit=_fit(
            clockwork,
            options,
            say,
            first_test_ms=first_test_ms,
            serve=None if companion is None else companion.serve,
        ),
        questions_max=min(options.questions_max, rows_within(np.minimum(sizes, NEGATIVES_MAX))),
        progress=lambda count: say("replaying", count / columns.records),
        watch=None if companion is None else companion.watch,
    )
    if companion is not None:
        companion.end()
    facts: dict[str, Fact] = {
        "protocol": "rerank",
        "data": directory.name,
        "position": options.use_position,
        **_learned(judgement, options, source.refused),
    }
    return (
        _report(judgement, columns, border_at=int(asked.at[border]), domain_of=settings, facts=facts),
        judgement,
        asked,
    )


def next_item_folder(
    directory: Path,
    settings: Settings,
    options: Options,
    *,
    say: Say,
    test: Path | None = None,
    valid: Path | None = None,
    roll: bool = False,
    kind: Kind = "next",
    new_to_user: bool = False,
) -> Report:
    """The next item, or the next basket; see `recommender.evaluation.next_item`. Without `test` the last 20 %, rolling."""
    settings = without(settings_for(directory, settings), options)
    left_out = hashes((*options.without_items, *settings.recommend.blocked_items))

    sources: list[_Chain] = []

    def opened(*folders: Path, known: LogColumns | None = None) -> next_item.Log:
        sources.append(source := _Chain([Source(each, settings) for each in folders]))
        columns = read_columns(source, settings.domain, progress=lambda count: say(f"{count} records read"))
        asked = plan(columns, settings.domain, kind, new_to_user=new_to_user, known=known, without=left_out)
        return next_item.Log(source, columns, asked)

    clockwork = _clockwork(settings, options, filters=())
    log = opened(directory, test) if test and roll else opened(directory)
    alone = opened(test, known=log.columns) if test and not roll else None
    border = cut(len(log.plan))
    if test:
        border = int(np.searchsorted(log.plan.at, opened(directory).columns.records if roll else log.columns.records))
    judged = sources[:2] if alone else sources[:1]
    tested = alone.plan if alone else log.plan.part(border, len(log.plan))
    if not border or not len(tested):
        raise EvaluationError(f"{directory}: {border} questions to learn from, {len(tested)} to test: too few")
    fit = _fit(clockwork, options, say, first_test_ms=int(tested.ts_ms.min()))
    common: dict[str, Any] = {
        "questions_max": min(options.questions_max, ROWS_MAX // min(settings.recommend.candidates_max, NEGATIVES_MAX)),
        "new_to_user": new_to_user,
        "without": left_out,
        "progress": lambda count: say("replaying", count / log.columns.records),
    }
    if alone:
        held_out = opened(valid, known=log.columns) if valid else None
        judgement = next_item.frozen(log, alone, clockwork, fit=fit, valid=held_out, **common)
        border_at = log.columns.records
    else:
        judgement = next_item.rolling(log, clockwork, border=border, fit=fit, **common)
        border_at = int(log.plan.at[border])
    facts: dict[str, Fact] = {
        "protocol": "next basket" if kind == "baskets" else "next item",
        "data": directory.name if test is None else f"{directory.name} -> {test.name}",
        "state": "frozen" if test and not roll else "rolling",
        "new to the user": new_to_user,
        **_learned(judgement, options, sum((each.refused for each in judged), Counter())),
    }
    return _report(judgement, log.columns, border_at=border_at, domain_of=settings, facts=facts)


def without(settings: Settings, options: Options) -> Settings:
    """The settings without the attributes that must not be looked at."""
    known = {attribute.name for attribute in settings.attributes}
    if unknown := sorted(set(options.without_attributes) - known):
        raise EvaluationError(f"no attribute named {unknown[0]!r}, there are {', '.join(sorted(known)) or 'none'}")
    kept = tuple(each for each in settings.attributes if each.name not in options.without_attributes)
    return msgspec.structs.replace(settings, attributes=kept)


def hashes(item_ids: tuple[str, ...]) -> Hashes | None:
    """uint64[n] of ids, None for none."""
    return np.array([hash64(item_id) for item_id in item_ids], np.uint64) if item_ids else None


class _Chain:
    """Several folders as one log, one after the other."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources

    def __iter__(self) -> Any:
        for source in self._sources:
            yield from source

    @property
    def refused(self) -> Counter[str]:
        """The dead letters of the last pass, by reason."""
        return sum((source.refused for source in self._sources), Counter())


def _clockwork(settings: Settings, options: Options, *, filters: tuple[str, ...] | list[str]) -> Replayer:
    asked = settings.recommend
    return Replayer(
        settings.domain,
        quotas=asked.quotas.shares,
        candidates_max=asked.candidates_max,
        filters=filters,
        k=asked.k,
        use_position=options.use_position,
    )


def _fit(
    clockwork: Replayer,
    options: Options,
    say: Say,
    *,
    first_test_ms: int,
    serve: Callable[[Callable[[Path], Path]], None] | None = None,
) -> Callable[..., Ranker]:
    """Makes the protocol's ranker out of rows; or, for `--model`, the artefact, refused where it has seen the test.

    `serve` gets what writes the ranker into a registry's folder.
    """

    def fit(rows: TrainingRows, held_out: TrainingRows | None = None) -> Ranker:
        say(f"training on {len(rows)} questions")
        try:
            fitted = fit_ranker(
                rows,
                clockwork.catalog,
                settings=options.training,
                held_out=held_out,
                progress=lambda turn: say(str(turn)),
            )
        except NotTrainable as error:
            raise EvaluationError(str(error)) from None
        if serve is not None:
            manifest = manifest_of(fitted, rows, clockwork.catalog, version=EVALUATED)
            serve(lambda folder: save(folder / EVALUATED, fitted.model, manifest))
        booster = lightgbm.Booster(model_str=fitted.model)
        return LightGBMRanker(booster, EVALUATED, clockwork.catalog.fingerprint, fitted.trees)

    def given(rows: TrainingRows, held_out: TrainingRows | None = None) -> Ranker:  # noqa: ARG001
        model = options.model or Path()
        ranker = _given(model, clockwork, first_test_ms)
        if serve is not None:
            serve(lambda folder: Path(copytree(model, folder / ranker.version)))
        return ranker

    return given if options.model else fit


def _given(model: Path, clockwork: Replayer, first_test_ms: int) -> Ranker:
    try:
        window = read_manifest(model).window
        if window.last_ts_ms >= first_test_ms:
            raise EvaluationError(f"{model}: was trained up to {window.last_ts_ms}, the test begins at {first_test_ms}")
        return load_ranker(model, clockwork.catalog)
    except ModelRefused as error:
        raise EvaluationError(f"{model}: {error.reason}") from None


def _learned(judgement: Judgement, options: Options, refused: Mapping[str, int]) -> dict[str, Fact]:
    """What ranked, what it learned from, and what of the log was no question, or no record at all."""
    facts: dict[str, Fact] = {"trained on": judgement.trained_on}
    if options.model is not None:
        facts = {"model": judgement.ranker.version}
    if isinstance(judgement.ranker, LightGBMRanker):
        chosen = judgement.ranker.booster.params
        facts |= {"trees": judgement.ranker.trees, **{name: chosen[name] for name in TUNED if name in chosen}}
    if judgement.dropped:
        facts["left out"] = [f"{count} {why}" for why, count in judgement.dropped.items()]
    if refused:
        facts["refused records"] = [f"{count} {why}" for why, count in sorted(refused.items())[:REASONS_MAX]]
    return facts


def _report(
    judgement: Judgement, columns: LogColumns, *, border_at: int, domain_of: Settings, facts: dict[str, Fact]
) -> Report:
    """Coverage is over all items of the log; popularity is that of its part before the test."""
    items = np.unique(np.concatenate([columns.actions.item, columns.lists.items]))
    yes, _ = positive(columns.actions, domain_of.domain, None)
    known, counts = np.unique(yes.item[yes.at < border_at], return_counts=True)
    popularity: tuple[Hashes, NDArray[np.int64]] = (known, counts)
    systems: list[Judged] = judgement.systems
    return report(systems, users=judgement.users, catalogue=items, popularity=popularity, seed=SEED, facts=facts)
