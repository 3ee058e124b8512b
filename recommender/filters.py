"""What must not be shown, each rule by its name; `recommend.filters` in the configuration lists those that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.domain import Domain
from features.ids import hash64
from features.scene import Hashes
from features.store.port import Layout
from features.view import StateView
from recommender.query import Filter, Query

Keep = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Available:
    """Out: items that the catalogue calls gone or not available. Items without a record stay."""

    name: str = "available"
    personal: bool = False

    def keep(self, query: Query, items: Hashes, view: StateView) -> Keep:  # noqa: ARG002 (the protocol's signature)
        """bool[n], from the items' records."""
        return view.available(items)


@dataclass(frozen=True, slots=True)
class Bought:
    """Out: what the user bought already (the 128 newest distinct purchases)."""

    name: str = "bought"
    personal: bool = True

    def keep(self, query: Query, items: Hashes, view: StateView) -> Keep:  # noqa: ARG002 (the protocol's signature)
        """bool[n], from the user's log."""
        if not len(query.user.bought):
            return np.ones(len(items), np.bool_)
        return np.isin(items, query.user.bought, invert=True)


@dataclass(frozen=True, slots=True)
class Blocked:
    """Out: items that the operator listed."""

    hashes: Hashes
    name: str = "blocked"
    personal: bool = False

    def keep(self, query: Query, items: Hashes, view: StateView) -> Keep:  # noqa: ARG002 (the protocol's signature)
        """bool[n], from the configuration."""
        return np.isin(items, self.hashes, invert=True)


@dataclass(frozen=True, slots=True)
class Negative:
    """Out: items whose newest action by this user was a negative one (cancel, dislike ...)."""

    codes: NDArray[np.uint8]
    name: str = "negative"
    personal: bool = True

    def keep(self, query: Query, items: Hashes, view: StateView) -> Keep:  # noqa: ARG002 (the protocol's signature)
        """bool[n], from the user's log."""
        touched, newest = np.unique(query.user.items[::-1], return_index=True)
        disliked = np.isin(query.user.actions[::-1][newest], self.codes)
        return np.isin(items, touched[disliked], invert=True)


def filters(names: Sequence[str], *, domain: Domain, layout: Layout, blocked_items: Sequence[str] = ()) -> list[Filter]:
    """The configured filters, in their order; listed items are always blocked. Raises ValueError for unknown names."""
    negative = [layout.action_codes[action.name] for action in domain.actions if action.negative]
    known: dict[str, Filter] = {
        "available": Available(),
        "bought": Bought(),
        "negative": Negative(np.array(negative, np.uint8)),
        "blocked": Blocked(np.array(sorted(map(hash64, blocked_items)), np.uint64)),
    }
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"recommend.filters: no filter named {unknown[0]!r}, there are {sorted(known)}")
    listed = ["blocked"] if blocked_items and "blocked" not in names else []
    return [known[name] for name in (*names, *listed)]
