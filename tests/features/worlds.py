"""Scenes for tests: a domain with every kind of feature, and a random view of it drawn from a seed."""

import numpy as np

from features.domain import Action, Attribute, Context, Domain
from features.history import past
from features.scene import ItemColumns, Scene, SetColumn, UserHistory

MINUTE_MS = 60_000
NOW_MS = 1_700_000_000_000
SOURCES = ("co_visited", "session_neighbours", "history", "affinity", "trending", "new")
DOMAIN = Domain(
    actions=(Action("view"), Action("cart", weight=3), Action("purchase", weight=9), Action("hide", negative=True)),
    attributes=(
        Attribute("price", "number"),
        Attribute("genres", "set", candidates=True),
        Attribute("brand", "category", rate=True),
    ),
    context=(Context("device", "category"), Context("hour_price", "number")),
    item_context=("price",),
)
CODES = {"view": 1, "cart": 2, "purchase": 3, "hide": 4}
COLUMNS = len(DOMAIN.columns)


def sets(random, rows, *, codes=20, values_max=4):
    """A sparse column of up to `values_max` distinct codes a row."""
    chosen = [random.permutation(codes)[: random.integers(0, values_max + 1)] for _ in range(rows)]
    start = np.concatenate([[0], np.cumsum([len(each) for each in chosen])]).astype(np.int64)
    return SetColumn(start, np.concatenate([*chosen, []]).astype(np.int64))


def columns(random, hashes, *, counts=COLUMNS):
    """Random columns of these items; some numbers are absent."""
    rows = len(hashes)
    price = random.integers(0, 50, rows).astype(np.float32)
    price[random.random(rows) < 0.2] = np.nan
    windows = random.integers(0, 30, (rows, counts, 4)).cumsum(axis=2)
    return ItemColumns(
        hashes=hashes,
        counts=windows.astype(np.float32),
        decayed=random.random((rows, counts, 3)).astype(np.float32) * 50,
        lifetime=(windows[:, :, 3] + 5).astype(np.float32),
        first_ts_ms=np.where(random.random(rows) < 0.3, 0, NOW_MS - random.integers(0, 10**9, rows)),
        known=random.random(rows) < 0.9,
        available=np.ones(rows, bool),
        numbers={"price": price},
        sets={"genres": sets(random, rows), "brand": sets(random, rows, values_max=1)},
    )


def history(random, items, *, events):
    """A log of `events` events on some of these items, in a few sessions, the newest of them open."""
    ts_ms = np.sort(NOW_MS - random.integers(0, 10**8, events))
    sessions = np.sort(random.integers(0, 4, events)).astype(np.int32)
    codes = random.integers(1, 5, events).astype(np.uint8)
    weights = np.array([0, *(action.weight for action in DOMAIN.actions)], np.float32)[codes]
    touched = random.choice(items, events) if events else np.empty(0, np.uint64)
    return UserHistory(
        ts_ms=ts_ms,
        items=touched,
        actions=codes,
        sessions=sessions,
        in_session=sessions == sessions[-1] if events else np.zeros(0, bool),
        weights=weights,
        bought=np.unique(touched[codes == 3]),
        impressions_ts_ms=np.sort(NOW_MS - random.integers(0, 10**8, min(events, 20))),
    )


def random_scene(seed, *, candidates=30, events=40):
    """One query's view, every part of it drawn from `seed`."""
    random = np.random.default_rng(seed)
    pool = random.permutation(10 * (candidates + 5)).astype(np.uint64)
    items, other = pool[:candidates], pool[candidates:]
    user = history(random, np.concatenate([items, other[: candidates + 1]]), events=events)
    return Scene(
        domain=DOMAIN,
        now_ms=NOW_MS,
        items=columns(random, items),
        world=columns(random, np.zeros(1, np.uint64)),
        user=user,
        past=past(user, DOMAIN, CODES, now_ms=NOW_MS),
        touched=columns(random, user.items, counts=0),
        idf={name: (1 + random.random(20)).astype(np.float32) for name in ("genres", "brand")},
        value_rates={"brand": random.random((candidates, COLUMNS - 1)).astype(np.float32)},
        sources={name: random.integers(0, 3, candidates).astype(np.float32) for name in SOURCES},
        context={"device": "mobile", "hour_price": 3.0},
        item_context={"price": random.integers(1, 9, candidates).astype(np.float32)},
        position=None,
    )


def permuted(scene, order):
    """The same scene with its candidates in another order."""
    items = scene.items

    def sparse(column):
        rows = [column.codes[column.start[i] : column.start[i + 1]] for i in order]
        start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return SetColumn(start, np.concatenate([*rows, []]).astype(np.int64))

    moved = ItemColumns(
        **{
            name: getattr(items, name)[order]
            for name in ("hashes", "counts", "decayed", "lifetime", "first_ts_ms", "known", "available")
        },
        numbers={name: column[order] for name, column in items.numbers.items()},
        sets={name: sparse(column) for name, column in items.sets.items()},
    )
    fields = {name: getattr(scene, name) for name in scene.__dataclass_fields__}
    return Scene(
        **fields
        | {
            "items": moved,
            "value_rates": {name: block[order] for name, block in scene.value_rates.items()},
            "sources": {name: column[order] for name, column in scene.sources.items()},
            "item_context": {name: column[order] for name, column in scene.item_context.items()},
        }
    )
