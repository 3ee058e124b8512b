"""The digest: one hash of the exact state, equal for any store, order, split or number of workers.

Over user logs (without versions and tags), item rings, the world's ring and item records; not over neighbours, top
lists and marks, which depend on the order of arrival, nor over the sample of items, which follows from the records.
What may have expired is left out on both sides: entities and log records that lie more than retention + 1 day before
the newest event of all. Take it while nothing is applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b, sha256

import numpy as np
from numpy.typing import NDArray

from features import user_log
from features.domain import Domain
from features.rings import MINUTE_MS
from features.store.layout import DAY_MS
from features.store.port import FeatureStore, Layout

_TAG = slice(user_log.TAG_AT, user_log.RECORD_BYTES)


def digest(store: FeatureStore, layout: Layout, domain: Domain) -> str:
    """64 hex digits: sha256 over the sorted (kind, key, canonical value) of all that the digest covers."""
    newest_ms = max(
        max((_newest_ms(blob) for _, blob in store.scan("u")), default=0),
        max((_head_ms(ring) for _, ring in store.scan("i")), default=0),
    )
    total = sha256()
    for kind, key, value in _entries(store, layout, domain, newest_ms=newest_ms):
        total.update(f"{kind}:{key}:{len(value)}:".encode())
        total.update(value)
    return total.hexdigest()


def _entries(
    store: FeatureStore, layout: Layout, domain: Domain, *, newest_ms: int
) -> Iterator[tuple[str, str, bytes]]:
    """In order, as they are read: a state of a million users need not fit into memory."""
    yield "c", "", "\0".join(layout.columns).encode()
    yield from (("g", key, ring) for key, ring in store.scan("g"))
    oldest_ms = newest_ms - domain.item_retention_ms - DAY_MS
    yield from (("i", key, ring) for key, ring in store.scan("i") if _head_ms(ring) >= oldest_ms)
    yield from (("r", key, record) for key, record in store.scan("r"))
    codes = _codes(layout)
    oldest_ms = newest_ms - domain.user_retention_ms - DAY_MS
    for key, blob in store.scan("u"):
        if _newest_ms(blob) >= oldest_ms:
            yield "u", key, canonical(blob, codes, oldest_ms=max(oldest_ms, 0))


def canonical(blob: bytes, codes: NDArray[np.uint8], *, oldest_ms: int) -> bytes:
    """A user log without what may differ between two runs: version, tags, the numbers of action codes."""
    actions, impressions, bought = user_log.sections(blob)
    parts = []
    for section in (actions, impressions):
        kept = section[user_log.times_ms(section) >= oldest_ms]
        rows = kept.view(np.uint8).reshape(len(kept), user_log.RECORD_BYTES).copy()
        rows[:, _TAG] = 0
        rows[:, user_log.ACTION_AT] = codes[rows[:, user_log.ACTION_AT]]
        parts.append(rows.tobytes())
    parts.append(bought[user_log.times_ms(bought) >= oldest_ms].tobytes())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _codes(layout: Layout) -> NDArray[np.uint8]:
    """Action code -> a byte of the action's name: two stores may number their actions differently."""
    table = np.zeros(256, np.uint8)
    for name, code in layout.action_codes.items():
        table[code] = blake2b(name.encode(), digest_size=1).digest()[0]
    return table


def _newest_ms(blob: bytes) -> int:
    return max(
        (int(user_log.times_ms(section[-1:])[0]) for section in user_log.sections(blob) if len(section)), default=0
    )


def _head_ms(ring: bytes) -> int:
    return int.from_bytes(ring[:4], "big") * MINUTE_MS
