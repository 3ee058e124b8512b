"""Waiting for what is away: back-off, the cause said once, no giving up.

And the one thread that all work on the store runs on: the store's scripts, the features and the ranker are
synchronous, so that replay and training run the very same code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from features.store.port import StoreAway
from pipeline.telemetry import Pause

P = ParamSpec("P")
T = TypeVar("T")

BACKOFF_S = (0.1, 5.0)
AWAY_S_MAX = 300.0


def patiently(call: Callable[[], T], *, on_wait: Callable[[str], None]) -> T:
    """For commands: runs `call`, again while the store is away, and says why it waits; after 5 minutes it gives up."""
    delay_s, until_s = BACKOFF_S[0], time.monotonic() + AWAY_S_MAX
    while True:
        try:
            return call()
        except StoreAway as error:
            if time.monotonic() > until_s:
                raise
            on_wait(f"store: {error.cause}")
            time.sleep(delay_s)
            delay_s = min(delay_s * 2, BACKOFF_S[1])


class StoreThread:
    """One thread, first come, first served. `pause` is told while the store is away."""

    def __init__(self, pause: Pause) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pause = pause
        self._calls = 0
        self._under_way: int | None = None

    async def once(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call` on the thread; whatever it raises comes back."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._run(call, *args, **kwargs))

    @property
    def under_way(self) -> int | None:
        """The number of the call that is being run, None between calls: the same one for long is stuck."""
        return self._under_way

    def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._calls += 1
        self._under_way = self._calls
        try:
            return call(*args, **kwargs)
        finally:
            self._under_way = None

    async def patiently(self, who: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, again and again while the store is away. `who` names the waiting part in log and metrics."""
        delay_s = BACKOFF_S[0]
        try:
            while True:
                try:
                    return await self.once(call, *args, **kwargs)
                except StoreAway as error:
                    self._pause.set(who, f"store: {error.cause}")
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, BACKOFF_S[1])
        finally:  # also when it is cancelled: an excuse that stays would blind the watchdog
            self._pause.set(who, None)

    def close(self) -> None:
        """Lets the running call end; what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
