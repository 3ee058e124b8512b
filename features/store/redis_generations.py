"""The generations of an app's state: which one serves, which one a rebuild fills, and how the one becomes the other.

Only one rebuild is at work: it holds a lease that ends by itself when the process died. `meta` remembers which
generation it was filling, so that another can go on. The flip compares and sets one field of one key: it is one moment
for all workers, in a cluster too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.store import layout as names
from features.store.port import StateMoved
from features.store.redis_replies import answering, good
from features.store.redis_scripts import Script, run
from features.store.redis_wire import Wire

LEASE_MS = 5_000  # safe at any length: who lost it while asleep can neither write nor flip when it wakes up

ABANDON = Script("abandon.lua")
CLAIM = Script("claim.lua")
FLIP = Script("flip.lua")
LET_GO = Script("let_go.lua")


@dataclass(frozen=True, slots=True)
class Standing:
    """What `meta` and the lease say. `serving` is 1 where there is no state yet; `building` None: nothing was begun.

    `lease`: "<owner> <what it tells>" of the rebuild at work, "" where nobody is: then what is being built was abandoned.
    """

    serving: int
    building: int | None
    built_for: str  # what the one that is being built is built for
    lease: str
    meta: Mapping[str, str]

    @property
    def next(self) -> int:
        """A generation that nobody has ever written to: one who filled a removed one may be asleep."""
        return max(*names.generations(self.meta), self.serving, int(self.meta.get("newest", "1"))) + 1

    @property
    def leftovers(self) -> list[int]:
        """Generations that neither serve nor are being built."""
        return sorted(names.generations(self.meta) - {self.serving, self.building})


class Generations:
    """See the module. `wire` as the store's own; not for use by two threads at once. Every method may raise `StoreAway`."""

    def __init__(self, wire: Wire, *, app: str) -> None:
        self._wire, self._app = wire, app
        self._meta, self._lease = names.meta_key(app), names.lease_key(app)

    def look(self) -> Standing:
        """How it stands now."""
        raw, lease = self._commands(("HGETALL", self._meta), ("GET", self._lease))
        meta = {field.decode(): value.decode() for field, value in zip(raw[::2], raw[1::2], strict=True)}
        building = int(meta["building"]) if "building" in meta else None
        return Standing(
            names.serving(meta), building, meta.get(f"built_for:{building}", ""), (lease or b"").decode(), meta
        )

    def claim(
        self, owner: str, *, instead_of: int, building: int, before: int | None = None, told: str = "begins"
    ) -> None:
        """Takes the lease to fill `building`, to serve instead of `instead_of`; call it again to keep the lease.

        `before`: what was being built when you looked. Raises `StateMoved` when somebody else was faster.
        """
        args = [owner, told, LEASE_MS, instead_of, "" if before is None else before, building]
        self._script(CLAIM, args)

    def remember(self, generation: int, built_for: str) -> None:
        """Says what `generation` is built for."""
        self._commands(("HSETNX", self._meta, f"built_for:{generation}", built_for))

    def flip(self, owner: str, *, instead_of: int, building: int) -> None:
        """Makes `building` serve. Raises `StateMoved` when the lease is lost, or something else serves by now."""
        self._script(FLIP, [owner, instead_of, building])

    def let_go(self, owner: str) -> None:
        """Gives the lease back; what is being built can be gone on with at once."""
        self._script(LET_GO, [owner])

    def abandon(self, building: int) -> None:
        """Gives up what was being built, before it is removed: a rebuild that slept is refused when it wakes.

        Raises `StateMoved` when a rebuild is at work.
        """
        self._script(ABANDON, [building])

    def seal(self, generation: int) -> int:
        """Takes the marks of a generation that does not serve: no writer that still holds it can write to it from then
        on. Returns how many keys went.
        """
        meta = self.look().meta
        if generation == names.serving(meta):
            raise ValueError(f"generation {generation} serves")
        shards = int(meta.get(f"shards:{generation}", meta.get("shards", "0")))
        prefixes = names.prefixes(self._app, generation, shards)
        return sum(self._commands(*(("UNLINK", f"{prefix}hwm") for prefix in prefixes))) if prefixes else 0

    def remove(self, generation: int) -> int:
        """Deletes all keys of a generation that does not serve, page by page; returns how many."""
        removed = self.seal(generation)
        meta = self.look().meta
        with answering():
            for page in self._wire.pages(f"*:{self._app}:{generation}:*"):
                removed += sum(good(self._wire.exchange([("UNLINK", key) for key in page])))
        if gone := names.fields_of(meta, generation):
            self._commands(("HDEL", self._meta, *gone))
        return removed

    def _script(self, script: Script, args: list[Any]) -> None:
        with answering():
            (refusal,) = run(self._wire, script, [(self._meta, args)])
        if refusal:
            raise StateMoved(refusal.decode())

    def _commands(self, *commands: tuple[Any, ...]) -> list[Any]:
        with answering():
            return good(self._wire.exchange(commands))
