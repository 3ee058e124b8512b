"""THE list of features: what the ranker sees, in column order.

Names by rule: scope_action_stat_window. Scopes: `item` (the candidate alone), `user`, `user_item`, `<attribute>` (a
number of the candidate; for a category or set its match with the user's taste), `shown_<name>` (a number that came
with the list), `context_<name>` (of the request), `source_<name>` (a candidate source's score), `now`. The endings
`_rank`, `_z`, `_to_min`, `_to_median` are list-relative forms of the column they follow.

To add a feature: one line in `_features`, and its function in `features/columns.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from features import columns, decay, history
from features.domain import IMPRESSION, Attribute, Context, Domain
from features.matrix import Feature, Relatives, matrix
from features.scene import Floats, Scene
from features.windows import WINDOW_NAMES

RULES = 2  # grows whenever a formula changes under an unchanged name: models of the older one are refused
MATCHES = ("affinity", "cosine", "overlap", "last_overlap")
DISTANCES = ("less_mean_touched", "less_last_touched")


@dataclass(frozen=True, slots=True)
class Catalog:
    """A deployment's features. `names` in column order, `fingerprint` 16 hex over names and rules (equal fingerprint:
    same columns by same formulas), `categorical` the columns whose numbers are codes.
    """

    names: tuple[str, ...]
    fingerprint: str
    categorical: tuple[int, ...]
    features: tuple[Feature, ...]
    relatives: Relatives

    def matrix(self, scene: Scene) -> Floats:
        """float32[n, len(names)], C order: row i holds the features of candidate i."""
        return matrix(scene, self.features, self.relatives, width=len(self.names))


def catalog(domain: Domain, *, sources: Sequence[str], use_position: bool = False) -> Catalog:
    """The catalogue of a deployment. Raises ValueError when two features would get one name.

    >>> catalog(Domain(), sources=["trending"]).names[:3]
    ('item_impression_count_5m', 'item_impression_count_1h', 'item_impression_count_24h')
    """
    features = tuple(feature for feature in _features(domain, sources, use_position=use_position) if feature.names)
    names = [name for feature in features for name in feature.names]
    strong, numbers = _strong(domain, sources), _numbers(domain)
    relatives = Relatives([names.index(name) for name in (*strong, *numbers)], ratios=len(numbers))
    names += [f"{name}_{form}" for form in ("rank", "z") for name in (*strong, *numbers)]
    names += [f"{name}_{form}" for form in ("to_min", "to_median") for name in numbers]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"features: {', '.join(doubles)} would stand twice: rename an attribute or a context field")
    codes = {"user_item_last_action", *(f"context_{slug}" for _, slug in _contexts(domain, "category"))}
    categorical = tuple(index for index, name in enumerate(names) if name in codes)
    return Catalog(tuple(names), _fingerprint(names, domain), categorical, features, relatives)


def _features(domain: Domain, sources: Sequence[str], *, use_position: bool) -> Iterator[Feature]:
    counted, actions = slugs(domain.columns), slugs([action.name for action in domain.actions])
    ever = (*WINDOW_NAMES, "total")
    yield Feature(_each("item", counted, "count", WINDOW_NAMES), lambda scene: columns.flat(scene.items.counts))
    yield Feature(_each("item", counted, "count", ["total"]), lambda scene: scene.items.lifetime)
    yield Feature(
        _each("item", counted, "decayed", decay.HALF_LIFE_NAMES), lambda scene: columns.flat(scene.items.decayed)
    )
    yield Feature(_each("item", counted[1:], "rate", ever), columns.item_rates)
    for attribute, slug in _attributes(domain, "category", "set"):
        if attribute.rate:
            yield Feature(_each("item", counted[1:], "rate_by", [slug]), columns.rates_by(attribute.name))
    yield Feature(["item_age_s"], columns.item_age)
    yield Feature(["item_known"], columns.known)

    yield Feature(_each("user", actions, "count", ever), columns.user_counts)
    yield Feature(_each("user", [IMPRESSION], "lists", ever), columns.user_impressions)
    yield Feature(["user_recency_s", *_each("user", actions, "recency", ["s"])], columns.user_recency)
    yield Feature(_of("user", *history.SESSION), columns.user_session)
    yield Feature(_of("user_item", *(f"{action}_count" for action in actions), *history.USER_ITEM), columns.user_item)
    for attribute, slug in _attributes(domain, "category", "set"):
        yield Feature(_of(slug, *MATCHES), columns.affinities(attribute.name))

    for attribute, slug in _attributes(domain, "number"):
        yield Feature([slug], columns.number(attribute.name))
        yield Feature(_of(slug, *DISTANCES), columns.number_distances(attribute.name))
    for name, slug in _shown(domain):
        yield Feature([slug], columns.shown(name))
        yield Feature(_of(slug, *DISTANCES), columns.shown_distances(name))
    for context, slug in _contexts(domain, "number"):
        yield Feature([f"context_{slug}"], columns.context_number(context.name))
    for context, slug in _contexts(domain, "category"):
        yield Feature([f"context_{slug}"], columns.context_code(context.name))
    yield Feature(["now_hour", "now_weekday"], columns.calendar)
    for source in sources:
        yield Feature([f"source_{source}"], columns.source(source))
    if use_position:
        yield Feature(["position"], columns.position)
        yield Feature(_of("position", *DISTANCES), columns.position_distances)


def _strong(domain: Domain, sources: Sequence[str]) -> list[str]:
    """The columns whose rank and z-score within the list are features too: popularity, rates and sources."""
    counted = slugs(domain.columns)
    popularity = _each("item", counted[1:], "decayed", ["7d"])
    return [*popularity, *_each("item", counted[1:], "rate", ["total"]), *(f"source_{source}" for source in sources)]


def _numbers(domain: Domain) -> list[str]:
    """The columns that have all four list-relative forms."""
    return [slug for _, slug in (*_attributes(domain, "number"), *_shown(domain))]


def _fingerprint(names: Sequence[str], domain: Domain) -> str:
    """16 hex over everything that gives a column its meaning: names, rules, and what weighs or parts the events."""
    meaning = (
        RULES,
        names,
        [(action.name, action.weight, action.negative) for action in domain.actions],
        [(attribute.name, attribute.kind) for attribute in domain.attributes],
        domain.session_gap_ms,
        domain.user_retention_ms,
        domain.item_retention_ms,
    )
    return sha256(msgspec.json.encode(meaning)).hexdigest()[:16]


def _attributes(domain: Domain, *kinds: str) -> list[tuple[Attribute, str]]:
    named = zip(domain.attributes, slugs([attribute.name for attribute in domain.attributes]), strict=True)
    return [(attribute, slug) for attribute, slug in named if attribute.kind in kinds]


def _contexts(domain: Domain, kind: str) -> list[tuple[Context, str]]:
    named = zip(domain.context, slugs([context.name for context in domain.context]), strict=True)
    return [(context, slug) for context, slug in named if context.kind == kind]


def _shown(domain: Domain) -> list[tuple[str, str]]:
    return [(name, f"shown_{slug}") for name, slug in zip(domain.item_context, slugs(domain.item_context), strict=True)]


def _each(scope: str, actions: Sequence[str], stat: str, windows: Sequence[str]) -> list[str]:
    """Names in the order of a float32[n, actions, windows] block.

    >>> _each("item", ["view", "cart"], "count", ["1h"])
    ['item_view_count_1h', 'item_cart_count_1h']
    """
    return [f"{scope}_{action}_{stat}_{window}" for action in actions for window in windows]


def _of(scope: str, *stats: str) -> list[str]:
    return [f"{scope}_{stat}" for stat in stats]


def slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of feature names: lower case, letters and digits and `_`; LightGBM refuses JSON's own signs.

    >>> slugs(["clickout item", "Like", "like"])
    ['clickout_item', 'like', 'like_2']
    """
    taken: list[str] = []
    for name in names:
        slug = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "unnamed"
        tries = (slug, *(f"{slug}_{count}" for count in range(2, len(names) + 2)))
        taken.append(next(free for free in tries if free not in taken))
    return taken
