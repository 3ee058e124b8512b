"""Names in the store: shards' hash tags, keys, `meta` fields.

A key is `{tag}:<app>:<generation>:<kind>:<16 hex of a 64-bit hash>`. All keys of a shard share the tag, so in a cluster
they share a slot and one script call can touch them. Tags are the smallest integers whose CRC16 slot lies in the
shard's share of the 16 384 slots: shards spread evenly over any number of nodes, which "s00", "s01" ... do not.

`{0}:<app>:meta` (outside the shards: its place does not depend on their number) names the serving `generation`, the one
that a rebuild fills (`building`) and the `newest` that one ever filled, and the `salt` of tombstones' names (one for
all generations: what one remembers of forgotten users is carried into the next by name), and holds for each generation
g: `format:g`, `shards:g`, `columns:g`, `action:g:<code>`, `log:g:<topic>`, `start:g:<topic>:<partition>`,
`built_for:g`. So the next generation may have another format, other shards and other
columns than the one that serves. An action keeps its code as long as its generation lives and a new one takes the next
free code, since user logs hold codes. `{0}:<app>:rebuild` is the lease of the rebuild at work. Format 3 is the first
that keeps format and shards by generation.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Mapping
from functools import lru_cache
from math import gcd

import msgspec

from features.domain import Domain
from features.ids import hash64
from features.store.port import ANEW, Layout, Part, Phase, StateForeign, StateMoved

FORMAT = "3"
SLOTS = 16_384
CODES_MAX = 255
DAY_MS = 86_400_000
TOP_MAX = 512  # per shard
NEW_MAX = 256
VALUE_LIST_MAX = 32
SAMPLE_MAX = 64
SWEPT_MAX = 1_000  # forgotten users a pass over a shard's session lists; the next take the next

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


def lease_key(app: str) -> str:
    """Where the rebuild at work says that it lives; in the slot of `meta`."""
    check_app(app)
    return f"{{0}}:{app}:rebuild"


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


def serving(meta: Mapping[str, str]) -> int:
    """The generation that workers read and write; a state begins with 1."""
    return int(meta.get("generation", "1"))


def generations(meta: Mapping[str, str]) -> set[int]:
    """Every generation that `meta` says anything of.

    >>> sorted(generations({"generation": "2", "columns:2": "[]", "start:1:t:0": "7", "building": "3"}))
    [1, 2, 3]
    """
    named = {field.split(":")[1] for field in meta if ":" in field}
    named.update(meta[field] for field in ("generation", "building") if field in meta)
    return {int(number) for number in named if number.isdecimal()}


def fields_of(meta: Mapping[str, str], generation: int) -> list[str]:
    """The fields that speak of one generation alone.

    >>> fields_of({"generation": "1", "columns:1": "[]", "columns:11": "[]", "start:1:t:0": "7"}, 1)
    ['columns:1', 'start:1:t:0']
    """
    return [field for field in meta if field.split(":")[1:2] == [str(generation)]]


def starts(meta: Mapping[str, str], generation: int) -> dict[Part, int]:
    """From which offset on each part went into a generation.

    >>> starts({"start:1:t:0": "7", "start:2:t:0": "9", "log:1:t": "ab"}, 1)
    {Part(topic='t', partition=0): 7}
    """
    named = (field.split(":") for field in fields_of(meta, generation) if field.startswith("start:"))
    return {
        Part(topic, int(partition)): int(meta[f"start:{at}:{topic}:{partition}"]) for _, at, topic, partition in named
    }


def check_place(meta: Mapping[str, str], *, generation: int, instead_of: int | None = None) -> None:
    """Raises `StateMoved` where `meta` names another serving generation than the one that a store was opened with.

    instead_of: the store fills `generation`, which is to serve instead of that one. What `meta` lost is no move.

    >>> check_place({"generation": "1", "building": "2"}, generation=2, instead_of=1)
    >>> check_place({"generation": "2"}, generation=1)
    Traceback (most recent call last):
    features.store.port.StateMoved: generation 2 of the state serves, no longer 1
    """
    expected = str(generation if instead_of is None else instead_of)
    if (found := meta.get("generation", expected)) != expected:
        raise StateMoved(f"generation {found} of the state serves, no longer {expected}")
    if instead_of is None:
        return
    if (built := meta.get("building", str(generation))) != str(generation):
        raise StateMoved(f"generation {built} of the state is being built, no longer {generation}")
    if "building" not in meta and int(meta.get("newest", "0")) >= generation:
        raise StateMoved(f"generation {generation} of the state was given up meanwhile")


def check_meta(meta: Mapping[str, str], *, shards: int, generation: int, columns: tuple[str, ...]) -> None:
    """Raises `StateForeign` naming what the state was built with and what the configuration wants."""
    kept = meta.get(f"format:{generation}", meta.get("format", FORMAT))  # before format 3 it was one for all
    if kept != FORMAT:
        raise StateForeign(f"the state has format {kept}, this version of Headrace keeps {FORMAT}: {ANEW}")
    wanted = {f"shards:{generation}": str(shards), f"columns:{generation}": columns_text(columns)}
    for field, value in wanted.items():
        if meta.get(field, value) != value:
            raise StateForeign(
                f"the state has {field.split(':')[0]} {meta[field]}, the configuration {value}: "
                f"restore the configuration; else {ANEW}"
            )


def fixed_by(meta: Mapping[str, str], generation: int) -> dict[str, str]:
    """The fields of a settled `meta` that what this process writes rests on: format, shards, columns, codes, salt.

    >>> fixed_by({"salt": "0aff", "columns:1": "[]", "action:1:1": "view", "action:2:1": "buy", "start:1:t:0": "7"}, 1)
    {'salt': '0aff', 'columns:1': '[]', 'action:1:1': 'view'}
    """
    kinds = ("format", "shards", "columns", "action")
    salt = {"salt": meta["salt"]} if "salt" in meta else {}
    return salt | {field: meta[field] for field in fields_of(meta, generation) if field.split(":")[0] in kinds}


def lost_fields(settled: Mapping[str, str], meta: Mapping[str, str]) -> dict[str, str]:
    """What of `settled` is missing in `meta`. Raises `StateForeign` where `meta` has something else.

    >>> lost_fields({"format:1": "3", "action:1:1": "view"}, {"format:1": "3", "start:1:t:0": "7"})
    {'action:1:1': 'view'}
    """
    for field, value in settled.items():
        if meta.get(field, value) != value:
            what = "another salt" if field == "salt" else f"{field} {meta[field]}, this process writes {value}"
            raise StateForeign(f"the state was lost and begun anew by another: it has {what}: start this worker again")
    return {field: value for field, value in settled.items() if field not in meta}


def salt_of(meta: Mapping[str, str]) -> bytes:
    """What names of tombstones are keyed with; drawn when a state is begun, so they tell nothing to the outside.

    >>> salt_of({"salt": "0aff"}).hex()
    '0aff'
    """
    return bytes.fromhex(meta["salt"])


def carried_to(shard: int, *, old: int, new: int) -> range:
    """The shards (of `new`) that may own what lies in a shard (of `old`), where only the name of a key is known.

    >>> list(carried_to(3, old=16, new=16)), list(carried_to(3, old=4, new=8)), list(carried_to(3, old=2, new=3))
    ([3], [3, 7], [0, 1, 2])
    """
    step = gcd(old, new)
    return range(shard % step, new, step)


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
