"""What the state knows of one user or one item, as plain values for `headrace state show`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from features import item_record, rings, user_log
from features.ids import hash64
from features.scene import Hashes
from features.store.port import PHASES, FeatureStore, Part
from features.view import StateView

WINDOWS = ("5m", "1h", "24h", "7d")
HALF_LIVES = ("1d", "7d", "30d")
NEIGHBOURS_SHOWN = 10
PARTITIONS_LOOKED_AT = 64


def user_facts(store: FeatureStore, view: StateView, user_id: str, *, now_ms: int | None) -> dict[str, Any] | None:
    """The user's log as features see it at `now_ms` (None: at its newest event); None for a user without one."""
    blob = store.read_users([hash64(user_id)])[0]
    if not blob:
        return None
    newest_ms = max((int(user_log.times_ms(rows)[-1]) for rows in user_log.sections(blob) if len(rows)), default=0)
    now_ms = newest_ms if now_ms is None else now_ms
    history = view.history(blob, now_ms=now_ms)
    name_of = {code: name for name, code in view.layout.action_codes.items()}
    ids = named(view, history.items)
    return {
        "user_id": user_id,
        "now_ms": now_ms,
        "actions": [
            {
                "ts_ms": ts_ms,
                "action": name_of.get(code, str(code)),
                "item_id": item,
                "session": session,
                "open": is_open,
            }
            for ts_ms, code, item, session, is_open in zip(
                history.ts_ms.tolist(),
                history.actions.tolist(),
                ids,
                history.sessions.tolist(),
                history.in_session.tolist(),
                strict=True,
            )
        ],
        "impressions": len(history.impressions_ts_ms),
        "bought": named(view, history.bought),
        "bytes": len(blob),
    }


def item_facts(store: FeatureStore, view: StateView, item_id: str, *, now_ms: int | None) -> dict[str, Any] | None:
    """The item's record, counts and neighbours at `now_ms` (None: at its newest event); None for one never heard of."""
    key = hash64(item_id)
    ring, record = store.read_rings([key])[0], store.read_records([key])[0]
    if not ring and not record:
        return None
    held = rings.unpack([ring], columns=len(view.layout.columns))
    now_ms = int(held.heads[0, 0]) * rings.MINUTE_MS if now_ms is None else now_ms
    seen = view.items(np.array([key], np.uint64), now_ms=now_ms)
    hashes, weights = view.co_visited(np.array([key], np.uint64))[0]
    best = np.argsort(-weights, kind="stable")[:NEIGHBOURS_SHOWN]
    return {
        "item_id": item_id,
        "now_ms": now_ms,
        "record": _record(record),
        "counts": {
            column: dict(zip(WINDOWS, seen.counts[0, at].tolist(), strict=True)) | {"ever": int(seen.lifetime[0, at])}
            for at, column in enumerate(view.layout.columns)
        },
        "decayed": {
            column: dict(zip(HALF_LIVES, np.round(seen.decayed[0, at].astype(float), 3).tolist(), strict=True))
            for at, column in enumerate(view.layout.columns)
        },
        "goes_with": dict(zip(named(view, hashes[best]), np.round(weights[best], 4).tolist(), strict=True)),
        "sessions": len(view.sessions(np.array([key], np.uint64))[0][0]),
    }


def named(view: StateView, hashes: Hashes) -> list[str]:
    """The items' ids, `#<16 hex>` where the state has only the hash."""
    return [
        f"#{key:016x}" if item is None else item for key, item in zip(hashes.tolist(), view.ids(hashes), strict=True)
    ]


def marks(store: FeatureStore, topics: Iterable[str]) -> dict[str, int]:
    """`topic-partition`: the last offset that every shard has applied in both phases, of every part ever begun."""
    parts = [Part(topic, partition) for topic in topics for partition in range(PARTITIONS_LOOKED_AT)]
    return {
        f"{part.topic}-{part.partition}": min(int(store.marks(phase, part).min()) for phase in PHASES)
        for part in parts
        if store.started_at(part) is not None
    }


def _record(blob: bytes) -> dict[str, Any] | None:
    if not blob:
        return None
    held = item_record.unpack(blob)
    return {"ts_ms": held.newest_ts_ms, "available": held.available, "gone": held.gone, "attributes": held.attributes}
