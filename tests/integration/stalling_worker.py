"""`headrace worker` whose consumer falls silent: from the moment a file appears, once in the process's life.

`python -m tests.integration.stalling_worker KIND FILE [headrace's arguments]`. KIND: how it fails.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from pipeline import restart
from pipeline.cli import main
from pipeline.kafka.consumer_thread import SliceThread
from pipeline.kafka.driver import Consumer

KIND, FILE = sys.argv[1], Path(sys.argv[2])
_fetch, _getmany, _standing = SliceThread._fetch_records, Consumer._getmany, SliceThread.standing


def _is_time() -> bool:
    return FILE.exists() and not restart.behind(os.environ).total


async def _fetch_nothing(self: Any, *args: Any, **kwargs: Any) -> Any:
    """As in the open issues: the consumer runs, is assigned, and has nothing to give."""
    if _is_time():
        return {}
    fetched = await _fetch(self, *args, **kwargs)
    return {} if _is_time() else fetched  # one that was under way could take all there is along: no stall


async def _block_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
    if _is_time():
        time.sleep(3_600)
    return await _getmany(self, *args, **kwargs)


async def _block_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
    if _is_time():
        time.sleep(3_600)
    return await _fetch(self, *args, **kwargs)


if __name__ == "__main__":
    if KIND == "silent consumer":
        SliceThread._fetch_records = _fetch_nothing
    elif KIND == "blocked loop":
        Consumer._getmany = _block_loop
    elif KIND == "blocked consumer":
        SliceThread._fetch_records = _block_thread
    else:
        sys.exit(f"{KIND}: unknown")
    main(sys.argv[3:], prog_name="headrace")
