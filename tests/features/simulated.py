"""Workers over one store, interleaved call by call by a seed alone, with the faults below.

Deterministic simulation: each worker is a thread that stops before each call of its store until the seed picks it, and
what becomes of the call is the seed's choice, too. One seed is one history; a thousand of them take some minutes.

- a call is never made, or its reply is lost after it was;
- a worker dies, before or after a call, and starts again from what is in the store;
- the store dies and comes back without its newest calls: every worker's next call meets its broken connection; with
  `nodes` it is one shard's server that dies, and who does not call it goes on;
- parts move between workers: who is in the middle of a batch goes on as a zombie, and notices at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

from features.domain import Domain
from features.state import Fact, State
from features.store.memory import MemoryStore
from features.store.port import Part, StateLost, StoreAway

TAIL_MAX = 30  # script calls that a dying store loses
BATCH_MAX = 12
CALLS_MAX = 100_000
FAULT_SHARE = 0.05  # of the calls, as long as there are faults left
OTHER_NEXT = (0.02, 0.1, 0.5)  # how often the next call is another worker's: some histories have long sleepers
FATES = ("never made", "reply lost", "dies before", "dies after", "moves", *["power"] * 4)
SCRIPTS = ("commit_users", "commit_items", "beat")


class Crashed(BaseException):
    """The process ends here."""


class Simulation:
    """`workers` workers bring `logs` into `store`, which meets `faults` faults, as `random` has it."""

    def __init__(
        self, random: Random, domain: Domain, logs: Mapping[Part, Sequence[Fact]], *, store: MemoryStore, workers: int,
        faults: int, fenced: bool = True, nodes: bool = False,
    ) -> None:  # fmt: skip
        self.random, self.domain, self.logs, self.store = random, domain, logs, store
        self.fenced, self.nodes = fenced, nodes
        self.owner = {part: random.randrange(workers) for part in logs}
        self.committed: dict[Part, int] = {}
        self.reached = dict.fromkeys(logs, 0)  # the next offset, by the owner's account
        self.shards = range(len(store._shards))
        self.struck: list[str] = []
        self._faults_left = faults
        self._kept = [deepcopy(store._shards)]
        self._gates = [Gate(self) for _ in range(workers)]
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Until all is applied and committed and no fault is left. Raises what a worker raised."""
        for who, gate in enumerate(self._gates):
            threading.Thread(target=self._live, args=(who, gate), daemon=True).start()
            gate.given_back.acquire()
        who, other_next = 0, self.random.choice(OTHER_NEXT)
        for _ in range(CALLS_MAX):
            alive = [gate for gate in self._gates if not gate.ended]
            if self._errors:
                raise self._errors[0]
            if not alive:
                return
            if who >= len(alive) or self.random.random() < other_next:
                who = self.random.randrange(len(alive))
            self._strike(alive[who])
            alive[who].turn.release()
            alive[who].given_back.acquire()
        raise AssertionError(f"no end in sight after {self.struck}")

    @property
    def done(self) -> bool:
        """Whether everything is applied and nothing is left to strike."""
        return not self._faults_left and all(self.reached[part] > log[-1].offset for part, log in self.logs.items())

    def keep(self, shards: Collection[int]) -> None:
        """What a power loss may go back to, after a call that wrote to `shards`."""
        kept = [*self._kept[-1]]
        for shard in shards:
            kept[shard] = deepcopy(self.store._shards[shard])
        self._kept = [*self._kept[1 - TAIL_MAX :], kept]

    def _strike(self, gate: Gate) -> None:
        if not self._faults_left or self.random.random() > FAULT_SHARE:
            return
        self._faults_left -= 1
        fate = self.random.choice(FATES)
        self.struck.append(fate)
        if fate == "power":
            self._lose_tail()
        elif fate == "moves":
            part = self.random.choice(list(self.owner))
            others = [who for who in range(len(self._gates)) if who != self.owner[part]]
            self.owner[part] = self.random.choice(others or [self.owner[part]])
        else:
            gate.fate = fate

    def _lose_tail(self) -> None:
        most = min(len(self._kept), self.random.choice((2, 4, 10, TAIL_MAX)))
        lost = self.random.randrange(most)  # of 0 calls only the connections break
        gone = {self.random.choice(self.shards)} if self.nodes else {*self.shards}
        now = [*self._kept[-1]]
        for shard in gone:
            now[shard] = self._kept[-1 - lost][shard]
            self.store._shards[shard] = deepcopy(now[shard])
        self._kept = [now]
        for gate in self._gates:
            gate.broken |= gone

    def _live(self, who: int, gate: Gate) -> None:
        gate.wait()
        while not gate.ended:
            try:
                Worker(self, gate, who).work()
                gate.ended = True
            except Crashed:
                gate.broken.clear()
            except BaseException as error:
                self._errors.append(error)
                gate.ended = True
        gate.given_back.release()


class Gate:
    """A worker's way to the store: each call waits for its turn, and for what is to become of it."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self.turn, self.given_back = threading.Semaphore(0), threading.Semaphore(0)
        self.broken: set[int] = set()  # shards whose server is not the one that was spoken to
        self.ended = False
        self.fate = ""

    def wait(self) -> None:
        """Gives the turn back, and waits for the next."""
        self.given_back.release()
        self.turn.acquire()

    def begin(self, part: Part, start: int) -> None:
        """Writes to all shards."""
        self._call(None, self._world.store.begin, part, start, wrote=self._world.shards)

    def sweep(self, due: Any) -> Iterator[int]:
        """Each page is a call."""
        pages, end = self._world.store.sweep(due), -1
        while (page := self._call(None, next, pages, end, wrote=self._world.shards)) != end:
            yield page

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._world.store, name)
        if name == "open":  # before a worker is under way
            return call
        if name in SCRIPTS:
            return lambda *args: self._scripts(name, *args)
        return lambda *args: self._call(None, call, *args)

    def _scripts(self, name: str, *args: Any) -> list[Any]:
        """A script call is one shard's: others come between two of them, and so do faults."""
        *part, calls = args
        split = [{at: some} for at, some in calls.items()] if isinstance(calls, Mapping) else [[one] for one in calls]
        replies = []
        for one in split:
            shard = next(iter(one)) if isinstance(one, dict) else one[0].shard
            replies += self._call(shard, self._script, name, *part, one, wrote=[shard])
        return replies

    def _script(self, name: str, *args: Any) -> list[Any]:
        if not self._world.fenced and name != "beat":
            part, (call,) = args
            marks = self._world.store.marks("u" if name == "commit_users" else "i", part)
            args = part, [replace(call, prev=int(marks[call.shard]))]
        return getattr(self._world.store, name)(*args)

    def _call(self, shard: int | None, call: Callable[..., Any], *args: Any, wrote: Collection[int] = ()) -> Any:
        """`wrote`: the shards that stand otherwise after it, whether its reply arrives or not."""
        self.wait()
        met = bool(self.broken) if shard is None else shard in self.broken
        if met:
            self.broken.clear()
            raise StoreAway("the server is another one")
        fate, self.fate = self.fate, ""
        if fate == "never made":
            raise StoreAway(fate)
        if fate == "dies before":
            raise Crashed
        reply = call(*args)
        if wrote:
            self._world.keep(wrote)
        if fate == "reply lost":
            raise StoreAway(fate)
        if fate == "dies after":
            raise Crashed
        return reply


class Worker:
    """One life of a worker: takes what it owns, applies, commits, beats, sweeps, in the order that the seed has."""

    def __init__(self, world: Simulation, gate: Gate, who: int) -> None:
        self._world, self._gate, self._who = world, gate, who
        self._state = State(gate, world.domain)
        self._next: dict[Part, int] = {}  # the offset to go on from, of each part held
        self._hold_to: dict[Part, int] = {}

    def work(self) -> None:
        """Until everything is applied."""
        while not (self._world.done and self._settled()):
            self._take_over()
            due = [part for part, offset in self._next.items() if offset <= self._world.logs[part][-1].offset]
            dice = self._world.random.random()
            if due and dice < 0.7:
                self._step(self._world.random.choice(due))
            elif dice < 0.8:
                self._commit()
            elif dice < 0.9:
                self._try(self._state.beat)
            else:
                self._try(self._state.sweep)

    def _settled(self) -> bool:
        """What is ours is held, a last beat finds nothing lost, and nothing is left to sweep."""
        self._take_over()
        self._try(self._state.beat)
        while self._try(self._state.sweep) is not None:
            pass
        return self._world.done

    def _take_over(self) -> None:
        mine = {part for part, owner in self._world.owner.items() if owner == self._who}
        for part in sorted(self._next.keys() - mine):
            self._state.release(part)
            del self._next[part]
        for part in sorted(mine - self._next.keys()):
            self._resume(part)

    def _resume(self, part: Part) -> None:
        committed = self._world.committed.get(part)
        resume = self._patiently(self._state.resume, part, committed=committed, log_start=0)
        self._next[part], self._hold_to[part] = resume.start, resume.hold_to
        if self._world.owner[part] == self._who:
            self._world.reached[part] = resume.start

    def _step(self, part: Part) -> None:
        left = [fact for fact in self._world.logs[part] if fact.offset >= self._next[part]]
        batch = [fact for fact in left if fact.offset <= self._hold_to[part]]
        batch = batch or left[: self._world.random.randint(1, BATCH_MAX)]
        if self._try(self._state.apply, part, batch, last=batch[-1].offset) is not None:
            self._next[part] = batch[-1].offset + 1

    def _commit(self) -> None:
        self._gate.wait()
        for part, offset in self._next.items():
            if self._world.owner[part] == self._who:
                self._world.committed[part] = self._world.reached[part] = offset

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """None, after the part was resumed, where the store lost something."""
        try:
            return self._patiently(call, *args, **kwargs)
        except StateLost as lost:
            self._resume(lost.part)
            return None

    @staticmethod
    def _patiently(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return call(*args, **kwargs)
            except StoreAway:
                continue
