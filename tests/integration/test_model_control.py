"""A worker's reader of model_control on a real broker: from the start, at once, and whatever the broker does."""

import os
import signal
import time
import uuid
from dataclasses import dataclass

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from features.schema import MODEL_CONTROL
from pipeline.config import Kafka
from pipeline.kafka.topics import create, load_topics
from pipeline.model_control import REFUSED_TOLD_MAX, Follower, name_version, named
from recommender.model.registry import Registry
from tests.integration.worlds import wait

pytestmark = pytest.mark.services
FOLLOWED_S = 60  # a swap takes a blink; a broker that was stopped needs some seconds to be found again


@dataclass(frozen=True)
class Toy:
    """A ranker that only has a name."""

    version: str


@pytest.fixture
def opened():
    """The versions that were loaded, in order."""
    return []


@pytest.fixture
def registry(tmp_path, opened):
    """Versions v1 to v9, whose load only notes them."""
    for number in range(1, 10):
        (tmp_path / f"v{number}").mkdir()
    return Registry(tmp_path, lambda path: opened.append(path.name) or Toy(path.name))


@pytest.fixture
def follow(registry):
    """Starts a follower of the registry, and ends it."""
    running = []

    def start(settings):
        running.append(Follower(settings, registry, model="ranker", retry_s=0.1))
        running[-1].start()
        running[-1].start()  # as a worker does whose store is away at first
        running[-1].wait(FOLLOWED_S)
        return running[-1]

    yield start
    for follower in running:
        follower.stop()


def kafka(bootstrap):
    return Kafka(bootstrap=bootstrap, topic_prefix=f"c{uuid.uuid4().hex[:8]}.")


def make_topics(settings):
    declared = [each for each in load_topics(prefix=settings.topic_prefix) if each.name.endswith(MODEL_CONTROL)]
    admin = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    assert set(create(admin, declared).values()) == {"created"}


def name(settings, version, *, model="ranker"):
    name_version(settings, model, version, ts_ms=time.time_ns() // 1_000_000)


def await_version(registry, version):
    wait(lambda: registry.current() == Toy(version), FOLLOWED_S, lambda: f"{version}: {registry.serving}")


def test_of_a_long_history_only_the_newest_word_is_loaded_before_the_worker_begins(broker, registry, opened, follow):
    settings = kafka(broker)
    make_topics(settings)
    for number in range(1, 9):
        name(settings, f"v{number}")
    name(settings, "v9", model="another")
    name(settings, "v2", model="ranker.shadow")
    assert named(settings) == {"ranker": "v8", "another": "v9", "ranker.shadow": "v2"}
    follow(settings)
    assert (registry.current(), registry.shadow()) == (Toy("v8"), Toy("v2"))
    assert sorted(opened) == ["v2", "v8"]
    for version in ("v1", "v5"):
        name(settings, version)
        await_version(registry, version)
    name(settings, None)
    wait(lambda: registry.current() is None, FOLLOWED_S, lambda: str(registry.serving))
    assert registry.shadow() == Toy("v2")


def test_a_flood_of_broken_records_and_of_other_models_is_passed_over_in_few_words(broker, registry, follow):
    settings = kafka(broker)
    make_topics(settings)
    producer = Producer({"bootstrap.servers": settings.bootstrap})
    for number in range(500):
        other = orjson.dumps({"model": f"m{number}", "version": "v1", "ts_ms": 5})
        producer.produce(settings.topic_prefix + MODEL_CONTROL, other, f"m{number}")
        producer.produce(settings.topic_prefix + MODEL_CONTROL, b"{", b"ranker")
    producer.flush(FOLLOWED_S)
    name(settings, "v3")
    with capture_logs() as logs:
        follow(settings)
    assert registry.current() == Toy("v3")
    assert sum("is refused" in line["event"] for line in logs) == REFUSED_TOLD_MAX


def test_an_empty_topic_holds_nobody_up_and_a_missing_one_is_followed_once_it_is_there(broker, registry, follow):
    settings = kafka(broker)
    begun_s = time.monotonic()
    follow(settings)
    assert time.monotonic() - begun_s < FOLLOWED_S
    assert registry.current() is None
    make_topics(settings)
    name(settings, "v1")
    await_version(registry, "v1")


def test_a_broker_that_stands_still_leaves_the_model_and_is_followed_again(own_servers, registry, follow):
    servers = own_servers(redis=False)
    settings = kafka(servers.bootstrap)
    make_topics(settings)
    name(settings, "v1")
    follow(settings)
    assert registry.current() == Toy("v1")
    os.kill(servers.pids["broker"], signal.SIGSTOP)
    try:
        time.sleep(3)
        assert registry.current() == Toy("v1")
    finally:
        os.kill(servers.pids["broker"], signal.SIGCONT)
    name(settings, "v2")
    await_version(registry, "v2")
