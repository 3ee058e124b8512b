"""Logs: structlog to stderr, one JSON object or one readable line each; Faust's and mode's own come out alike.

`print` in a Faust worker vanishes (it is redirected to logging at a level nobody shows): use a logger.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

QUIET = ("aiokafka", "faust.transport.drivers.aiokafka", "aiohttp.access", "mode", "faust")

MESSAGES_MAX, MESSAGE_CHARS_MAX = 1_000, 200
REPEATED_S = 30.0  # a client library that cannot reach its broker repeats itself several times a second

_BEFORE: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
# structlog shows every frame's variables by itself: the password that a client was about to log in with, users' events.
_FRAMES = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    return structlog.stdlib.get_logger(name)


class Once(logging.Filter):
    """Lets each message of the quiet libraries through once in `REPEATED_S`, whatever its arguments."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._said_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is to be seen."""
        if not record.name.startswith(QUIET):
            return True
        now_s, said = self._clock_s(), (record.name, str(record.msg)[:MESSAGE_CHARS_MAX])
        if now_s - self._said_s.get(said, -REPEATED_S) < REPEATED_S:
            return False
        if len(self._said_s) >= MESSAGES_MAX:
            self._said_s.clear()
        self._said_s[said] = now_s
        return True


def set_up(*, level: str, form: str) -> None:
    """Sends everything at `level` or above to stderr in `form` (`json` or `console`); libraries one level quieter."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_BEFORE,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    last: list[Any] = (
        [structlog.processors.ExceptionRenderer(_FRAMES), structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_BEFORE,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    if level != "debug":
        handler.addFilter(Once())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level) if level != "debug" else logging.INFO)
