"""The traffic is what its seed says, and has something of everything that a log can hold."""

from collections import Counter

import msgspec
import pytest

from features.schema import IMPRESSIONS, ITEMS, REQUESTS, USER_ACTIONS
from tests.chaos.traffic import Traffic

BASE_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def posts():
    return list(Traffic(3, 20_000, BASE_MS).records())


def test_one_seed_gives_one_log(posts):
    assert posts == list(Traffic(3, 20_000, BASE_MS).records())
    assert posts != list(Traffic(4, 20_000, BASE_MS).records())


def test_a_minority_asks_for_an_answer(posts):
    actions = [post for post in posts if post.topic == USER_ACTIONS and post.value and b'"action"' in post.value]
    clicks = sum(b'"click"' in post.value for post in actions)
    assert 0.07 < clicks / len(actions) < 0.13


def test_there_are_repeats_late_ones_and_forgotten_users_who_come_back(posts):
    events = Counter(post.value for post in posts if post.topic == USER_ACTIONS and post.value)
    assert max(events.values()) > 1
    forgotten = {post.key for post in posts if post.topic == USER_ACTIONS and post.value is None}
    assert len(forgotten) > 10
    last = {post.key: number for number, post in enumerate(posts) if post.topic == USER_ACTIONS and post.value}
    first = {post.key: number for number, post in reversed(list(enumerate(posts))) if post.value is None}
    assert any(last.get(user, -1) > first[user] for user in forgotten)
    assert not any(post.key in forgotten for post in posts if post.topic in (IMPRESSIONS, REQUESTS))
    times = [msgspec.json.decode(post.value)["ts_ms"] for post in posts if post.value and b'"event_id":"e1' in post.value and post.value.endswith(b"}")]  # fmt: skip
    assert min(times) < BASE_MS - 3_600_000


def test_every_input_topic_gets_some(posts):
    assert {post.topic for post in posts} == {USER_ACTIONS, IMPRESSIONS, ITEMS, REQUESTS}
