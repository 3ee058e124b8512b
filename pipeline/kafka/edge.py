"""What the Kafka driver asks of the pipeline, and what it takes from the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from features.store.port import Part

if TYPE_CHECKING:
    from features.state import Resume


class Options(NamedTuple):
    """Settings of the driver beyond Faust's own."""

    fetch_wait_ms: int
    fetch_max_bytes: int
    slice_max: int


class Edge(Protocol):
    """Where to start, what to commit, whom to tell; `pipeline.edge.WorkerEdge` is it."""

    async def ready(self) -> None:
        """Returns when the worker may subscribe: topics there, their identity known to the state."""
        ...

    async def start(self, part: Part, *, committed: int | None, log_start: int) -> Resume:
        """Where reading starts; waits while the store is away."""
        ...

    def committable(self, part: Part) -> int | None:
        """The next offset that is not yet answered, None while unknown. Never moves back."""
        ...

    def identity(self, part: Part) -> str:
        """Which log it is: 16 hex that change when the topic is created anew."""
        ...

    def broker_away(self, cause: str | None) -> None:
        """Why the broker cannot be reached; None: it can. Called on the consumer's thread."""
        ...

    def leaders_away(self, parts: Sequence[Part]) -> None:
        """No broker leads these, of those that are ours. Called on the consumer's thread, every second."""
        ...

    def refuse_batch(self, cause: str) -> None:
        """What the broker holds was damaged: stops the worker loudly."""
        ...

    def refuse_log(self, part: Part, cause: str) -> None:
        """The log contradicts the state: stops the worker loudly."""
        ...

    def refuse_group(self, cause: str) -> None:
        """The worker may no longer be a member of its group: stops it loudly."""
        ...
