"""Training rows from the topics: what was served, shown and acted on, read from Kafka by a plain consumer.

It joins no group and commits nothing. `served_features` is read twice: once for what was served, once for the bytes of
the lists that have a label. Each topic is read to where it ends when the reader gets there, served lists first, so that
whatever labels them is read after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Message

from features.catalog import Catalog
from features.facts import Forget
from features.schema import IMPRESSIONS, SERVED_FEATURES, USER_ACTIONS, Impression, UserAction
from features.store.port import Part
from pipeline.config import Settings, require_actions
from pipeline.kafka.reading import Reader
from pipeline.kafka.slices import LogRecord
from pipeline.reading import read
from recommender.model.rows import TrainingRows
from recommender.model.served_lists import LogEntry, acted, newest_served, shown
from recommender.model.served_rows import labelled, stacked

ROWS_MAX = 10_000_000  # ids of shown rows held at once: 8 bytes each, and some 500 bytes a list
ACTIONS_MAX = 4_000_000  # 64 bytes each
PROGRESS_EVERY = 1_000


class ServedLog:
    """The topics `served_features`, `impressions` and `user_actions` through one reader; a context manager.

    since_ms: what the broker took before it is not read. progress is told every 1 000 records what is read. `records`
    counts what was read (the bytes of labelled lists, read again, once), `refused` the dead letters by reason.
    """

    def __init__(self, settings: Settings, *, since_ms: int = 0, progress: Callable[[str], None] | None = None) -> None:
        self.settings = require_actions(settings)
        self.records = 0
        self.refused: Counter[str] = Counter()
        self._since_ms, self._progress = since_ms, progress
        self._actions = {action.name: action for action in settings.actions}
        self._reader = Reader(settings.kafka)

    def __enter__(self) -> ServedLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.__exit__(*exc)

    def served(self, places: Mapping[tuple[int, int], object] | None = None) -> Iterator[LogEntry]:
        """The served records; those of some (partition, offset) and what follows them, where they are given."""
        for message in self._messages(SERVED_FEATURES, again=None if places is None else _first(places)):
            yield LogEntry(message.partition() or 0, message.offset() or 0, message.timestamp()[1], message.value())

    def impressions(self) -> Iterator[Impression]:
        """The impressions that a worker takes."""
        for _, record in self._facts(IMPRESSIONS):
            if isinstance(record, Impression):
                yield record

    def actions(self) -> Iterator[tuple[int, UserAction | Forget]]:
        """What a worker takes of actions, with the time at which the broker took each."""
        for logged_ms, record in self._facts(USER_ACTIONS):
            if isinstance(record, UserAction | Forget):
                yield logged_ms, record

    def _facts(self, topic: str) -> Iterator[tuple[int, object]]:
        for message in self._messages(topic):
            logged_ms = message.timestamp()[1]
            record = LogRecord(message.offset() or 0, logged_ms, message.key(), message.value())
            part = Part(topic, message.partition() or 0)
            found = read(topic, part, [record], actions=self._actions, answer_from=0)
            self.refused.update(f"{error.field}: {error.reason}" for _, error in found.refused)
            for fact in found.facts:
                yield logged_ms, fact.record

    def _messages(self, topic: str, *, again: Mapping[int, int] | None = None) -> Iterator[Message]:
        name = self.settings.kafka.topic_prefix + topic
        starts = self._reader.starts(name, since_ms=self._since_ms) if again is None else again
        for count, message in enumerate(self._reader.to_end(name, starts), start=1):
            if self._progress is not None and count % PROGRESS_EVERY == 0:
                self._progress(f"{topic}: {count} records read")
            # the broker may name an offset from before the time that it was asked for (Tansu does, past its end)
            if message.timestamp()[1] >= self._since_ms:
                self.records += again is None
                yield message


def served_rows(log: ServedLog, catalog: Catalog, *, lists_max: int, after_ms: int = 0) -> TrainingRows:
    """The newest `lists_max` labelled lists as they were served, of event time above `after_ms`, oldest first.

    Raises `ConfigError` for a missing topic.
    """
    domain = log.settings.domain
    served = newest_served(log.served(), features_hash=catalog.fingerprint, rows_max=ROWS_MAX, after_ms=after_ms)
    seen = shown(served, log.impressions())
    done = acted(log.actions(), domain, actions_max=ACTIONS_MAX)
    choice = labelled(served, seen, done, domain, lists_max=lists_max)
    return stacked(choice, log.served(choice.picked), columns=len(catalog.names))


def _first(places: Mapping[tuple[int, int], object]) -> dict[int, int]:
    """By partition the first of some offsets."""
    first: dict[int, int] = {}
    for partition, offset in places:
        first[partition] = min(offset, first.get(partition, offset))
    return first
