"""The order of a shown or given list is the position it was shown at: without leave to use it, nothing may know it."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.domain import Action, Attribute, Context, Domain
from features.schema import (
    IMPRESSIONS,
    ITEMS,
    REQUESTS,
    USER_ACTIONS,
    Impression,
    Item,
    RecommendationRequest,
    UserAction,
)
from recommender.model.labels import training_rows
from recommender.model.log_columns import read_columns
from recommender.model.plan import plan
from recommender.replay import Replayer, replay

START_MS = 1_700_000_000_000
DOMAIN = Domain(
    actions=(Action("view"), Action("buy", weight=3, purchase=True), Action("hide", negative=True)),
    attributes=(
        Attribute("size", "number"),
        Attribute("tags", "set", candidates=True),
        Attribute("brand", "category", candidates=True, rate=True),
    ),
    context=(Context("device", "category"),),
    item_context=("price",),
)


def shop(random, *, records=24, items=9):
    """A random log: items with some attributes missing, lists with repeated items and missing prices, actions, requests."""
    catalogue = [f"i{number}" for number in range(items)]
    log = []
    for number in range(records):
        ts_ms, user = START_MS + number * int(random.integers(1, 900_000)), f"u{random.integers(4)}"
        kind = random.choice([ITEMS, IMPRESSIONS, USER_ACTIONS, REQUESTS], p=[0.2, 0.35, 0.35, 0.1])
        shown = [str(item) for item in random.choice(catalogue, random.integers(1, 9))]
        prices = [None if random.random() < 0.2 else round(float(random.uniform(0, 9)), 2) for _ in shown]
        if kind == ITEMS:
            tags = [f"t{tag}" for tag in random.permutation(6)[: random.integers(0, 5)]]
            attributes = {"size": float(random.uniform(-1, 1)), "tags": tags, "brand": f"b{random.integers(3)}"}
            kept = {name: value for name, value in attributes.items() if random.random() < 0.8}
            record = Item(shown[0], ts_ms, attributes=kept)
        elif kind == IMPRESSIONS:
            record = Impression(f"m{number}", user, shown, ts_ms, item_context={"price": prices})
        elif kind == USER_ACTIONS:
            action = str(random.choice(["view", "view", "buy", "hide"]))
            record = UserAction(f"e{number}", user, shown[0], action, ts_ms)
        else:
            record = RecommendationRequest(f"r{number}", user, ts_ms, item_ids=shown, item_context={"price": prices})
        log.append((str(kind), record))
    return sorted(log, key=lambda entry: entry[1].ts_ms)


def turned(record, random):
    """(the record with its list in another order, the new order); other records as they are."""
    if not isinstance(record, Impression | RecommendationRequest):
        return record, None
    order = random.permutation(len(record.item_ids))
    return msgspec.structs.replace(
        record,
        item_ids=[record.item_ids[place] for place in order],
        item_context={name: [column[place] for place in order] for name, column in record.item_context.items()},
    ), order


def bits(matrix):
    return matrix.view(np.uint32)


@pytest.fixture(scope="module")
def names():
    return np.array(Replayer(DOMAIN).catalog.names)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_lists_in_another_order_give_the_same_rows_to_the_bit_the_same_candidates_and_the_same_state(names, seed):
    random = np.random.default_rng(seed)
    plain, other = Replayer(DOMAIN), Replayer(DOMAIN)
    for topic, record in shop(random):
        record_turned, order = turned(record, random)
        for replayer in (plain, other):
            replayer.settle()
        if isinstance(record, Impression):
            mine = plain.rows(plain.list_query(record)).matrix[order]
            theirs = other.rows(other.list_query(record_turned)).matrix
            assert names[(bits(mine) != bits(theirs)).any(axis=0)].tolist() == []
        else:
            mine, theirs = (each.rows(each.query("q", f"u{seed % 4}", record.ts_ms)) for each in (plain, other))
            assert mine.candidates.items.tolist() == theirs.candidates.items.tolist()
            assert names[(bits(mine.matrix) != bits(theirs.matrix)).any(axis=0)].tolist() == []
        plain.feed(topic, record)
        other.feed(topic, record_turned)
    assert plain.digest() == other.digest()


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_a_list_to_rank_in_another_order_gets_the_same_answer(seed):
    random = np.random.default_rng(seed)
    log = shop(random)
    log_turned = [(topic, turned(record, random)[0]) for topic, record in log]
    for mine, theirs in zip(replay(log, Replayer(DOMAIN)), replay(log_turned, Replayer(DOMAIN)), strict=True):
        assert mine.ranked.item_ids == theirs.ranked.item_ids
        assert mine.ranked.scores.tolist() == theirs.ranked.scores.tolist()


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_a_ranker_learns_from_the_same_rows_in_the_same_order(seed):
    random = np.random.default_rng(seed)
    log = shop(random)
    found = []
    for entries in (log, [(topic, turned(record, random)[0]) for topic, record in log]):
        asked = plan(read_columns(entries, DOMAIN), DOMAIN, "lists")
        found.append(training_rows(entries, Replayer(DOMAIN), asked, negatives_max=3).scattered())
    mine, theirs = found
    assert mine.items.tolist() == theirs.items.tolist()
    assert mine.grades.tolist() == theirs.grades.tolist()
    assert np.array_equal(bits(mine.matrix), bits(theirs.matrix))
