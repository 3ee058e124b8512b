"""What one query's features cost: from cached state to the matrix that is scored, in one thread."""

import numpy as np
import pytest

from features.catalog import catalog
from features.facts import Fact
from features.ids import hash64
from features.schema import Impression, Item, UserAction
from features.session_members import session_members
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part
from features.user_log import RECORD_BYTES, Log, event_bytes, pack, place, record
from features.view import StateView, scene
from tests.features.worlds import DOMAIN, NOW_MS, SOURCES

ITEMS = 300
EVENTS = 40


@pytest.fixture(scope="module")
def state_view():
    store = MemoryStore()
    state = State(store, DOMAIN)
    batches = {
        "items": [
            Item(f"i{n}", NOW_MS - 10**6, attributes={"price": float(n), "genres": ["a", f"g{n % 9}"], "brand": f"b{n % 5}"})
            for n in range(ITEMS)
        ],
        "impressions": [
            Impression(f"m{n}", "u", [f"i{(n + place) % ITEMS}" for place in range(20)], NOW_MS - 1000 * (60 - n))
            for n in range(50)
        ],
        "user_actions": [
            UserAction(f"e{n}", "u", f"i{n * 7 % ITEMS}", ("view", "cart", "purchase")[n % 3], NOW_MS - 1000 * (EVENTS - n))
            for n in range(EVENTS)
        ],
    }  # fmt: skip
    for topic, records in batches.items():
        part = Part(topic, 0)
        state.resume(part, committed=None, log_start=0)
        state.apply(part, [Fact(offset, record) for offset, record in enumerate(records)], last=len(records) - 1)
    view = StateView(store, DOMAIN, state.layout, freshness_ms=1000)
    view.advance(wall_ms=0)
    return view


@pytest.mark.parametrize("candidates", [25, 200])
def test_one_query_from_cached_state_to_its_matrix(benchmark, state_view, candidates):
    made = catalog(DOMAIN, sources=SOURCES)
    user = state_view.histories([hash64("u")], now_ms=NOW_MS)[0]
    items = np.array([hash64(f"i{n}") for n in range(candidates)], np.uint64)
    scores = {name: np.arange(candidates, dtype=np.float32) for name in SOURCES}
    price = {"price": np.arange(1, candidates + 1, dtype=np.float32)}

    def features():
        seen = scene(
            state_view,
            now_ms=NOW_MS,
            items=items,
            user=user,
            sources=scores,
            context={"device": "x"},
            item_context=price,
        )
        return made.matrix(seen)

    matrix = benchmark(features)
    assert matrix.shape == (candidates, len(made.names))
    benchmark.extra_info["features"] = len(made.names)


@pytest.mark.parametrize("candidates", [25, 200])
def test_the_matrix_alone(benchmark, state_view, candidates):
    made = catalog(DOMAIN, sources=SOURCES)
    user = state_view.histories([hash64("u")], now_ms=NOW_MS)[0]
    items = np.array([hash64(f"i{n}") for n in range(candidates)], np.uint64)
    seen = scene(state_view, now_ms=NOW_MS, items=items, user=user, sources={}, context={}, item_context={})
    assert benchmark(made.matrix, seen).dtype == np.float32


@pytest.mark.parametrize(("length", "rows"), [(8, 800), (0, 25_600)], ids=["sessions of 8", "no session ids, no pause"])
def test_the_items_of_a_hundred_neighbours_whose_logs_are_full(benchmark, length, rows):
    parts = Log()
    for n in range(256):
        session = n // length + 1 if length else 0
        place(parts.actions, record(NOW_MS + n, hash64(f"i{n}"), event_bytes(str(n)), session, 1, 0), RECORD_BYTES)
    logs = [pack(parts)] * 100
    newest = np.full(100, session, np.uint16), np.full(100, NOW_MS + 255)
    owner, _ = benchmark(session_members, logs, *newest, gap_ms=1_800_000, counted=np.ones(256, np.bool_))
    assert len(owner) == rows
