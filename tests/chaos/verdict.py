"""The state and the outputs against the truth, in numbers: what is lost, what counted twice, who got no answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from features import user_log
from features.digest import digest
from features.rings import unpack
from features.schema import DEAD_LETTERS, RECOMMENDATIONS, Recommendation
from features.store.port import FeatureStore
from features.store.redis import RedisStore
from pipeline.config import Settings
from pipeline.kafka.reading import Reader
from tests.chaos.truth import Truth

EXAMPLES_MAX = 5
Counts = Mapping[str, Counter[str]]  # entity -> what it holds, how often


@dataclass(slots=True)
class Difference:
    """Of one view: how much the state holds too little and too much, and where for example."""

    lost: int = 0
    doubled: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lost` and `doubled` are the greatest of the views': events missing from, or too much in, the users' logs, the
    items' lifetime counts, the counters. `repeats`: recommendations that came again under a known rec_id (allowed).
    """

    digest_equal: bool
    views: dict[str, Difference]
    unanswered: list[str]
    letters_missing: int
    repeats: int
    answers: int
    levels: dict[str, int]

    @property
    def lost(self) -> int:
        return max(view.lost for view in self.views.values())

    @property
    def doubled(self) -> int:
        return max(view.doubled for view in self.views.values())

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return self.digest_equal and not (self.lost or self.doubled or self.unanswered or self.letters_missing)

    def said(self) -> list[str]:
        """What is wrong, in lines."""
        lines = [] if self.digest_equal else ["the digests differ"]
        for name, view in self.views.items():
            if view.lost or view.doubled:
                lines.append(f"{name}: {view.lost} lost, {view.doubled} too much, e.g. {'; '.join(view.examples)}")
        if self.unanswered:
            lines.append(f"{len(self.unanswered)} unanswered, e.g. {'; '.join(self.unanswered[:EXAMPLES_MAX])}")
        if self.letters_missing:
            lines.append(f"{self.letters_missing} refused records have no dead letter")
        return lines


def judge(settings: Settings, truth: Truth) -> Verdict:
    """Reads state and outputs now; nothing may move meanwhile."""
    store = open_store(settings)
    layout = store.open(settings.domain)
    try:
        answers = answers_of(settings)
        return Verdict(
            digest_equal=digest(store, layout, settings.domain) == truth.digest(settings),
            views={
                "users": _compared(_users(truth.store), _users(store)),
                "items": _compared(_items(truth), _items_of(store, len(layout.columns))),
                "counters": _compared(_counters(truth.store), _counters(store)),
            },
            unanswered=unanswered(truth, answers),
            letters_missing=len(truth.refused - _letters(settings)),
            repeats=len(answers) - len({answer.rec_id for answer in answers}),
            answers=len(answers),
            levels=dict(Counter(answer.level for answer in answers)),
        )
    finally:
        store.close()


def open_store(settings: Settings) -> RedisStore:
    """The run's store."""
    redis = settings.redis
    return RedisStore(redis.url, app=redis.app, shards=redis.shards, timeout_ms=10_000)


def unanswered(truth: Truth, answers: list[Recommendation]) -> list[str]:
    """Triggers without an answer at the same or a later offset of their user and partition, and requests without one."""
    newest: dict[tuple[str, int], int] = {}
    asked = set()
    for answer in answers:
        if answer.request_id is not None:
            asked.add(answer.request_id)
        elif answer.trigger is not None:
            at = answer.user_id, answer.trigger.partition
            newest[at] = max(newest.get(at, -1), answer.trigger.offset)
    open_ones = [
        f"{user} partition {partition} offset {offset}"
        for user, partition, offset in sorted(truth.triggers)
        if newest.get((user, partition), -1) < offset
    ]
    return open_ones + [f"request {name}" for name in sorted(truth.requests - asked)]


def answers_of(settings: Settings) -> list[Recommendation]:
    """Everything on `recommendations`."""
    decoder = msgspec.json.Decoder(Recommendation)
    with Reader(settings.kafka, group="chaos-verdict") as reader:
        name = settings.kafka.topic_prefix + RECOMMENDATIONS
        return [decoder.decode(message.value() or b"") for message in reader.existing(name)]


def _letters(settings: Settings) -> set[tuple[str, int, int]]:
    found = set()
    with Reader(settings.kafka, group="chaos-verdict") as reader:
        for message in reader.existing(settings.kafka.topic_prefix + DEAD_LETTERS):
            headers = dict(message.headers() or ())
            found.add((headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])))
    return found


def _compared(wanted: Counts, found: Counts) -> Difference:
    difference = Difference()
    for name in sorted(wanted.keys() | found.keys()):
        too_little = wanted.get(name, Counter()) - found.get(name, Counter())
        too_much = found.get(name, Counter()) - wanted.get(name, Counter())
        difference.lost += too_little.total()
        difference.doubled += too_much.total()
        if (too_little or too_much) and len(difference.examples) < EXAMPLES_MAX:
            few = {key: -count for key, count in too_little.most_common(2)} | dict(too_much.most_common(2))
            difference.examples.append(f"{name} {few}")
    return difference


def _users(store: FeatureStore) -> Counts:
    """The events in each user's log."""
    found = {}
    for name, blob in store.scan("u"):
        actions, impressions, _ = user_log.sections(blob)
        hashes = np.concatenate([actions["event"], impressions["event"]])
        found[name] = Counter(bytes(each).hex() for each in hashes)
    return found


def _items(truth: Truth) -> Counts:
    return _items_of(truth.store, len(truth.state.layout.columns))


def _items_of(store: FeatureStore, columns: int) -> Counts:
    """The lifetime counts of each item and of the world, by column."""
    scanned = [*store.scan("i"), *(("world", ring) for _, ring in store.scan("g"))]
    rings = unpack([ring for _, ring in scanned], columns=columns)
    return {
        rings.ids[row] or name: Counter({f"column {at}": int(n) for at, n in enumerate(rings.lifetime[row]) if n})
        for row, (name, _) in enumerate(scanned)
    }


def _counters(store: FeatureStore) -> Counts:
    """How many records of each topic the state has accounted for, however it took them."""
    found: dict[str, Counter[str]] = {}
    for counter, count in store.counts().items():
        kind, _, topic = counter.partition(":")
        found.setdefault(topic, Counter())[kind] += count
    return found


Judge = Callable[[Settings, Truth], Verdict]
