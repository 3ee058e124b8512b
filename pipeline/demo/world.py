"""The simulated shop's truth: items and shoppers as vectors over categories and styles, appeal that drifts.

What a recommender sees of an item (category, brand, tags, price, title) follows from its vector, and so does what a
shopper likes: attributes carry signal, but never all of it. World time counts published records, not seconds, so that
a world is the same on a slow machine.

The maths: a shopper with intent u and an item with unit vector v click, once looked at, with probability
sigmoid(SLOPE * u.v + appeal(t) - OFFSET), the usual latent-factor click model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.schema import Item

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

CATEGORIES: dict[str, tuple[str, ...]] = {
    "audio": ("headphones", "speaker", "turntable", "earbuds"),
    "bags": ("backpack", "tote", "weekender", "sling"),
    "books": ("novel", "atlas", "cookbook", "field guide"),
    "coffee": ("kettle", "grinder", "espresso cups", "pour-over set"),
    "games": ("board game", "puzzle", "card game", "chess set"),
    "garden": ("planter", "watering can", "herb kit", "bird feeder"),
    "lamps": ("desk lamp", "floor lamp", "lantern", "night light"),
    "shoes": ("sneakers", "trail shoes", "boots", "sandals"),
}
STYLES = (
    "minimal",
    "vintage",
    "outdoor",
    "luxury",
    "budget",
    "playful",
    "technical",
    "natural",
    "compact",
    "handmade",
)
BRANDS = (
    "Alder",
    "Brisk",
    "Corvid",
    "Dunlin",
    "Ember",
    "Fjell",
    "Garnet",
    "Heron",
    "Iris",
    "Juniper",
    "Kestrel",
    "Lumen",
)
TAGS_PER_ITEM = 3
ITEMS_MAX = 20_000

SLOPE = 7.0
OFFSET = 6.5
DRIFT = 0.9  # the swing of an item's appeal in log-odds: a factor of about 6 between its best and its worst hour
PERIOD_RECORDS = (4_000, 20_000)
NOVELTY = 0.8
NOVELTY_RECORDS = 3_000


@dataclass(frozen=True, slots=True)
class Product:
    """An item as the catalogue describes it."""

    item_id: str
    title: str
    category: str
    brand: str
    tags: tuple[str, ...]
    price: float

    def record(self, *, ts_ms: int, available: bool = True) -> Item:
        """The item's record on the `items` topic."""
        return Item(
            self.item_id,
            ts_ms,
            available=available,
            attributes={
                "title": self.title,
                "category": self.category,
                "brand": self.brand,
                "tags": list(self.tags),
                "price": self.price,
            },
        )


class World:
    """Items that come over time and shoppers with tastes; `rng` decides all of it, so a seed is a world.

    vectors float64[n, D] (unit length; D = categories + styles), tastes float64[users, D].
    """

    def __init__(self, rng: np.random.Generator, *, items: int = 600, users: int = 2_000) -> None:
        self._rng = rng
        self._brand_styles = rng.normal(size=(len(BRANDS), len(STYLES)))
        self.products: list[Product] = []
        self.index: dict[str, int] = {}
        self._vectors = np.zeros((ITEMS_MAX, len(CATEGORIES) + len(STYLES)))
        self._drift = np.zeros((ITEMS_MAX, 4))  # quality, phase, period, born
        self.tastes = _tastes(rng, users)
        # Zipf-like: a few shoppers come often, most rarely.
        activity = 1.0 / (10.0 + np.arange(users))
        self.activity: Floats = activity / activity.sum()
        for _ in range(items):
            self.add_item(at=-NOVELTY_RECORDS * 10)

    @property
    def vectors(self) -> Floats:
        """float64[n, D] of all items so far."""
        return self._vectors[: len(self.products)]

    @property
    def is_full(self) -> bool:
        """Whether no item more has room: after some 4 hours at 200 records a second."""
        return len(self.products) == ITEMS_MAX

    def add_item(self, *, at: float) -> Product:
        """A new item at world time `at`. Raises `OverflowError` beyond 20 000."""
        number = len(self.products)
        if self.is_full:
            raise OverflowError(f"the world holds {ITEMS_MAX} items")
        rng = self._rng
        kind, brand = int(rng.integers(len(CATEGORIES))), int(rng.integers(len(BRANDS)))
        style = 0.7 * self._brand_styles[brand] + rng.normal(size=len(STYLES))
        vector = np.concatenate([np.eye(len(CATEGORIES))[kind] * 0.75, style / np.linalg.norm(style) * 0.65])
        self._vectors[number] = vector / np.linalg.norm(vector)
        self._drift[number] = (rng.normal(scale=0.5), rng.random(), rng.uniform(*PERIOD_RECORDS), at)
        product = _describe(number, kind, brand, style, rng)
        self.products.append(product)
        self.index[product.item_id] = number
        return product

    def appeal(self, at: float) -> Floats:
        """float64[n]: log-odds by which everybody's interest in an item moves at world time `at`: quality, drift, novelty."""
        quality, phase, period, born = self._drift[: len(self.products)].T
        age = np.maximum(at - born, 0.0)
        drift = DRIFT * np.sin(2 * np.pi * (at / period + phase))
        return np.asarray(quality + drift + NOVELTY * np.exp(-age / NOVELTY_RECORDS))

    def relevance(self, intent: Floats, items: Indices, *, at: float) -> Floats:
        """float64[len(items)]: probability that a shopper of this intent clicks each item, once looked at."""
        logit = SLOPE * (self.vectors[items] @ intent) + self.appeal(at)[items] - OFFSET
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _tastes(rng: np.random.Generator, users: int) -> Floats:
    kinds = rng.dirichlet(np.full(len(CATEGORIES), 0.35), size=users)
    styles = rng.normal(size=(users, len(STYLES)))
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    styles /= np.linalg.norm(styles, axis=1, keepdims=True)
    tastes = np.concatenate([0.75 * kinds, 0.65 * styles], axis=1)
    return np.asarray(tastes / np.linalg.norm(tastes, axis=1, keepdims=True))


def _describe(number: int, kind: int, brand: int, style: Floats, rng: np.random.Generator) -> Product:
    best = np.argsort(-style)[:TAGS_PER_ITEM]
    tags = tuple(STYLES[index] for index in best)
    category, nouns = list(CATEGORIES.items())[kind]
    noun = nouns[int(rng.integers(len(nouns)))]
    dearness = style[STYLES.index("luxury")] - style[STYLES.index("budget")]
    price = float(np.round(25.0 * (1 + kind) ** 0.4 * np.exp(0.35 * dearness + rng.normal(scale=0.3)), 2))
    title = f"{BRANDS[brand]} {tags[0]} {noun} {number}"
    return Product(f"p{number:05d}", title, category, BRANDS[brand], tags, price)
