"""What producers do: send twice, in any order, by two partitioners at once, and bytes that are no records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import NamedTuple
from zlib import crc32

from features.schema import DEAD_LETTERS, IMPRESSIONS, REQUESTS, USER_ACTIONS
from pipeline.config import Settings
from pipeline.kafka.reading import Reader
from tests.chaos.scenarios import Scenario, scenario
from tests.chaos.scenarios.workers import kills
from tests.chaos.stand import Setup
from tests.chaos.traffic import Post, Shape
from tests.chaos.truth import Truth
from tests.chaos.verdict import Difference, Verdict, judge
from tests.fuzz.mutations import mutated

PARTITIONS = 4
WINDOW = 40  # records that are shuffled among each other
AGAIN_WITHIN = 300
AGAIN = 0.15
CROSSED = 0.5
TWICE = 0.05
MUTATED = 0.5
MOVABLE = {USER_ACTIONS, IMPRESSIONS, REQUESTS}

# A user in two partitions is one without a promised order: what is forgotten, and which events are beyond the 256
# newest of a log, follows from the order. So nobody here is forgotten, and nobody acts that often.
MANY = Shape(users=20_000, heavy=0.0, forgets=0.0)


def repeated(random: Random, posts: Iterator[Post]) -> Iterator[Post]:
    """Each seventh record again, at once or later, some of them in another partition; all in windows out of order."""
    window: list[Post] = []
    for post in posts:
        window.append(post)
        if post.topic in MOVABLE and random.random() < AGAIN:
            place = random.randrange(PARTITIONS) if random.random() < 0.3 else -1
            window.insert(random.randrange(len(window) + 1), post._replace(partition=place))
        if len(window) > AGAIN_WITHIN:
            part = window[:WINDOW]
            random.shuffle(part)
            yield from part
            del window[:WINDOW]
    random.shuffle(window)
    yield from window


def crossed(random: Random, posts: Iterator[Post]) -> Iterator[Post]:
    """Half of the records by librdkafka's own partitioner (CRC32), the others by Java's; some by both at once."""
    for post in posts:
        if post.topic not in MOVABLE or post.key is None:
            yield post
            continue
        other = post._replace(partition=crc32(post.key) % PARTITIONS)
        dice = random.random()
        if dice < TWICE:
            yield from (post, other)
        else:
            yield other if dice < CROSSED else post


def broken(random: Random, posts: Iterator[Post]) -> Iterator[Post]:
    """Half of the records mutated in their bytes or their structure."""
    for post in posts:
        if post.value is not None and random.random() < MUTATED:
            yield post._replace(value=mutated(post.value, random.randrange(1 << 60)))
        else:
            yield post


def _none(random: Random, events: int) -> list[NamedTuple]:
    del random, events
    return []


def judge_letters(settings: Settings, truth: Truth) -> Verdict:
    """As usual, and each refused record has exactly one dead letter, an accepted one has none."""
    letters: Counter[tuple[str, int, int]] = Counter()
    with Reader(settings.kafka, group="chaos-letters") as reader:
        for message in reader.existing(settings.kafka.topic_prefix + DEAD_LETTERS):
            headers = dict(message.headers() or ())
            letters[headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])] += 1
    found = judge(settings, truth)
    wanted = Counter(truth.refused)
    too_much = letters - wanted
    examples = [json.dumps(at) for at in list(too_much)[:5]]
    found.views["letters"] = Difference((wanted - letters).total(), too_much.total(), examples)
    return found


scenario(
    Scenario(
        "producer_repeats",
        "a producer that repeats one record in seven, also into other partitions, and sends out of order; kills",
        kills,
        Setup(shape=MANY),
        rewrite=repeated,
    )
)
scenario(
    Scenario(
        "two_partitioners",
        "the same users through two partitions by two partitioners at once, two workers, kills",
        lambda random, events: kills(random, events, workers=2),
        Setup(workers=2, shape=MANY),
        rewrite=crossed,
    )
)
scenario(
    Scenario(
        "mutated",
        "half of all records mutated in bytes or structure: accepted, or exactly one dead letter",
        _none,
        Setup(shape=MANY),
        rewrite=broken,
        judge=judge_letters,
    )
)
