"""The traffic: which records trigger an answer, what the shop's past looks like, and that the plan's parts fit."""

from collections import deque

import msgspec
import numpy as np
import pytest

from features.schema import (
    ITEMS,
    REQUESTS,
    USER_ACTIONS,
    Impression,
    Item,
    ModelRef,
    Recommendation,
    RecommendationRequest,
    RecommendedItem,
    UserAction,
    decode,
)
from pipeline.dataset import Row, read
from pipeline.demo.plan import dataset, simulated
from pipeline.demo.settings import SHOP
from pipeline.demo.shoppers import Shop
from pipeline.demo.traffic import WARM_UP_SPAN_MS, Judge, live, past, recorded
from pipeline.demo.world import World
from pipeline.initialise import settings_of

NOW = 1_700_000_000_000


@pytest.fixture
def judge():
    return Judge(settings_of(SHOP).domain)


def action(event_id="e1", name="click", ts_ms=NOW):
    return UserAction(event_id, "u1", "p1", name, ts_ms)


def test_a_configured_action_triggers_and_so_does_its_repeat(judge):
    assert judge.post(action()).user_id == "u1"
    assert judge.post(action()).user_id == "u1"


def test_an_action_that_nobody_configured_triggers_nothing(judge):
    assert judge.post(action(name="teleport")).user_id is None


def test_items_and_impressions_trigger_nothing_and_a_request_always_does(judge):
    assert judge.post(Item("p1", NOW)).user_id is None
    assert judge.post(Impression("i1", "u1", ["p1"], NOW)).user_id is None
    request = judge.post(RecommendationRequest("r1", "u1", NOW))
    assert (request.topic, request.user_id, request.request_id) == (REQUESTS, "u1", "r1")


def test_records_are_keyed_as_the_contract_says(judge):
    assert judge.post(action()).key == b"u1"
    assert judge.post(Item("p1", NOW)).key == b"p1"


@pytest.mark.parametrize(
    "raw", [b"{", b'{"event_id": 1}', msgspec.json.encode(action(ts_ms=NOW + 10 * 60_000)), b'{"item_id": "\\u0000"}']
)
def test_what_will_be_refused_is_published_as_it_is_and_triggers_nothing(judge, raw):
    post = judge.post_of_row(Row(USER_ACTIONS, raw, NOW), log_ts_ms=NOW)
    assert (post.raw, post.user_id, post.key) == (raw, None, None)


def test_titles_are_learned_from_the_catalogue(judge):
    judge.post(Item("p1", NOW, attributes={"title": "Kettle"}))
    judge.post(Item("p2", NOW, attributes={"title": 3.0}))
    assert judge.titles == {"p1": "Kettle"}


def test_the_past_begins_with_the_catalogue_and_ends_before_now(judge):
    rng = np.random.default_rng(1)
    shop = Shop(World(rng), rng)
    posts = list(past(shop, judge, records=500, now_ms=NOW))
    records = [decode(post.topic, post.raw) for post in posts]
    assert all(isinstance(record, Item) for record in records[:600])
    stamps = [record.ts_ms for record in records]
    assert stamps == sorted(stamps)
    assert stamps[0] >= NOW - WARM_UP_SPAN_MS
    assert stamps[-1] <= NOW


def test_live_traffic_shows_what_came_in_and_never_steps_back_in_time(judge):
    rng = np.random.default_rng(1)
    shop = Shop(World(rng), rng)
    clock = iter(range(NOW + 100_000, NOW, -1))
    inbox = deque()
    posts = live(shop, judge, inbox, lambda: next(clock))
    seen = []
    for _ in range(1500):
        post = next(posts)
        record = decode(post.topic, post.raw)
        seen.append(record)
        if isinstance(record, UserAction):
            items = [RecommendedItem(f"p{number:05d}", 1.0, "new") for number in range(10)]
            ref = ModelRef("none", "")
            inbox.append(Recommendation(f"r-{record.event_id}", record.user_id, 0, items, ref, "partial", 0, 0.0))
    stamps = [record.ts_ms for record in seen]
    assert stamps == sorted(stamps)
    assert any(isinstance(record, Impression) and record.rec_id for record in seen)


def test_a_log_keeps_its_order_and_its_bytes(judge):
    rows = [Row(ITEMS, msgspec.json.encode(Item("p1", NOW)), NOW), Row(USER_ACTIONS, b"broken", NOW)]
    assert [(post.topic, post.raw) for post in recorded(rows, judge, lambda: NOW)] == [row[:2] for row in rows]


def test_the_shops_sample_is_a_data_set_that_init_understands(tmp_path):
    plan = simulated(seed=1, rate=None, warm_up=800)
    counts = plan.sample(tmp_path / "sample")
    rows = list(read(tmp_path / "sample"))
    assert len(rows) == sum(counts.values())
    again = dataset(tmp_path / "sample", rate=None)
    assert [action.name for action in settings_of(again.meaning).actions] != []
    (phase,) = again.phases(deque())
    assert [post.raw for post in phase.posts] == [row.raw for row in rows]


def test_a_folders_own_worker_toml_says_what_it_means(tmp_path):
    simulated(seed=1, rate=None, warm_up=100).sample(tmp_path / "sample")
    (tmp_path / "sample" / "worker.toml").write_text(SHOP + '\n[kafka]\nbootstrap = "elsewhere:9092"\n')
    plan = dataset(tmp_path / "sample", rate=None)
    assert plan.settings.domain == settings_of(SHOP).domain
