"""The truth: the input topics as the broker holds them at the end, replayed in memory, every partition in its order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from features.digest import digest
from features.schema import INPUT_TOPICS
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part
from pipeline.config import Settings
from pipeline.kafka.reading import Reader
from pipeline.kafka.slices import LogRecord
from pipeline.reading import read

BATCH = 500  # as a slice: one answer a user and slice would do, we ask for every trigger


@dataclass(slots=True)
class Truth:
    """What the log says: the state after all of it, who asked for an answer, what is to be refused."""

    store: MemoryStore
    state: State
    records: int = 0
    ends: dict[Part, int] = field(default_factory=dict)
    triggers: set[tuple[str, int, int]] = field(default_factory=set)  # user, partition, offset
    requests: set[str] = field(default_factory=set)
    refused: set[tuple[str, int, int]] = field(default_factory=set)  # topic, partition, offset

    def digest(self, settings: Settings) -> str:
        """The state's digest."""
        return digest(self.store, self.state.layout, settings.domain)


def the_truth(settings: Settings, *, whole: bool = True) -> Truth:
    """Reads the log back and replays it. Raises `RuntimeError` where a `whole` one does not begin at its first record."""
    logs: dict[Part, list[LogRecord]] = {}
    with Reader(settings.kafka, group="chaos-truth") as reader:
        for topic in INPUT_TOPICS:
            name = settings.kafka.topic_prefix + topic
            for message in reader.existing(name):
                record = LogRecord(message.offset(), message.timestamp()[1], message.key(), message.value())
                logs.setdefault(Part(name, message.partition()), []).append(record)
    for part, records in logs.items():
        if whole and records[0].offset:
            raise RuntimeError(f"{part}: the log begins at {records[0].offset}: no truth to hold the state against")
    return replayed(settings, logs)


def replayed(settings: Settings, logs: dict[Part, list[LogRecord]]) -> Truth:
    """The state after `logs`, applied in memory: items first, then what users saw and did."""
    store = MemoryStore()
    truth = Truth(store, State(store, settings.domain))
    prefix = settings.kafka.topic_prefix
    for topic in ("items", *(topic for topic in INPUT_TOPICS if topic != "items")):
        for part in sorted(part for part in logs if part.topic == prefix + topic):
            _replay(truth, settings, topic, part, logs[part])
    return truth


def _replay(truth: Truth, settings: Settings, topic: str, part: Part, records: list[LogRecord]) -> None:
    actions = {action.name: action for action in settings.actions}
    truth.state.resume(part, committed=None, log_start=records[0].offset)
    for some in _batches(records):
        found = read(topic, part, some, actions=actions, answer_from=0)
        truth.state.apply(part, found.facts, last=some[-1].offset)
        truth.refused.update((part.topic, part.partition, record.offset) for record, _ in found.refused)
    for record in records:  # one by one: `read` asks once a user and batch, here every trigger is wanted
        for ask in read(topic, part, [record], actions=actions, answer_from=0).asks:
            if topic == "user_actions":
                truth.triggers.add((ask.record.user_id, part.partition, ask.offset))
            else:
                truth.requests.add(ask.record.request_id)
    truth.records += len(records)
    truth.ends[part] = records[-1].offset + 1


def _batches(records: list[LogRecord]) -> Iterable[list[LogRecord]]:
    return (records[start : start + BATCH] for start in range(0, len(records), BATCH))
