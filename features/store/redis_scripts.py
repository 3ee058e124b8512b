"""The store's scripts. Each touches one slot: it derives its keys from KEYS[1], whose hash tag they share.

A script that changes what counts adds one to its shard's `begun` with its first write, and with its last sets `ended` to
one more than it read. They differ where more of a script is in the state than was seen to end: Redis 7 with
`aof-load-truncated yes` leaves the beginning of a torn script in its append-only file (all of it, where EXEC was torn)
and applies it two starts later, before what was done instead. Applying and beats answer TORN in such a shard from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from features.store.redis_replies import good, is_unknown_script
from features.store.redis_wire import Wire

Call = tuple[str, Sequence[Any]]  # KEYS[1], ARGV


class Script:
    """A script and its name in the server's cache."""

    def __init__(self, file: str) -> None:
        self.text = (files("features.store") / file).read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


APPLY_USERS = Script("apply_users.lua")
APPLY_ITEMS = Script("apply_items.lua")
CARRY = Script("carry.lua")
BEAT = Script("beat.lua")
SWEEP = Script("sweep.lua")
SWEPT = Script("swept.lua")


def run(wire: Wire, script: Script, calls: Sequence[Call]) -> list[Any]:
    """One pipeline of script calls. A server that does not know the script gets it and those calls again."""
    replies = _send(wire, script, calls)
    unknown = [at for at, reply in enumerate(replies) if is_unknown_script(reply)]
    if unknown:
        wire.load(script.text)
        for at, reply in zip(unknown, _send(wire, script, [calls[at] for at in unknown]), strict=True):
            replies[at] = reply
    return good(replies)


def _send(wire: Wire, script: Script, calls: Sequence[Call]) -> list[Any]:
    return wire.exchange([("EVALSHA", script.sha, 1, key, *args) for key, args in calls])
