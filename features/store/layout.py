"""Names in the store: shards' hash tags, keys, `meta` fields.

A key is `{tag}:<app>:<generation>:<kind>:<16 hex of a 64-bit hash>`. All keys of a shard share the tag, so in a cluster
they share a slot and one script call can touch them. Tags are the smallest integers whose CRC16 slot lies in the
shard's share of the 16 384 slots: shards spread evenly over any number of nodes, which "s00", "s01" ... do not.

`{0}:<app>:meta` (outside the shards: its place does not depend on their number) holds `format`, `shards`, the serving
`generation`, and for each generation g: `columns:g`, `action:g:<code>`, `log:g:<topic>`, `start:g:<topic>:<partition>`.
An action keeps its code for ever and a new one takes the next free code, since user logs hold codes. Format 2 is the
first whose shards keep a sample of their items (`sample_score`).
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from features.domain import Domain
from features.ids import hash64
from features.store.port import ANEW, Layout, Part, Phase, StateForeign

FORMAT = "2"
SLOTS = 16_384
CODES_MAX = 255
DAY_MS = 86_400_000
TOP_MAX = 512  # per shard
NEW_MAX = 256
VALUE_LIST_MAX = 32
SAMPLE_MAX = 64

_APP = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@lru_cache(maxsize=32)
def tags(shards: int) -> tuple[str, ...]:
    """One hash tag a shard.

    >>> tags(16)
    ('10', '3', '61', '43', '11', '2', '60', '42', '12', '1', '63', '41', '13', '0', '62', '40')
    """
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        found.setdefault(slot(str(number)) * shards // SLOTS, str(number))
        number += 1
    return tuple(found[shard] for shard in range(shards))


def slot(tag: str) -> int:
    """The cluster slot of a hash tag: CRC16 (XMODEM) mod 16 384.

    >>> slot("123456789") == 0x31C3
    True
    """
    return crc_hqx(tag.encode(), 0) % SLOTS


def prefixes(app: str, generation: int, shards: int) -> tuple[str, ...]:
    """What the keys of each shard begin with. Raises `ValueError` for an app name with other than A-Z a-z 0-9 _ . -

    >>> prefixes("headrace", 1, 16)[0]
    '{10}:headrace:1:'
    """
    check_app(app)
    return tuple(f"{{{tag}}}:{app}:{generation}:" for tag in tags(shards))


def check_app(app: str) -> None:
    """Refuses a name that would break a key or a pattern."""
    if not _APP.fullmatch(app):
        raise ValueError(f"redis.app: {app!r} has other than 1-64 of A-Z a-z 0-9 _ . -")


def meta_key(app: str) -> str:
    """Where `meta` lives, whatever the number of shards."""
    check_app(app)
    return f"{{0}}:{app}:meta"


def mark_field(phase: Phase, part: Part) -> str:
    """A mark's field in its shard's `hwm` hash."""
    return f"{phase}:{part.topic}:{part.partition}"


def top_key(name: str) -> str:
    """The key, within a shard, of a bounded list: `top`, `new`, `sample`, or `a:<attribute>:<value>` by its hash."""
    return name if name in ("top", "new", "sample") else f"a:{hash64(name):016x}"


def sample_score(item: int) -> float:
    """Where an item stands in its shard's sample, greatest first: the upper 48 bits of its hash, exact as a double.

    Hashes are uniform, so the greatest of those that have a record are a sample of them, the same in any order.

    >>> sample_score(2**64 - 1) == 2**48 - 1
    True
    """
    return float(item >> 16)


def ttl_s(retention_ms: int) -> int:
    """Retention is event time; a key lives a day longer, so that expiry never changes a feature."""
    return (retention_ms + DAY_MS) // 1000


def weights(domain: Domain) -> tuple[float, ...]:
    """One weight a ring column for the top score: an action's weight; 0 for impressions and negative actions."""
    return (0.0, *(0.0 if action.negative else float(action.weight) for action in domain.counted))


def check_meta(meta: Mapping[str, str], *, shards: int, generation: int, columns: tuple[str, ...]) -> None:
    """Raises `StateForeign` naming what the state was built with and what the configuration wants."""
    if meta.get("format", FORMAT) != FORMAT:
        raise StateForeign(f"the state has format {meta['format']}, this version of Headrace keeps {FORMAT}: {ANEW}")
    wanted = {"shards": str(shards), f"columns:{generation}": columns_text(columns)}
    for field, value in wanted.items():
        if meta.get(field, value) != value:
            raise StateForeign(
                f"the state has {field.split(':')[0]} {meta[field]}, the configuration {value}: "
                f"restore the configuration; else {ANEW}"
            )


def fixed_by(meta: Mapping[str, str], generation: int) -> dict[str, str]:
    """The fields of a settled `meta` that what this process writes rests on: format, shards, columns, codes.

    >>> fixed_by({"format": "2", "columns:1": "[]", "action:1:1": "view", "action:2:1": "buy", "start:1:t:0": "7"}, 1)
    {'format': '2', 'columns:1': '[]', 'action:1:1': 'view'}
    """
    heads = (f"columns:{generation}", f"action:{generation}:")
    return {name: value for name, value in meta.items() if name in ("format", "shards") or name.startswith(heads)}


def lost_fields(settled: Mapping[str, str], meta: Mapping[str, str]) -> dict[str, str]:
    """What of `settled` is missing in `meta`. Raises `StateForeign` where `meta` has something else.

    >>> lost_fields({"format": "2", "action:1:1": "view"}, {"format": "2", "start:1:t:0": "7"})
    {'action:1:1': 'view'}
    """
    for field, value in settled.items():
        if meta.get(field, value) != value:
            raise StateForeign(
                f"the state was lost and begun anew by another: it has {field} {meta[field]}, this process writes "
                f"{value}: start this worker again"
            )
    return {field: value for field, value in settled.items() if field not in meta}


def columns_text(columns: tuple[str, ...]) -> str:
    """Columns as `meta` holds them: a JSON list, in order."""
    return msgspec.json.encode(columns).decode()


def codes_of(meta: Mapping[str, str], generation: int) -> dict[str, int]:
    """The action codes that `meta` holds."""
    head = f"action:{generation}:"
    return {name: int(field[len(head) :]) for field, name in meta.items() if field.startswith(head)}


def free_code(codes: Mapping[str, int]) -> int:
    """The next code; codes are never reused. Raises `StateForeign` when all 255 are taken."""
    code = max(codes.values(), default=0) + 1
    if code > CODES_MAX:
        raise StateForeign(f"all {CODES_MAX} action codes of this state are taken: {ANEW}")
    return code


def layout_of(domain: Domain, meta: Mapping[str, str], *, shards: int, generation: int) -> Layout:
    """The layout that a checked `meta` fixes."""
    return Layout(shards, domain.columns, codes_of(meta, generation))
