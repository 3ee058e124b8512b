import numpy as np
import pytest

from features.catalog import catalog
from features.facts import Fact
from features.ids import hash64
from features.schema import Impression, Item, UserAction
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part
from features.view import StateView, scene
from tests.features.worlds import DOMAIN, NOW_MS, SOURCES

ACTIONS, SHOWN, ITEMS = Part("user_actions", 0), Part("impressions", 0), Part("items", 0)


class World:
    """A memory store, its state, and records put into it one batch a call."""

    def __init__(self):
        self.store = MemoryStore()
        self.state = State(self.store, DOMAIN)
        self._next = dict.fromkeys((ACTIONS, SHOWN, ITEMS), 0)
        for part in self._next:
            self.state.resume(part, committed=None, log_start=0)

    def put(self, part, *records):
        first = self._next[part]
        facts = [Fact(first + place, record) for place, record in enumerate(records)]
        self._next[part] += len(facts)
        return self.state.apply(part, facts, last=facts[-1].offset)

    def act(self, *events, user="u"):
        """Events as (seconds before now, item, action)."""
        at = self._next[ACTIONS]
        records = [
            UserAction(f"e{at + place}", user, item, action, NOW_MS - age_s * 1000)
            for place, (age_s, item, action) in enumerate(events)
        ]
        return self.put(ACTIONS, *records)

    def view(self, *, freshness_ms=0):
        view = StateView(self.store, DOMAIN, self.state.layout, freshness_ms=freshness_ms)
        view.advance(wall_ms=0)
        return view


@pytest.fixture
def world():
    made = World()
    made.put(
        ITEMS, *(Item(f"i{n}", NOW_MS - 9000, attributes={"price": float(n), "brand": f"b{n % 2}"}) for n in range(5))
    )
    made.put(SHOWN, Impression("m1", "u", ["i0", "i1", "i2"], NOW_MS - 20_000))
    made.act((9, "i0", "view"), (8, "i1", "view"), (7, "i1", "cart"))
    return made


def hashes(*item_ids):
    return np.array([hash64(item_id) for item_id in item_ids], np.uint64)


def rows(view, items, user, *, now_ms=NOW_MS):
    made = catalog(DOMAIN, sources=SOURCES)
    seen = scene(view, now_ms=now_ms, items=items, user=user, sources={}, context={}, item_context={})
    return dict(zip(made.names, made.matrix(seen).T, strict=True))


def test_what_was_applied_is_what_the_features_see(world):
    view = world.view()
    user = view.histories([hash64("u")], now_ms=NOW_MS)[0]
    got = rows(view, hashes("i0", "i1", "i3"), user)
    assert got["item_impression_count_5m"].tolist() == [1, 1, 0]
    assert got["item_view_count_1h"].tolist() == [1, 1, 0]
    assert got["user_item_cart_count"].tolist() == [0, 1, 0]
    assert got["user_item_touched_last"].tolist() == [0, 1, 0]
    assert got["price"].tolist() == [0, 1, 3]
    assert got["price_less_last_touched"].tolist() == [-1, 0, 2]
    assert got["item_age_s"].tolist() == [9, 9, 9]
    assert got["user_impression_lists_1h"].tolist() == [1, 1, 1]
    assert got["brand_affinity"][1] == got["brand_affinity"][2] > got["brand_affinity"][0] > 0
    assert got["item_view_rate_by_brand"][0] > 0


def test_a_user_and_items_that_nobody_knows_have_whole_rows(world):
    view = world.view()
    got = rows(view, hashes("x", "y"), view.history(b"", now_ms=NOW_MS))
    assert not any(np.isinf(column).any() for column in got.values())
    assert np.isnan(got["item_age_s"]).all()
    assert got["item_known"].tolist() == [0, 0]
    assert got["user_item_view_count"].tolist() == [0, 0]


def test_an_empty_state_has_whole_rows_too():
    view = World().view()
    got = rows(view, hashes("x"), view.history(b"", now_ms=NOW_MS))
    assert np.isnan(got["item_view_rate_total"]).all()
    assert got["item_view_count_7d"].tolist() == [0]


def test_cached_counts_are_at_most_as_old_as_the_freshness(world):
    view = world.view(freshness_ms=1000)
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 0
    world.act((1, "i3", "view"), user="v")
    view.advance(wall_ms=999)
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 0
    view.advance(wall_ms=1000)
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 1


def test_a_clock_that_is_put_back_makes_no_cached_count_older(world):
    view = world.view(freshness_ms=1000)
    view.advance(wall_ms=600_000)
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 0
    before = len(view.top("top", 9)[0])
    world.put(ITEMS, Item("i9", NOW_MS - 9000))
    world.act((1, "i3", "view"), (2, "i9", "view"), user="v")
    view.advance(wall_ms=1)
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 1
    assert len(view.top("top", 9)[0]) > before


def test_trends_are_as_fresh_as_counts_and_an_attribute_s_lists_ten_times_older(world):
    world.put(ITEMS, Item("i9", NOW_MS - 9000, attributes={"genres": ["g"]}))
    view = world.view(freshness_ms=1000)
    before = [len(view.top(name, 9)[0]) for name in ("top", "a:genres:g")]
    world.act((1, "i9", "view"), user="v")
    lengths = []
    for wall_ms in (999, 1000, 9999, 10_000):
        view.advance(wall_ms=wall_ms)
        lengths.append(
            [len(view.top(name, 9)[0]) - was for name, was in zip(("top", "a:genres:g"), before, strict=True)]
        )
    assert lengths == [[0, 0], [1, 0], [1, 0], [1, 1]]


def test_rarity_may_be_ten_times_as_old_as_the_counts(world):
    view = world.view(freshness_ms=1000)
    before = view.rarity(hashes("i0"))
    world.act((1, "i0", "view"), (1, "i0", "cart"), user="v")
    view.advance(wall_ms=999)
    assert view.rarity(hashes("i0")) == before
    view.advance(wall_ms=10_000)
    assert view.rarity(hashes("i0")) < before


def test_one_list_asked_for_twice_in_a_micro_batch_is_read_once_and_anew_in_the_next(world):
    view = world.view()
    asked = hashes("i0", "i7")
    assert view.available(asked).tolist() == [True, True]
    assert view.records(asked) is view.records(asked.copy())
    world.put(ITEMS, Item("i0", NOW_MS, available=False))
    assert view.available(asked).tolist() == [True, True]
    view.advance(wall_ms=0)
    assert view.available(asked).tolist() == [False, True]
    assert not view.records(asked).available[0]


def test_with_freshness_0_every_micro_batch_sees_the_state_of_the_moment(world):
    view = world.view()
    before = view.world(now_ms=NOW_MS).lifetime.sum()
    world.act((1, "i3", "view"))
    assert view.world(now_ms=NOW_MS).lifetime.sum() == before
    view.advance(wall_ms=0)
    assert view.world(now_ms=NOW_MS).lifetime.sum() == before + 1
    assert view.items(hashes("i3"), now_ms=NOW_MS).lifetime.sum() == 1


def test_two_views_asked_the_same_questions_build_the_same_rows(world):
    def answers(view):
        user = view.histories([hash64("u")], now_ms=NOW_MS)[0]
        rows(view, hashes("i4", "i3"), user)
        return rows(view, hashes("i0", "i1", "i2"), user)

    first, second = answers(world.view()), answers(world.view(freshness_ms=1000))
    for name, column in first.items():
        np.testing.assert_array_equal(column, second[name], err_msg=name)


def test_hydrating_a_micro_batch_changes_no_row(world):
    plain, hydrated = world.view(), world.view()
    hydrated.hydrate(hashes("i0", "i1", "i2", "x"))
    for items in (hashes("i0", "x"), hashes("i2", "i1")):
        one, other = plain.items(items, now_ms=NOW_MS), hydrated.items(items, now_ms=NOW_MS)
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.decayed, other.decayed)


def test_a_hash_has_its_id_from_ring_record_or_a_given_list(world):
    view = world.view()
    world.act((1, "no record", "view"))
    learnt = view.learn(["only given"])
    asked = np.concatenate([hashes("i4", "no record"), learnt, hashes("nobody")])
    assert view.ids(asked) == ["i4", "no record", "only given", None]


def test_neighbour_lists_tell_what_came_after_and_who_touched(world):
    view = world.view()
    ((after, weights), (nothing, _)) = view.co_visited(hashes("i0", "i3"))
    assert after.tolist() == hashes("i1").tolist()
    assert (weights > 0).all()
    assert not len(nothing)
    ts_ms, users, sessions = view.sessions(hashes("i1"))[0]
    assert (ts_ms.tolist(), users.tolist()) == ([NOW_MS - 7000], [hash64("u")])
    owner, items = view.session_members(users, sessions, ts_ms)
    assert set(owner.tolist()) == {0}
    assert set(items.tolist()) == set(hashes("i0", "i1").tolist())


def test_the_rarer_item_is_the_rarer(world):
    rarity = world.view().rarity(hashes("i0", "i1", "never"))
    assert rarity[0] > rarity[1] > 0
    assert np.isfinite(rarity).all()


def test_the_top_list_is_led_by_what_people_act_on(world):
    items, scores = world.view().top("top", 2)
    assert items.tolist() == hashes("i1", "i0").tolist()
    assert scores[0] > scores[1]
