"""What a reply of Redis means: a value, "not now" (`StoreAway`), "you not" (`StoreRefused`), or wrong for good.

A wrong password, a missing permission and a certificate of a stranger are "you not": see `StoreRefused` for why a
worker does not wait for another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from typing import Any

import redis

from features.store.port import ANEW, StateForeign, StoreAway, StoreRefused
from features.store.redis_wire import Wire

_NOT_NOW = ("OOM", "READONLY", "LOADING", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS")
_NOT_NOW_KINDS = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.AskError,  # and its child MovedError: a map that changes faster than it is followed
)
_MOVING = "ttempted to access a non local key in a cluster node"  # Script attempted (Redis), Attempted (Valkey)
_TORN = "TORN {"  # see redis_scripts.py
_REFUSED_IN_SCRIPT = "The user executing the script can't"


def good(replies: list[Any]) -> list[Any]:
    """The replies; raises the first error that stands among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def pages(wire: Wire, pattern: str) -> Iterator[list[str]]:
    """`wire.pages`, each page under `answering`."""
    found = wire.pages(pattern)
    while True:
        with answering():
            page = next(found, None)
        if page is None:
            return
        yield page


def is_unknown_script(reply: Any) -> bool:
    """Whether the server does not know a script by its hash."""
    return isinstance(reply, redis.exceptions.NoScriptError)


@contextmanager
def answering() -> Iterator[None]:
    """Turns what means "not now" into `StoreAway`, "you not" into `StoreRefused`, a torn state into `StateForeign`; what
    is wrong for good passes.
    """
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise StoreRefused(f"Redis does not know this user or password: {error}") from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        if cause := _stranger(error):
            raise StoreRefused(f"Redis's certificate is not trusted: {cause}") from error
        raise StoreAway(f"{type(error).__name__}: {error}") from error
    except redis.exceptions.ResponseError as error:
        text = str(error)
        if isinstance(error, redis.exceptions.NoPermissionError) or _REFUSED_IN_SCRIPT in text:
            raise StoreRefused(f"Redis's user lacks a permission: {text}") from error
        if _TORN in text:
            raise StateForeign(f"half a script is in the state, so it counts too much: {text}; {ANEW}") from error
        if _MOVING in text:
            raise StoreAway("the slot of a shard is being moved to another node") from error
        if isinstance(error, _NOT_NOW_KINDS) or text.startswith(_NOT_NOW):
            raise StoreAway(f"{type(error).__name__}: {text}") from error
        raise


def _stranger(error: BaseException) -> str:
    """Why a certificate was not taken, where that is what lies under a failed connection."""
    under: BaseException | None = error
    while under is not None:
        if isinstance(under, SSLCertVerificationError):
            return under.verify_message
        under = under.__cause__ or under.__context__
    return ""
