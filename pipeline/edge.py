"""The worker's side of the driver's questions: ready to subscribe, where to start, what to commit, when to stop.

Opening waits for the broker and the store with a visible cause; what contradicts the state stops the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from features.schema import REQUESTS
from features.store.port import ANEW, Part, StateForeign, StateLost, StateMoved, StoreRefused
from pipeline.agents import Desk, stop_loudly
from pipeline.kafka.access import Refusal
from pipeline.kafka.log_identity import identities
from pipeline.kafka.topics import missing
from pipeline.logs import get_logger
from pipeline.patience import BACKOFF_S, StoreThread
from pipeline.progress import Progress
from pipeline.telemetry import LEADERS, Pause

if TYPE_CHECKING:
    from features.state import Resume
    from pipeline.engine import Engine

log = get_logger(__name__)

ANSWER_S = 3.0  # a worker that is told to stop waits no longer for an answer under way

LOOK_S = 0.01  # how often it is looked whether a step under way has ended

MEND = "`headrace doctor` says more"


class WorkerEdge:
    """Implements `pipeline.kafka.edge.Edge`. `desk` is there once `ready` has returned."""

    def __init__(
        self,
        *,
        admin: AdminClient,
        inputs: Sequence[str],
        outputs: Sequence[str],
        store: StoreThread,
        progress: Progress,
        pause: Pause,
        open_desk: Callable[[Mapping[str, str]], Desk],
        open_engine: Callable[[Mapping[str, str]], Engine],
        refusal: Callable[[], Refusal | None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """`refusal`: what keeps us out of a broker that gives no answer."""
        self._admin, self._inputs, self._outputs = admin, tuple(inputs), tuple(outputs)
        self._store, self._progress, self._pause = store, progress, pause
        self._open_desk, self._open_engine = open_desk, open_engine
        self._refusal, self._should_stop = refusal, should_stop
        self._opening = asyncio.Lock()
        self._desk: Desk | None = None
        self.leaderless: frozenset[Part] = frozenset()  # set on the consumer's thread, read on the loop

    @property
    def desk(self) -> Desk:
        """The agents' desk."""
        if self._desk is None:
            raise RuntimeError("not ready yet: agents read only after the driver has subscribed")
        return self._desk

    @property
    def is_ready(self) -> bool:
        """Whether the desk is there."""
        return self._desk is not None

    async def ready(self) -> None:
        """Waits for topics and store, checks that they belong together; gives up when the worker ends."""
        async with self._opening:
            if self._desk is not None:
                return
            if (found := await self._identities()) is None:
                return
            try:
                self._desk = await self._store.patiently("start", self._open_desk, found)
            except (StateForeign, StoreRefused, ValueError) as error:
                stop_loudly(f"{error}: {MEND}", error)

    async def start(self, part: Part, *, committed: int | None, log_start: int) -> Resume:
        """The state's start rule, waited for while the store is away; over the generation that serves."""
        while True:
            try:
                async with self._opening:  # a move finds the part placed, or not yet begun
                    engine = self.desk.engine
                    resume = await self._store.patiently(
                        "start",
                        engine.state.resume,
                        part,
                        committed=committed,
                        log_start=log_start,
                        asks_only=engine.kinds[part.topic] == REQUESTS,
                    )
                    _tell_of_gaps(part, resume, committed=committed, log_start=log_start)
                    known = None if committed is None else max(committed, log_start)
                    self._progress.begin(part, committed=known, start=resume.start)
                    self.desk.place(part, start=resume.start)
                    return resume
            except StateMoved as moved:
                await self.move(engine, moved)
            except (StateForeign, StateLost, StoreRefused) as error:
                stop_loudly(f"{error}: {MEND}", error)

    async def move(self, engine: Engine, moved: StateMoved) -> None:
        """From the generation that `engine` works on to the one that serves; whoever comes second finds it done.

        What is read already is void first, so that no batch meets a state that does not hold its part. A step under
        way ends on the old generation: what it answered stays answered. Then all parts are placed again, and the start
        rule says from where the new generation lacks something.
        """
        async with self._opening:
            desk = self.desk
            if desk.engine is not engine or (found := await self._identities()) is None:
                return
            if anew := _anew(found, engine.identities):  # what this process has answered was of other logs
                stop_loudly(f"{', '.join(anew)}: deleted and created again while this worker ran: start it again")
            for part in desk.given:
                if desk.reader.seek_no(part) >= 0:
                    desk.reader.restart(part)
            while desk.busy:
                await asyncio.sleep(LOOK_S)
            try:
                desk.engine = await self._store.patiently("generation", self._open_engine, found)
            except StateForeign as error:
                stop_loudly(f"{moved}: start this worker with the settings of that rebuild ({error}): {MEND}", error)
            except (StoreRefused, ValueError) as error:
                stop_loudly(f"{moved}: {error}: {MEND}", error)
            log.info("moved to another generation of the state", cause=str(moved))

    async def release(self, parts: Sequence[Part]) -> None:
        """The state keeps no marks of parts that are somebody else's now."""
        for part in parts if self._desk else ():
            self.desk.release(part)
            await self._store.once(self.desk.engine.state.release, part)

    def committable(self, part: Part) -> int | None:
        """What is answered is what gets committed."""
        return self._progress.answered(part)

    def identity(self, part: Part) -> str:
        """Which log the state was built from."""
        return self.desk.engine.identities[part.topic]

    async def look_at_logs(self) -> None:
        """Stops the worker where a topic is another log than the state was built from; says which are missing.

        A group drops the partitions of a topic that is deleted without a word, and takes those of one that is created
        again under its name for the old ones: where it holds more records, the first of them would be skipped.
        """
        try:
            lacking = await asyncio.to_thread(missing, self._admin, self._inputs, timeout_s=ANSWER_S)
            there = [topic for topic in self._inputs if topic not in lacking]
            found = await asyncio.to_thread(identities, self._admin, there, timeout_s=ANSWER_S)
        except (KafkaException, TimeoutError, StateForeign):
            return  # whoever needs the broker says that it is away
        self._pause.set("topics", f"topics missing: {', '.join(lacking)}" if lacking else None)
        if anew := _anew(found, self.desk.engine.identities):
            stop_loudly(f"{', '.join(anew)}: deleted and created again: {ANEW} ({MEND})")

    def refuse_batch(self, cause: str) -> None:
        """Nobody can read on behind it; what stands before it is applied and answered."""
        stop_loudly(
            f"{cause}: the broker's log is damaged there. Have it restored from a replica, or dropped "
            f"(kafka-delete-records, up to behind it) and {ANEW}"
        )

    def refuse_log(self, part: Part, cause: str) -> None:
        """The log and the state contradict each other."""
        stop_loudly(f"{part.topic}-{part.partition}: {cause}: {ANEW} ({MEND})")

    def refuse_group(self, cause: str) -> None:
        """The group is closed to us, and the client's part in it has ended for good: only a new process may join."""
        stop_loudly(cause)

    def broker_away(self, cause: str | None) -> None:
        """The consumer waits for the broker, or no longer."""
        self._pause.set("consumer", cause)

    def leaders_away(self, parts: Sequence[Part]) -> None:
        """Those partitions wait; the others are read on, and the watchdog goes on to watch them."""
        self.leaderless = frozenset(parts)
        names = ", ".join(f"{part.topic}-{part.partition}" for part in parts)
        self._pause.set(LEADERS, f"leaders: no broker leads {names}" if names else None)

    async def _identities(self) -> dict[str, str] | None:
        delay_s = BACKOFF_S[0]
        topics = (*self._inputs, *self._outputs)
        while not self._should_stop():
            try:
                lacking = await asyncio.to_thread(missing, self._admin, topics, timeout_s=ANSWER_S)
                if not lacking:
                    found = await asyncio.to_thread(identities, self._admin, self._inputs, timeout_s=ANSWER_S)
                    self._pause.set("broker", None)
                    return found
                self._pause.set("broker", f"topics missing: {', '.join(lacking)}; `headrace topics create` makes them")
            except KafkaException as error:
                refused = await asyncio.to_thread(self._refusal)
                self._pause.set("broker", refused.said if refused else f"broker: {error.args[0].str()}")
            except TimeoutError:
                self._pause.set("broker", f"broker: no answer within {ANSWER_S:g} s")
            except StateForeign as error:
                stop_loudly(str(error), error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, BACKOFF_S[1])
        return None


def _anew(found: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    """The topics that are another log than the one that is known."""
    return [topic for topic, identity in found.items() if identity != known[topic]]


def _tell_of_gaps(part: Part, resume: Resume, *, committed: int | None, log_start: int) -> None:
    """What retention took before it was answered, or, of a state that begins anew, before it was applied."""
    where = {"topic": part.topic, "partition": part.partition, "log_start": log_start}
    answered_to = resume.started if committed is None else committed
    if answered_to is not None and answered_to < log_start:  # applied all, else the state had refused
        log.warning("the log lost records before they were answered", unanswered_from=answered_to, **where)
    if resume.started is None and log_start > 0:
        log.warning("the state begins where the log does, what was before is not in it", **where)
