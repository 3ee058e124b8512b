"""A served recommendation again from its logged rows: found by rec_id, scored by the very model, compared to the bit.

The rec_id names the record that caused it, but `served_features` is keyed by the user, so both output topics are read
from start to end (a plain consumer, no group). A crash can have published one rec_id several times: each served record
is compared with the recommendation of the same model and the same items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.schema import RECOMMENDATIONS, SERVED_FEATURES, Recommendation
from pipeline.config import ConfigError
from pipeline.kafka.reading import Reader
from recommender.effort import POPULAR
from recommender.model.artefact import ModelRefused, load, read_manifest
from recommender.model.registry import versions
from recommender.ranker import Cascade, LightGBMRanker
from recommender.recommend import NO_VERSION
from recommender.served import Served, Unpacked, recompute, unpack

REPEATS_MAX = 100  # of one rec_id: a worker that crashed so often is another matter
SHOW_EVERY = 1_000

_RECOMMENDATION = msgspec.json.Decoder(Recommendation)
Progress = Callable[[str, int], None]  # (topic, records read)


class ItemCheck(NamedTuple):
    """One logged row. recomputed: None where the candidate sources ranked; published: None where it was not shown, or
    the topic holds the recommendation no more.
    """

    item_id: str
    shown: bool
    logged: float
    recomputed: float | None
    published: float | None

    @property
    def equal(self) -> bool:
        """Whether every score there is has the very bits of the logged one."""
        others = (self.recomputed, self.published)
        return all(other is None or other.hex() == self.logged.hex() for other in others)


@dataclass(frozen=True, slots=True)
class Check:
    """One served record. `published`: the recommendations of the rec_id on the topic, and whether one has its content.
    strangers: how many of them have the content of no served record.
    """

    served: Served
    items: list[ItemCheck]
    published: int
    is_published: bool
    strangers: int

    @property
    def equal(self) -> bool:
        """Nothing differs. A recommendation that is not on the topic, no more or never since a crash came between,
        differs from nothing; one there that no served record accounts for is a difference.
        """
        return all(item.equal for item in self.items) and (self.is_published or not self.strangers)

    def report(self) -> dict[str, Any]:
        """As JSON tells it; doubles are written so that they read back to the bit."""
        record = self.served
        fields = ("rec_id", "user_id", "ts_ms", "model_version", "features_hash", "cascade_trees", "backlog")
        return {
            **{field: getattr(record, field) for field in fields},
            "published": self.published,
            "is_published": self.is_published,
            "equal": self.equal,
            "items": [{**item._asdict(), "equal": item.equal} for item in self.items],
        }


def find(
    reader: Reader, *, prefix: str, rec_id: str, progress: Progress
) -> tuple[list[Unpacked], list[Recommendation]]:
    """Every served record and every recommendation of `rec_id`. Raises `ConfigError` where there is no served one."""
    answers = (_recommendation(raw) for raw in _holding(reader, prefix + RECOMMENDATIONS, rec_id, progress))
    published = [answer for answer in answers if answer is not None and answer.rec_id == rec_id]
    rows = (_unpacked(raw) for raw in _holding(reader, prefix + SERVED_FEATURES, rec_id, progress))
    records = list(islice((each for each in rows if each.served.rec_id == rec_id), REPEATS_MAX))
    if records:
        return records, published
    if any(map(_is_unscored, published)):
        raise ConfigError(
            f"{rec_id}: answered under overload with popular items: nothing was scored, no row was logged"
        )
    if any(not answer.items for answer in published):
        raise ConfigError(f"{rec_id}: its recommendation showed nothing, so no row was logged")
    told = "on recommendations only" if published else "neither there nor on recommendations"
    raise ConfigError(f"{rec_id}: not on {prefix}{SERVED_FEATURES} ({told}): a wrong id, or older than the topic keeps")


def checks(records: Sequence[Unpacked], published: Sequence[Recommendation], *, models: Path) -> list[Check]:
    """Compares each served record of one rec_id with the recomputed scores and with its recommendation.

    `models`: the folder of the model's versions. Raises `ConfigError` where a version is not there or is refused.
    """
    strangers = sum(
        not _is_unscored(answer) and not any(_is_of(each, answer) for each in records) for answer in published
    )
    return [_check(each, published, strangers, models=models) for each in records]


def _check(unpacked: Unpacked, published: Sequence[Recommendation], strangers: int, *, models: Path) -> Check:
    served = unpacked.served
    recomputed: NDArray[np.float64] | None = None
    if served.model_version != NO_VERSION:
        recomputed = recompute(unpacked, serving_model(served, models))
    twin = _twin(unpacked, published)
    items = [
        ItemCheck(
            item_id,
            place < served.shown,
            float(unpacked.scores[place]),
            None if recomputed is None else float(recomputed[place]),
            twin.items[place].score if twin and place < served.shown else None,
        )
        for place, item_id in enumerate(served.item_ids)
    ]
    return Check(served, items, len(published), twin is not None, strangers)


def serving_model(served: Served, models: Path) -> LightGBMRanker:
    """The very model that a record names, with its cascade. Raises `ConfigError`."""
    version = served.model_version
    if version not in versions(models):  # a record must not name a path
        raise ConfigError(f"{models}: no version {version!r}, which scored {served.rec_id}")
    try:
        manifest = read_manifest(models / version)
        columns = Columns(tuple(manifest.feature_names), manifest.features_hash, tuple(manifest.categorical))
        if (manifest.features_hash, len(columns.names)) != (served.features_hash, served.columns):
            raise ConfigError(
                f"{models / version}: features {manifest.features_hash}, the record's {served.features_hash}"
            )
        cascade = Cascade(served.cascade_trees, keep=0) if served.cascade_trees else None
        return load(models / version, columns, cascade=cascade)
    except ModelRefused as error:
        raise ConfigError(f"{models / version}: {error.reason}") from None


class Columns(NamedTuple):
    """The features a model was trained on, by its own manifest: today's configuration may have others."""

    names: tuple[str, ...]
    fingerprint: str
    categorical: tuple[int, ...]


def _is_unscored(answer: Recommendation) -> bool:
    """Whether it has no rows because nothing was scored."""
    return POPULAR.cause in (answer.cause or "").split("; ")


def _twin(unpacked: Unpacked, published: Sequence[Recommendation]) -> Recommendation | None:
    """The recommendation of the same model and items; of several the one whose scores are the logged ones."""
    scores = unpacked.scores[: unpacked.served.shown].tolist()
    twins = [each for each in published if _is_of(unpacked, each)]
    return next((twin for twin in twins if [item.score for item in twin.items] == scores), twins[0] if twins else None)


def _is_of(unpacked: Unpacked, answer: Recommendation) -> bool:
    """Whether a recommendation has the model and the shown items of a served record."""
    served = unpacked.served
    shown = served.item_ids[: served.shown]
    return answer.model.version == served.model_version and [item.item_id for item in answer.items] == shown


def _recommendation(raw: bytes) -> Recommendation | None:
    """None for a record that is no recommendation: others may write to the topic."""
    try:
        return _RECOMMENDATION.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _unpacked(raw: bytes) -> Unpacked:
    try:
        return unpack(raw)
    except ValueError as error:
        raise ConfigError(f"{SERVED_FEATURES}: {error}") from None


def _holding(reader: Reader, topic: str, text: str, progress: Progress) -> Iterator[bytes]:
    """The records of a topic that hold `text` somewhere; read whole, kept none."""
    wanted = text.encode()
    for count, message in enumerate(reader.existing(topic), 1):
        if count % SHOW_EVERY == 0:
            progress(topic, count)
        raw = message.value()
        if raw is not None and wanted in raw:
            yield raw
