"""Rates of rare events, shrunk towards what is known of the larger group.

rate = (events + strength * prior) / (trials + strength): the posterior mean under a Beta prior worth `strength`
trials. An item with no impressions has the prior's rate, one with many has its own.
"""

from __future__ import annotations

import numpy as np

from features.scene import Floats

STRENGTH = 10.0  # impressions that the prior weighs
WORLD_STRENGTH = 100.0  # impressions that the lifetime rate weighs in a window's world rate


def shrunk(events: Floats, trials: Floats, *, prior: Floats, strength: float) -> Floats:
    """float32, broadcast: the rate of `events` in `trials`, pulled to `prior` by `strength` virtual trials.

    >>> shrunk(np.float32([0, 30]), np.float32([0, 90]), prior=np.float32([0.1, 0.1]), strength=10.0).round(2).tolist()
    [0.10000000149011612, 0.3100000023841858]
    """
    rate: Floats = (events + np.float32(strength) * prior) / (trials + np.float32(strength))
    return rate


def world_rates(counts: Floats, lifetime: Floats) -> Floats:
    """float32[columns - 1, k]: each action's events per impression in the whole world, by window.

    counts float32[columns, k], lifetime float32[columns]; column 0 holds the impressions. A quiet window leans on the
    lifetime; NaN where nothing was ever shown, since then there is no rate.
    """
    if not lifetime[0]:
        return np.full((len(lifetime) - 1, counts.shape[1]), np.nan, np.float32)
    prior = lifetime[1:, None] / lifetime[0]
    return shrunk(counts[1:], counts[:1], prior=prior, strength=WORLD_STRENGTH)


def item_rates(counts: Floats, *, prior: Floats) -> Floats:
    """float32[n, columns - 1, k]: each item's events per impression; counts float32[n, columns, k], `prior` as
    `world_rates` gives it, or with a leading axis of n (through an attribute's value).
    """
    return shrunk(counts[:, 1:], counts[:, :1], prior=prior, strength=STRENGTH)
