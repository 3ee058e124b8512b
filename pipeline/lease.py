"""The lease of the rebuild at work: kept by a thread of its own, so that no long step loses it."""

from __future__ import annotations

import threading
from contextlib import suppress

from features.store.port import StateMoved, StoreAway
from features.store.redis_generations import LEASE_MS, Standing
from pipeline.app import open_store
from pipeline.config import Settings

BEAT_S = LEASE_MS / 1000 / 5


class Lease:
    """A context manager: takes the lease to fill `generation`, and gives it back. Owns a thread and a connection.

    Entering raises `StateMoved` when another rebuild was faster since `standing` was looked at.
    """

    def __init__(self, settings: Settings, owner: str, standing: Standing, generation: int) -> None:
        self._store = open_store(settings)
        self._generations = self._store.generations()
        self._owner, self._standing, self._generation = owner, standing, generation
        self._told = "begins"
        self._over = threading.Event()
        self._lost: StateMoved | None = None
        self._thread = threading.Thread(target=self._beats, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._claim()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(StoreAway):  # else it ends by itself
            self._generations.let_go(self._owner)
        self._store.close()

    def tell(self, text: str) -> None:
        """What the doctor says of this rebuild."""
        self._told = text

    def check(self) -> None:
        """Raises `StateMoved` when the lease is somebody else's by now."""
        if self._lost is not None:
            raise self._lost

    def _claim(self) -> None:
        standing = self._standing
        self._generations.claim(
            self._owner,
            instead_of=standing.serving,
            building=self._generation,
            before=standing.building,
            told=self._told,
        )

    def _beats(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self._claim()
            except StoreAway:
                continue
            except StateMoved as moved:
                self._lost = moved
                return
