"""Sessions out of many users' logs at once: what the neighbours of a session consist of.

An item's session list names (user, session, newest touch); the session's items stand in that user's log. All logs are
read as one array: 100 neighbours cost one pass, not 100.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.scene import Hashes
from features.user_log import HEADER, RECORD_BYTES, times_ms
from features.user_log import sections as log_sections

_RECORD = log_sections(b"")[0].dtype


def session_members(
    logs: Sequence[bytes],
    sessions: NDArray[np.uint16],
    ts_ms: NDArray[np.int64],
    *,
    gap_ms: int,
    counted: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], Hashes]:
    """The items of session `sessions[i]` in `logs[i]`, one an event: owner int64[r] (= i, ascending), items uint64[r].

    A session without an id (0) is the run of such records around time `ts_ms[i]` that no gap over `gap_ms` parts.
    `counted` bool[256] says which action codes count (negative ones do not). A log that is gone has no items.
    """
    sizes = np.array([HEADER.unpack_from(log)[0] if log else 0 for log in logs], np.int64)
    packed = b"".join(
        log[HEADER.size : HEADER.size + RECORD_BYTES * size] for log, size in zip(logs, sizes.tolist(), strict=True)
    )
    rows = np.frombuffer(packed, _RECORD)
    # compared in the log's own byte order: 25 000 rows of 100 long logs take 24 us instead of 39
    wanted = np.repeat(sessions.astype(">u2").view(np.uint16), sizes)
    inside = np.flatnonzero(rows["session"].view(np.uint16) == wanted)
    inside = inside[counted[rows["action"][inside]]]
    owner = np.repeat(np.arange(len(logs)), sizes)[inside]
    if (sessions == 0).any():
        near = (sessions[owner] != 0) | _runs_around(times_ms(rows, inside), owner, ts_ms, gap_ms)
        inside, owner = inside[near], owner[near]
    return owner, rows["item"][inside].astype(np.uint64)  # fields of the rows, never rows: a third of the time


def _runs_around(
    times: NDArray[np.int64], owner: NDArray[np.int64], ts_ms: NDArray[np.int64], gap_ms: int
) -> NDArray[np.bool_]:
    """bool[r]: whether the row lies in the same gapless run of its owner as that owner's `ts_ms`."""
    breaks = (np.diff(times, prepend=times[:1]) > gap_ms) | (np.diff(owner, prepend=owner[:1]) != 0)
    run = np.cumsum(breaks)
    wanted = np.full(len(ts_ms), -1)
    here = times == ts_ms[owner]
    wanted[owner[here]] = run[here]
    near: NDArray[np.bool_] = run == wanted[owner]
    return near
