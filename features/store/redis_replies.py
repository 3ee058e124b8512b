"""What a reply of Redis means: a value, "not now" (`StoreAway`, with the cause), or wrong for good (raised as it is)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from features.store.port import StoreAway

_NOT_NOW = ("OOM", "READONLY", "LOADING", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS")


def good(replies: list[Any]) -> list[Any]:
    """The replies; raises the first error that stands among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def is_unknown_script(reply: Any) -> bool:
    """Whether the server does not know a script by its hash."""
    return isinstance(reply, redis.exceptions.NoScriptError)


@contextmanager
def answering() -> Iterator[None]:
    """Turns what means "not now" into `StoreAway`; what is wrong for good passes through."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise StoreAway(f"{type(error).__name__}: {error}") from error
    except redis.exceptions.ResponseError as error:
        text = str(error)
        kinds = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError)
        if isinstance(error, kinds) or text.startswith(_NOT_NOW):
            raise StoreAway(f"{type(error).__name__}: {text}") from error
        raise
