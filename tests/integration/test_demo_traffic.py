"""Traffic and answers on the embedded broker: every record is booked where it landed, answers are followed."""

import time
from collections import deque

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from features.schema import INPUT_TOPICS, RECOMMENDATIONS, USER_ACTIONS, ModelRef, Recommendation, Trigger
from pipeline.dataset import Writer, read
from pipeline.demo.answers import Answers
from pipeline.demo.ledger import Ledger
from pipeline.demo.plan import simulated
from pipeline.demo.traffic import Traffic, producer
from pipeline.embedded import embedded

pytestmark = pytest.mark.services


@pytest.fixture
def bootstrap(wheels, tmp_path):
    with embedded(tmp_path / "servers", redis=False) as servers:
        yield with_topics(servers)


def with_topics(servers):
    admin = AdminClient({"bootstrap.servers": servers.bootstrap, "log_level": 0})
    for done in admin.create_topics([NewTopic(topic, 2, 1) for topic in (*INPUT_TOPICS, RECOMMENDATIONS)]).values():
        done.result(10)
    return servers.bootstrap


def wait(condition, within_s=60.0):
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_what_is_published_is_booked_and_kept(bootstrap, tmp_path):
    ledger, phases = Ledger(), simulated(seed=3, rate=None, warm_up=300).phases(deque())
    with Writer(tmp_path / "kept") as keep:
        traffic = Traffic(producer(bootstrap), ledger, phases[:1], backlog=lambda: 0, settled=lambda: True, keep=keep)
        traffic.start()
        assert traffic.done.wait(30)
        traffic.join(5)
    assert traffic.error is None
    totals = ledger.totals()
    assert totals.published == traffic.sent == sum(end + 1 for end in ledger.ends().values())
    assert totals.failed == 0
    kept = list(read(tmp_path / "kept"))
    requests = sum(count for topic, count in ledger.published_by_topic().items() if topic == INPUT_TOPICS[3])
    assert len(kept) == totals.published - requests


def test_the_live_phase_keeps_its_rate_and_ends_when_told(bootstrap):
    ledger, phases = Ledger(), simulated(seed=3, rate=100.0, warm_up=10).phases(deque())
    traffic = Traffic(producer(bootstrap), ledger, phases[1:], backlog=lambda: 0, settled=lambda: True)
    traffic.start()
    time.sleep(2.0)
    traffic.stop()
    assert traffic.done.wait(60)
    assert 120 <= ledger.totals().published <= 210


def test_a_full_backlog_holds_the_traffic_back(bootstrap):
    ledger, phases = Ledger(), simulated(seed=3, rate=None, warm_up=200).phases(deque())
    room = [0]
    traffic = Traffic(
        producer(bootstrap), ledger, phases[:1], backlog=lambda: 0 if room[0] else 10**6, settled=lambda: True
    )
    traffic.start()
    time.sleep(0.5)
    assert traffic.sent == 0
    room[0] = 1
    assert traffic.done.wait(60)
    assert traffic.sent >= 800


def test_answers_are_followed_from_the_beginning_and_booked_once(bootstrap):
    out = producer(bootstrap)
    for offset in (0, 0, 1):
        answer = Recommendation(
            rec_id=f"user_actions-0-{offset}-abcd",
            user_id="u1",
            ts_ms=0,
            items=[],
            model=ModelRef("v1", ""),
            level="full",
            event_age_ms=0,
            latency_ms=0.0,
            trigger=Trigger(USER_ACTIONS, 0, offset, 0),
        )
        out.produce(RECOMMENDATIONS, msgspec.json.encode(answer), key=b"u1")
    assert out.flush(10) == 0
    ledger = Ledger()
    answers = Answers(bootstrap, ledger, partitions=2)
    answers.start()
    try:
        wait(lambda: ledger.totals().recommendations == 2)
        wait(lambda: ledger.totals().repeats == 1)
    finally:
        answers.stop()
    assert answers.error is None
    assert [answer.rec_id[-6:] for answer in answers.inbox] == ["0-abcd", "1-abcd"]
    assert answers.first_full_at_s is not None
