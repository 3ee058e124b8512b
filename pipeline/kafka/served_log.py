"""Training rows from the topics: what was served, shown and acted on, read from Kafka by a plain consumer.

It joins no group and commits nothing. `served_features` is read twice: once for what was served, once for the bytes of
the lists that have a label. Each topic is read to where it ends when the reader gets there, served lists first, so that
whatever labels them is read after them.
"""

from __future__ import annotations

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

Say = Callable[[str], None]


def served_rows(
    settings: Settings,
    catalog: Catalog,
    *,
    lists_max: int,
    since_ms: int = 0,
    after_ms: int = 0,
    progress: Say | None = None,
) -> TrainingRows:
    """The newest `lists_max` labelled lists as they were served, of event time above `after_ms`, oldest first.

    since_ms: what the broker took before it is not read. progress is told every 1 000 records what is read. Raises
    `ConfigError` for a missing topic, or where no action is configured.
    """
    require_actions(settings)
    with Reader(settings.kafka) as reader:
        log = _Log(reader, settings, since_ms, progress)
        served = newest_served(log.served(), features_hash=catalog.fingerprint, rows_max=ROWS_MAX, after_ms=after_ms)
        seen = shown(served, log.impressions())
        done = acted(log.actions(), settings.domain, actions_max=ACTIONS_MAX)
        choice = labelled(served, seen, done, settings.domain, lists_max=lists_max)
        return stacked(choice, log.served(choice.picked), columns=len(catalog.names))


class _Log:
    """The three topics, as the join wants them, through one reader."""

    def __init__(self, reader: Reader, settings: Settings, since_ms: int, progress: Say | None) -> None:
        self._reader, self._since_ms, self._progress = reader, since_ms, progress
        self._prefix = settings.kafka.topic_prefix
        self._actions = {action.name: action for action in settings.actions}

    def served(self, places: Mapping[tuple[int, int], object] | None = None) -> Iterator[LogEntry]:
        """The served records; those of some (partition, offset) and what follows them, where they are given."""
        for message in self._messages(SERVED_FEATURES, None if places is None else _first(places)):
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
        for message in self._messages(topic, None):
            logged_ms = message.timestamp()[1]
            record = LogRecord(message.offset() or 0, logged_ms, message.key(), message.value())
            part = Part(topic, message.partition() or 0)
            for fact in read(topic, part, [record], actions=self._actions, answer_from=0).facts:
                yield logged_ms, fact.record

    def _messages(self, topic: str, starts: Mapping[int, int] | None) -> Iterator[Message]:
        name = self._prefix + topic
        if starts is None:
            starts = self._reader.starts(name, since_ms=self._since_ms)
        for count, message in enumerate(self._reader.to_end(name, starts), start=1):
            if self._progress is not None and count % PROGRESS_EVERY == 0:
                self._progress(f"{topic}: {count} records read")
            # the broker may name an offset from before the time that it was asked for (Tansu does, past its end)
            if message.timestamp()[1] >= self._since_ms:
                yield message


def _first(places: Mapping[tuple[int, int], object]) -> dict[int, int]:
    """By partition the first of some offsets."""
    first: dict[int, int] = {}
    for partition, offset in places:
        first[partition] = min(offset, first.get(partition, offset))
    return first
