"""`meta` in Redis: what is fixed for the life of the data. Every field is written once, by whoever is first."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from features.domain import Domain
from features.store import layout as names
from features.store.port import ANEW, Part, StateForeign
from features.store.redis_replies import answering, good
from features.store.redis_wire import Wire


class Meta:
    """The `meta` hash of one app over `wire`. `generation` None: the one that `meta` names as serving; else one that is
    being built (see `redis_generations`).
    """

    def __init__(self, wire: Wire, *, app: str, shards: int, generation: int | None) -> None:
        self._wire, self._shards = wire, shards
        self._key = names.meta_key(app)
        self._generation = generation
        self._builds = generation is not None
        self._instead_of: int | None = None  # what served when the one that is being built was opened
        self._settled: dict[str, str] = {}  # what was opened and bound

    @property
    def generation(self) -> int:
        """The generation that this process writes."""
        return self._generation or 1

    def begun(self) -> bool:
        """Whether a generation serves."""
        return bool(self._one("HEXISTS", "generation"))

    def read(self) -> dict[str, str]:
        """All fields."""
        raw = self._one("HGETALL")
        return {field.decode(): value.decode() for field, value in zip(raw[::2], raw[1::2], strict=True)}

    def settle(self, domain: Domain) -> dict[str, str]:
        """Checks or writes what `domain` fixes; workers may start together. Raises `StateForeign`."""
        meta = self.read()
        if not self._builds:
            self._generation = names.serving(meta)
        elif self._instead_of is None:
            self._instead_of = names.serving(meta)
        generation = self.generation
        names.check_meta(meta, shards=self._shards, generation=generation, columns=domain.columns)
        fixed = {
            **self._place,
            f"format:{generation}": names.FORMAT,
            f"shards:{generation}": str(self._shards),
            f"columns:{generation}": names.columns_text(domain.columns),
            "salt": token_hex(16),
        }
        absent = {field: value for field, value in fixed.items() if field not in meta}
        for field, value in absent.items():  # none for those who only look at a state, and may not write
            self.put(field, value)
        meta = self.read() if absent else meta
        names.check_meta(meta, shards=self._shards, generation=generation, columns=domain.columns)
        for action in domain.actions:
            while action.name not in (codes := names.codes_of(meta, generation)):
                self.put(f"action:{generation}:{names.free_code(codes)}", action.name)
                meta = self.read()
        self._settled.update(names.fixed_by(meta, generation))
        return meta

    @property
    def _place(self) -> dict[str, str]:
        """The field that says what this process writes: the serving generation, or the one that is being built."""
        return {"building" if self._builds else "generation": str(self.generation)}

    def check(self) -> None:
        """Raises `StateMoved` where another generation serves than when this was opened."""
        if not self._settled:
            return
        places = "generation", "building", "newest"
        found = zip(places, self._one("HMGET", *places), strict=True)
        held = {field: value.decode() for field, value in found if value is not None}
        names.check_place(held, generation=self.generation, instead_of=self._instead_of)

    def bind_log(self, topic: str, identity: str) -> None:
        """Remembers a topic's identity; raises `StateForeign` when another stands there."""
        field = f"log:{self.generation}:{topic}"
        self.put(field, identity)
        known = self._one("HGET", field).decode()
        if known != identity:
            raise StateForeign(f"the state was built from another log of {topic}: {known}, not {identity}; {ANEW}")
        self._settled[field] = identity

    def restore(self) -> None:
        """Puts back what Redis lost; before any mark, so that a mark never stands without its layout."""
        if not self._settled:
            return
        meta = self.read()
        names.check_place(meta, generation=self.generation, instead_of=self._instead_of)
        lost = names.lost_fields({**self._place, **self._settled}, meta)
        if not lost:
            return
        for field, value in lost.items():
            self.put(field, value)
        meta = self.read()
        names.check_place(meta, generation=self.generation, instead_of=self._instead_of)
        names.lost_fields(self._settled, meta)  # another may have been faster

    def start_of(self, part: Part) -> int | None:
        """Where a part began, None if it never did."""
        start = self._one("HGET", self._start_field(part))
        return None if start is None else int(start)

    def remember_start(self, part: Part, start: int) -> None:
        """Says that a part has begun."""
        self.put(self._start_field(part), start)

    def put(self, field: str, value: str | int) -> None:
        """Writes a field that is not there yet."""
        self._one("HSETNX", field, value)

    def _start_field(self, part: Part) -> str:
        return f"start:{self.generation}:{part.topic}:{part.partition}"

    def _one(self, name: str, *rest: Any) -> Any:
        with answering():
            (reply,) = good(self._wire.exchange([(name, self._key, *rest)]))
        return reply
