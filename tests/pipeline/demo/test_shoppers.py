"""The simulated shop: a seed is a shop, tastes decide, recommendations change what is shown and nothing else."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from features.schema import Impression, Item, RecommendationRequest, UserAction, decode
from pipeline.demo import world
from pipeline.demo.shoppers import TOPIC_OF, Shop, look_chances
from pipeline.demo.world import World

NOW = 1_700_000_000_000


def shop(seed=7, **sizes):
    rng = np.random.default_rng(seed)
    return Shop(World(rng, **sizes), rng)


def run(shop, steps, *, recommend=None):
    records = []
    for step in range(steps):
        for record in shop.step(now_ms=NOW + step * 5):
            records.append(record)
            if recommend and isinstance(record, UserAction):
                recommend(record)
    return records


def test_the_same_seed_gives_the_same_records():
    assert run(shop(), 1500) == run(shop(), 1500)


def test_another_seed_gives_another_shop():
    assert run(shop(1), 200) != run(shop(2), 200)


def test_every_record_keeps_the_wire_contract_and_no_event_id_comes_twice():
    simulated = shop()
    records = simulated.opening(ts_ms=NOW) + run(simulated, 1500)
    for record in records:
        assert decode(TOPIC_OF[type(record)], msgspec.json.encode(record)) == record
    ids = [record.event_id for record in records if isinstance(record, UserAction)]
    assert len(set(ids)) == len(ids)


def test_sessions_hold_all_kinds_of_records_in_a_funnel():
    records = run(shop(), 6000)
    actions = Counter(record.action for record in records if isinstance(record, UserAction))
    assert actions["click"] > actions["cart"] > actions["purchase"] > 0
    assert actions["view"] > 0
    kinds = {type(record) for record in records}
    assert kinds == {UserAction, Impression, Item, RecommendationRequest}


def test_a_click_lies_on_a_list_that_was_shown_before():
    shown = {}
    for record in run(shop(), 3000):
        if isinstance(record, Impression):
            shown[record.impression_id] = record
        elif isinstance(record, UserAction) and record.impression_id is not None:
            impression = shown[record.impression_id]
            assert record.item_id in impression.item_ids
            assert record.user_id == impression.user_id


def test_new_items_keep_arriving():
    simulated = shop()
    before = len(simulated.world.products)
    run(simulated, 900)
    assert len(simulated.world.products) == before + 6


def test_a_shop_without_room_for_a_new_item_goes_on(monkeypatch):
    simulated = shop()
    before = len(simulated.world.products)
    monkeypatch.setattr(world, "ITEMS_MAX", before + 2)
    assert run(simulated, 900)
    assert len(simulated.world.products) == before + 2


def test_a_recommendation_becomes_the_next_list_but_not_for_the_control_group():
    simulated = shop()
    chosen = [product.item_id for product in simulated.world.products[:10]]

    def recommend(action):
        simulated.receive(action.user_id, f"rec-{action.event_id}", chosen)

    lists = [record for record in run(simulated, 3000, recommend=recommend) if isinstance(record, Impression)]
    control = [entry for entry in lists if simulated.is_control(entry.user_id)]
    treated = [entry for entry in lists if entry.rec_id is not None]
    assert len(control) > 100
    assert all(entry.rec_id is None for entry in control if entry.item_ids != chosen)
    assert len(treated) > 300
    assert all(entry.item_ids == chosen and not simulated.is_control(entry.user_id) for entry in treated)


def test_an_item_that_ran_out_is_not_shown():
    simulated = shop()
    gone = simulated.world.products[0].item_id
    simulated._available[0] = False
    lists = run(simulated, 300, recommend=lambda action: simulated.receive(action.user_id, "rec", [gone]))
    assert not any(gone in record.item_ids for record in lists if isinstance(record, Impression))


def test_an_unknown_item_in_a_recommendation_is_left_out():
    simulated = shop()
    run(simulated, 50, recommend=lambda action: simulated.receive(action.user_id, "rec", ["nobody knows it"]))
    assert simulated.shown["recommended"].lists == 0


def test_the_first_position_is_clicked_most():
    positions = Counter()
    shown = {}
    for record in run(shop(), 12_000):
        if isinstance(record, Impression):
            shown[record.impression_id] = record.item_ids
        elif isinstance(record, UserAction) and record.action == "click":
            positions[shown[record.impression_id].index(record.item_id)] += 1
    assert positions[0] > 1.4 * positions[5]


def hit_rate(rank, *, steps=6000):
    """The expected hit rate of lists made by `rank(shop, user)` for everybody outside the control group."""
    simulated = shop()

    def recommend(action):
        items = rank(simulated, int(action.user_id[1:]))
        ids = [simulated.world.products[index].item_id for index in items]
        simulated.receive(action.user_id, f"rec-{action.event_id}", ids)

    run(simulated, steps, recommend=recommend)
    shown = simulated.shown["recommended"]
    return shown.expected / shown.lists, simulated.shown["trending"].expected / simulated.shown["trending"].lists


def by_taste(shop, user):
    everything = np.arange(len(shop.world.products))
    return np.argsort(-shop.world.relevance(shop.world.tastes[user], everything, at=0.0))[:10]


def by_chance(shop, user):
    return np.random.default_rng(user).permutation(len(shop.world.products))[:10]


def test_tastes_matter():
    truth, trending = hit_rate(by_taste)
    chance, _ = hit_rate(by_chance)
    assert truth > 1.5 * trending
    assert trending > 1.5 * chance


def test_observed_hits_agree_with_the_truth_they_were_drawn_from():
    simulated = shop()
    run(simulated, 12_000)
    for kind in ("trending", "own"):
        shown = simulated.shown[kind]
        assert shown.hits == pytest.approx(shown.expected, abs=4 * shown.lists**0.5 * 0.5)


def test_popularity_drifts():
    world = World(np.random.default_rng(3))
    now, later = world.appeal(0.0), world.appeal(5_000.0)
    assert np.corrcoef(now, later)[0, 1] < 0.9


def test_looking_fades_with_the_position():
    assert (np.diff(look_chances(10)) < 0).all()
