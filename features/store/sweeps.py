"""What the sweep's scripts are told: who has to go from the session lists of a shard, and which lists those are.

What is to be swept stands in a hash `sweep` of each shard, by user (16 hex digits): until ms as 6 bytes, then 8 bytes
of each item of the shard that is known to list the user. These lists come first; a pass over all lists finds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TIME_BYTES = 6


def listed(users: Mapping[int, bytes]) -> list[str]:
    """The items (16 hex digits) that are known to list one of the users.

    >>> listed({7: bytes(6) + (10).to_bytes(8, "big")})
    ['000000000000000a']
    """
    found = (body[at : at + 8].hex() for body in users.values() for at in range(TIME_BYTES, len(body), 8))
    return list(dict.fromkeys(found))


def by_shard(keys: Iterable[str], prefixes: Mapping[str, int]) -> dict[int, list[str]]:
    """The items of session lists' keys by the shard that owns them; keys under other prefixes are left out.

    >>> by_shard(["{3}:a:1:s:0a", "{4}:a:1:s:0b"], {"{3}:a:1:": 1})
    {1: ['0a']}
    """
    found: dict[int, list[str]] = {}
    for key in keys:
        prefix, _, item = key.rpartition("s:")
        if prefix in prefixes:
            found.setdefault(prefixes[prefix], []).append(item)
    return found


def wanted(users: Mapping[int, bytes]) -> list[int | bytes]:
    """The users as `sweep.lua` takes them: how many, then each with its time."""
    told: list[int | bytes] = [len(users)]
    for user, body in users.items():
        told += (user.to_bytes(8, "big"), body[:TIME_BYTES])
    return told


def done(users: Mapping[int, bytes]) -> list[bytes]:
    """The users as `swept.lua` takes them: each with what was swept."""
    return [told for user, body in users.items() for told in (b"%016x" % user, body)]
