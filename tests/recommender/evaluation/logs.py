"""Small logs for the protocols, and rankers that need no training."""

import numpy as np

from features.domain import Action, Domain
from features.schema import IMPRESSIONS, USER_ACTIONS, Impression, UserAction

START_MS = 1_700_000_000_000
DOMAIN = Domain(actions=(Action("click"),), item_context=("price",))


class ByColumn:
    """Ranks by one feature."""

    version, features_hash, cascade_trees = "by-column", "", 0

    def __init__(self, catalog, name):
        self.column = catalog.names.index(name)

    def score(self, matrix, *, shown=0):
        return np.nan_to_num(matrix[:, self.column].astype(np.float64))

    def contributions(self, matrix):
        raise AssertionError("nobody asks for reasons here")


def shown_lists(count=40, *, turned=False, seed=3):
    """Lists of six of twelve items, each with one click; with `turned` the same lists in another order."""
    random, other = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    log = []
    for number in range(count):
        items = [f"i{item}" for item in random.permutation(12)[:6]]
        prices = random.uniform(1, 9, 6).round(2).tolist()
        clicked = min(items, key=lambda item: (int(item[1:]) % 5, int(item[1:])))
        places = other.permutation(6) if turned else range(6)
        ts_ms, user = START_MS + number * 60_000, f"u{number % 5}"
        log += [
            (
                IMPRESSIONS,
                Impression(
                    f"m{number}",
                    user,
                    [items[place] for place in places],
                    ts_ms,
                    item_context={"price": [prices[place] for place in places]},
                ),
            ),
            (USER_ACTIONS, UserAction(f"e{number}", user, clicked, "click", ts_ms + 1000, impression_id=f"m{number}")),
        ]
    return log


def walks(users, steps=5, *, first_user=0, items=8):
    """Sessions that go through the items in a circle, each from a start of its own."""
    return [
        (
            USER_ACTIONS,
            UserAction(
                f"w{user}-{step}",
                f"u{user}",
                f"i{(user + step) % items}",
                "click",
                START_MS + user * 3_600_000 + step * 1000,
                session_id=f"s{user}",
            ),
        )
        for user in range(first_user, first_user + users)
        for step in range(steps)
    ]
