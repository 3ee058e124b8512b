"""What a user's own log says: of the user, and of the user with each candidate.

All of it is exact: the log holds events, not counts. Ages are of `now`, the query's event time. Equal times keep the
log's order (ts, item, event), so "last" never depends on the order of arrival or of the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.decay import half_life_weights
from features.distinct import distinct
from features.domain import Action, Domain
from features.scene import Floats, Hashes, Past, UserHistory
from features.windows import WINDOWS_MS

DWELL_CAP_MS = 300_000  # a longer gap is an absence, not a look
RECENT_HALF_LIFE_MS = 86_400_000
TASTE_HALF_LIFE_MS = 7 * 86_400_000

Indices = NDArray[np.intp]


def past(user: UserHistory, domain: Domain, codes: Mapping[str, int], *, now_ms: int) -> Past:
    """What several features need of a user's events; `codes` are the action codes of `Layout`."""
    actions = action_indices(user.actions, domain.actions, codes)
    likes = np.array([*(not action.negative for action in domain.actions), False], np.float64)
    fade = half_life_weights(now_ms - user.ts_ms, half_life_ms=TASTE_HALF_LIFE_MS)
    touched, of = distinct(user.items)
    taste = user.weights.astype(np.float64) * likes[actions] * fade
    return Past(actions, taste, dwell_s(user), touched, of)


def action_indices(coded: NDArray[np.uint8], actions: tuple[Action, ...], codes: Mapping[str, int]) -> Indices:
    """intp[m]: each event's place in the configured actions; len(actions) for one no longer configured.

    Codes are kept for the life of the data, while the configuration may change.

    >>> action_indices(np.array([7, 2], np.uint8), (Action("view"), Action("cart")), {"view": 2, "cart": 3, "old": 7})
    array([2, 0])
    """
    place = np.full(256, len(actions), np.intp)
    for index, action in enumerate(actions):
        place[codes.get(action.name, 0)] = index
    place[0] = len(actions)
    return place[coded]


def user_counts(user: UserHistory, index: Indices, *, now_ms: int, actions: int) -> Floats:
    """float32[actions * 5]: per action the user's events within 5 min, 1 h, 24 h, 7 d, and all of the log."""
    starts = [*np.searchsorted(user.ts_ms, [now_ms - window for window in WINDOWS_MS], side="right"), 0]
    counts = [np.bincount(index[start:], minlength=actions + 1)[:actions] for start in starts]
    return np.stack(counts, axis=1).astype(np.float32).ravel()


def user_impressions(user: UserHistory, *, now_ms: int) -> Floats:
    """float32[5]: lists shown to the user within 5 min, 1 h, 24 h, 7 d, and all that the log keeps."""
    starts = np.searchsorted(user.impressions_ts_ms, [now_ms - window for window in WINDOWS_MS], side="right")
    size = len(user.impressions_ts_ms)
    return np.array([*(size - starts), size], np.float32)


def user_recency(user: UserHistory, index: Indices, *, now_ms: int, actions: int) -> Floats:
    """float32[actions + 1]: seconds since the user's newest event, then since the newest of each action; or NaN."""
    newest = np.full(actions + 2, np.nan)  # of any action, of each, of one no longer configured
    newest[index + 1] = user.ts_ms  # ascending: the newest is written last
    if len(user.ts_ms):
        newest[0] = user.ts_ms[-1]
    return ((now_ms - newest[: actions + 1]) / 1000).astype(np.float32)


SESSION = (
    "session_length",  # events of the session that is still going on
    "session_items",
    "session_age_s",
    "session_dwell_mean_s",
    "session_dwell_last_s",
    "sessions",  # in the log
    "repeat_share",  # of the log's events, on an item touched before
)


def user_session(user: UserHistory, past: Past, *, now_ms: int) -> Floats:
    """float32[7]: the columns of `SESSION`; NaN where there is nothing to measure."""
    size = len(user.ts_ms)
    if not size:
        return np.array([0, 0, np.nan, np.nan, np.nan, 0, np.nan], np.float32)
    inside = user.in_session
    dwell = past.dwell_s[inside]
    looked = dwell[~np.isnan(dwell)]
    return np.array(
        [
            inside.sum(),
            np.count_nonzero(np.bincount(past.of[inside])),
            (now_ms - user.ts_ms[inside][0]) / 1000 if inside.any() else np.nan,
            looked.mean() if len(looked) else np.nan,
            looked[-1] if len(looked) else np.nan,
            user.sessions.max() + 1,
            1 - len(past.distinct) / size,
        ],
        np.float32,
    )


def dwell_s(user: UserHistory) -> NDArray[np.float64]:
    """float64[m]: seconds to the next event of the same session, at most 300; NaN for a session's last event."""
    dwell = np.full(len(user.ts_ms), np.nan)
    order = user.sessions.argsort(kind="stable")
    sessions, ts_ms = user.sessions[order], user.ts_ms[order]
    same = sessions[1:] == sessions[:-1]
    gaps = np.minimum(ts_ms[1:] - ts_ms[:-1], DWELL_CAP_MS) / 1000
    dwell[order[:-1][same]] = gaps[same]
    return dwell


USER_ITEM = (
    "recency_s",  # since the newest event on the item; NaN: never touched, as for both ranks
    "recency_rank",  # 1 = the item touched last, over the whole log
    "session_recency_rank",  # the same over the session
    "last_action",  # 1 + place of the newest action in the configuration, 0: never touched
    "weight",  # action weights, half-life 1 d
    "session_count",
    "session_share",  # of the session's events
    "touched_last",  # 1 for the item of the newest event
    "run_length",  # events in a row on the item, in its newest run in the session
    "dwell_s",  # all dwell on the item
    "bought",  # 1 if ever bought
)


def user_item(user: UserHistory, past: Past, items: Hashes, *, now_ms: int, actions: int) -> Floats:
    """float32[n, actions + len(USER_ITEM)]: times by action, then the columns of `USER_ITEM`, per candidate."""
    table = _item_table(user, past, now_ms=now_ms, actions=actions)
    block = table.take(_row_of(past.distinct, items), axis=0)
    if len(user.bought):
        block[:, -1] = _is_in(user.bought, items)
    return block


def _item_table(user: UserHistory, past: Past, *, now_ms: int, actions: int) -> Floats:
    """float32[distinct + 1, ...]: `user_item` of every touched item, and of an untouched one as the last row."""
    of, index = past.of, past.actions
    size, events = len(past.distinct), len(of)
    table = np.zeros((size + 1, actions + len(USER_ITEM)), np.float32)
    recency, rank, session_rank, last, weight, in_session, share, newest, run, dwell, _ = range(actions, table.shape[1])
    table[size, [recency, rank, session_rank]] = np.nan
    if not events:
        return table
    table[:size, :actions] = _counts(of * (actions + 1) + index, size * (actions + 1)).reshape(size, -1)[:, :actions]
    last_at = np.zeros(size, np.intp)
    last_at[of] = np.arange(events)  # ascending: the newest is written last
    age_ms = (now_ms - user.ts_ms).astype(np.float64)
    inside = np.flatnonzero(user.in_session)
    table[:size, recency] = age_ms[last_at] / 1000
    table[:size, rank] = _descending_rank(last_at)
    table[:size, last] = (index[last_at] + 1) % (actions + 1)
    table[:size, weight] = _counts(of, size, user.weights.astype(np.float64) * np.exp2(-age_ms / RECENT_HALF_LIFE_MS))
    table[:size, dwell] = _counts(of, size, np.where(np.isnan(past.dwell_s), 0.0, past.dwell_s))
    table[of[-1], newest] = 1
    table[:size, session_rank] = np.nan
    if len(inside):
        touched = of[inside]
        times = _counts(touched, size)
        table[:size, in_session] = times
        table[:size, share] = times / len(inside)
        here = np.flatnonzero(times)
        last_inside = np.zeros(size, np.intp)
        last_inside[touched] = np.arange(len(inside))
        table[here, session_rank] = _descending_rank(last_inside[here])
        table[here, run] = _newest_runs(touched)[last_inside[here]]
    return table


def _newest_runs(touched: Indices) -> NDArray[np.int64]:
    """For each event the length of the run of equal items that it stands in.

    >>> _newest_runs(np.array([4, 4, 7, 4])).tolist()
    [2, 2, 1, 1]
    """
    run = np.concatenate([[0], np.cumsum(touched[1:] != touched[:-1])])
    lengths: NDArray[np.int64] = np.bincount(run)[run]
    return lengths


def _descending_rank(places: Indices) -> Indices:
    """1 for the greatest; places are distinct.

    >>> _descending_rank(np.array([5, 9, 2])).tolist()
    [2, 1, 3]
    """
    ranks = np.empty(len(places), np.intp)
    ranks[(-places).argsort()] = np.arange(1, len(places) + 1)
    return ranks


def _counts(of: Indices, size: int, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    return np.bincount(of, weights, minlength=size).astype(np.float64, copy=False)


def _row_of(known: Hashes, items: Hashes) -> Indices:
    """Each candidate's place in the sorted `known`, len(known) where it is not there."""
    if not len(known):
        return np.zeros(len(items), np.intp)
    at = np.minimum(known.searchsorted(items), len(known) - 1)
    return np.where(known.take(at) == items, at, len(known))


def _is_in(few: Hashes, items: Hashes) -> NDArray[np.bool_]:
    ordered = np.sort(few)
    return _row_of(ordered, items) < len(ordered)
