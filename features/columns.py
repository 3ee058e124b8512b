"""From a scene to columns: one small function a feature, which hands the maths what it needs.

Each returns a scalar, float32[k] (the same for every candidate), float32[n] or float32[n, k]; `features/catalog.py`
gives the columns their names. A function that needs a setting is made by a function that takes it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features import affinity, distance, history, rates
from features.ids import hash64
from features.scene import Floats, Scene

CATEGORY_CODES = 255  # 0 = absent; LightGBM's category bins hold 255


def flat(block: Floats) -> Floats:
    """A block float32[n, a, b] as the columns float32[n, a * b]."""
    return block.reshape(len(block), block.shape[1] * block.shape[2])


def item_rates(scene: Scene) -> Floats:
    """float32[n, actions * 5]: events per impression by window and over all time, item shrunk to world."""
    items, world = scene.items, scene.world
    counts = np.concatenate([items.counts, items.lifetime[:, :, None]], axis=2)
    everywhere = np.concatenate([world.counts[0], world.lifetime[0][:, None]], axis=1)
    return flat(rates.item_rates(counts, prior=rates.world_rates(everywhere, world.lifetime[0])))


def rates_by(attribute: str) -> Callable[[Scene], Floats]:
    """Lifetime events per impression, shrunk to the rate of the item's values of `attribute`."""

    def read(scene: Scene) -> Floats:
        lifetime = scene.items.lifetime[:, :, None]
        return flat(rates.item_rates(lifetime, prior=scene.value_rates[attribute][:, :, None]))

    return read


def item_age(scene: Scene) -> Floats:
    """Seconds since the item was first heard of; NaN when unknown, never new by mistake."""
    first = scene.items.first_ts_ms
    return np.where(first > 0, np.maximum(scene.now_ms - first, 0) / 1000, np.nan).astype(np.float32)


def user_counts(scene: Scene) -> Floats:
    """The user's events by action and window."""
    actions = len(scene.domain.actions)
    return history.user_counts(scene.user, scene.past.actions, now_ms=scene.now_ms, actions=actions)


def user_impressions(scene: Scene) -> Floats:
    """Lists shown to the user, by window."""
    return history.user_impressions(scene.user, now_ms=scene.now_ms)


def user_recency(scene: Scene) -> Floats:
    """Seconds since the user's newest event, of any and of each action."""
    actions = len(scene.domain.actions)
    return history.user_recency(scene.user, scene.past.actions, now_ms=scene.now_ms, actions=actions)


def user_session(scene: Scene) -> Floats:
    """The session that is going on, and the habits behind it."""
    return history.user_session(scene.user, scene.past, now_ms=scene.now_ms)


def user_item(scene: Scene) -> Floats:
    """The user's own past with each candidate."""
    actions = len(scene.domain.actions)
    return history.user_item(scene.user, scene.past, scene.items.hashes, now_ms=scene.now_ms, actions=actions)


def affinities(attribute: str) -> Callable[[Scene], Floats]:
    """How the candidate's values of a category or set match the user's taste."""

    def read(scene: Scene) -> Floats:
        items, touched = scene.items.sets[attribute], scene.touched.sets[attribute]
        return affinity.affinities(items, touched, scene.past.taste, scene.idf[attribute])

    return read


def number(name: str) -> Callable[[Scene], Floats]:
    """A numeric attribute."""
    return lambda scene: scene.items.numbers[name]


def number_distances(name: str) -> Callable[[Scene], Floats]:
    """A numeric attribute less that of the touched items."""
    return lambda scene: distance.distances(scene.items.numbers[name], scene.touched.numbers[name], scene.past.taste)


def known(scene: Scene) -> Floats:
    """1 where the catalogue has told of the item."""
    return scene.items.known.astype(np.float32)


def shown(name: str) -> Callable[[Scene], Floats | float]:
    """A number that came with the list; NaN where the caller sent none."""
    return lambda scene: scene.item_context.get(name, np.nan)


def shown_distances(name: str) -> Callable[[Scene], Floats | float]:
    """A number that came with the list less that of the touched items of this list."""
    return lambda scene: _to_touched(scene, scene.item_context.get(name))


def context_number(name: str) -> Callable[[Scene], float]:
    """A number of the request's context."""

    def read(scene: Scene) -> float:
        value = scene.context.get(name)
        return value if isinstance(value, (int, float)) else np.nan

    return read


def context_code(name: str) -> Callable[[Scene], float]:
    """A category of the request's context, as its stable code."""
    return lambda scene: float(category_code(scene.context.get(name)))


def category_code(value: float | str | None) -> int:
    """A category's stable code, 1 to 255 by hash, 0 for none: the same in every process, nothing to keep.

    >>> category_code("mobile"), category_code(None)
    (239, 0)
    """
    return 0 if value is None else hash64(str(value)) % CATEGORY_CODES + 1


def calendar(scene: Scene) -> Floats:
    """float32[2]: hour of day and day of week of `now`, in UTC."""
    hours = scene.now_ms // 3_600_000
    return np.array([hours % 24, (hours // 24 + 3) % 7], np.float32)  # 1970-01-01 was a Thursday; Monday = 0


def source(name: str) -> Callable[[Scene], Floats | float]:
    """A candidate source's score; 0 where it does not know the item or did not run."""
    return lambda scene: scene.sources.get(name, 0.0)


def position(scene: Scene) -> Floats | float:
    """The position shown, from 0: only where the caller asked for it."""
    return np.nan if scene.position is None else scene.position


def position_distances(scene: Scene) -> Floats | float:
    """The position shown less that of the touched items of this list: readers go on below what they looked at last."""
    return _to_touched(scene, scene.position)


def _to_touched(scene: Scene, values: Floats | None) -> Floats | float:
    if values is None:
        return np.nan
    touched = distance.within_list(values, scene.items.hashes, scene.user.items)
    return distance.distances(values, touched, scene.past.taste)
