"""Forgotten users leave no trace: what is left of them in items' session lists goes, beside the agents, page by page.

What is to be swept stands in the store, so any worker carries on what another began.
"""

from __future__ import annotations

from features.state import State
from pipeline import agents
from pipeline.logs import get_logger
from pipeline.patience import StoreThread

log = get_logger(__name__)

LOOK_S = 0.5  # between two looks for work; a user has to be gone within 5 s


async def sweep(store: StoreThread, state: State) -> None:
    """All that is to be swept now. A page takes milliseconds of the store thread; in between the agents get it."""
    entries = pages = 0
    try:
        while (removed := await store.patiently("sweep", state.sweep)) is not None:
            entries += removed
            pages += 1
    except Exception as error:
        agents.stop_loudly(f"forgotten users cannot be swept: {error}", error)
    if pages:
        log.info("swept session lists of forgotten users", entries=entries, pages=pages)
