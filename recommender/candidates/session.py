"""The part of a user's log that session-based sources start from."""

from __future__ import annotations

import numpy as np

from features.scene import Hashes, UserHistory


def session_items(user: UserHistory, *, at_most: int) -> Hashes:
    """uint64[<= at_most]: the distinct items of the user's newest session, newest first; negative actions (weight 0) out.

    A session that is over still counts: a returning user is met where they left.
    """
    if not len(user.items):
        return user.items
    inside = (user.sessions == user.sessions[-1]) & (user.weights > 0)
    newest_first = dict.fromkeys(user.items[inside][::-1].tolist())
    return np.array(list(newest_first)[:at_most], np.uint64)
