"""Thirty ways to break a user action, each with the field that its dead letter must name.

`broken(kind, n)` is the n-th record of a kind: bytes that a careless or hostile producer might publish.
"""

from __future__ import annotations

import json
from collections.abc import Callable

DAY_MS = 86_400_000
NOW_MS = 1_760_000_000_000
MONSTER_BYTES = 10_000_000


def _action(n: int, **changes: object) -> dict[str, object]:
    whole = {
        "event_id": f"broken-{n}",
        "user_id": f"u{n % 50}",
        "item_id": f"i{n % 90}",
        "action": "view",
        "ts_ms": NOW_MS,
    }
    return {**whole, **changes}


def _changed(**changes: object) -> Callable[[int], bytes]:
    return lambda n: json.dumps(_action(n, **changes)).encode()


def _without(field: str) -> Callable[[int], bytes]:
    return lambda n: json.dumps({k: v for k, v in _action(n).items() if k != field}).encode()


def _raw(template: bytes) -> Callable[[int], bytes]:
    return lambda n: template.replace(b"%N", str(n).encode())


KINDS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "empty value": ("$", _raw(b"")),
    "json null": ("$", _raw(b"null")),
    "a number": ("$", _raw(b"12%N")),
    "an array": ("$", _raw(b"[1,2,%N]")),
    "no utf-8": ("$", _raw(b"\xff\xfe\x00%N")),
    "cut in a string": (
        "item_id",
        lambda n: json.dumps(_action(n)).encode().split(b'"item_id": "i')[0] + b'"item_id": "i',
    ),
    "cut in a number": ("ts_ms", lambda n: json.dumps(_action(n)).encode()[:-3]),
    "text after the end": ("ts_ms", lambda n: json.dumps(_action(n)).encode() + b"}"),
    "single quotes": ("$", _raw(b"{'event_id': 'e%N'}")),
    "event_id missing": ("event_id", _without("event_id")),
    "user_id missing": ("user_id", _without("user_id")),
    "item_id missing": ("item_id", _without("item_id")),
    "action missing": ("action", _without("action")),
    "ts_ms missing": ("ts_ms", _without("ts_ms")),
    "event_id empty": ("event_id", _changed(event_id="")),
    "user_id empty": ("user_id", _changed(user_id="")),
    "item_id empty": ("item_id", _changed(item_id="")),
    "user_id a number": ("user_id", _changed(user_id=7)),
    "item_id null": ("item_id", _changed(item_id=None)),
    "item_id too long": ("item_id", _changed(item_id="x" * 257)),
    "null byte in user_id": ("user_id", _changed(user_id="a\x00b")),
    "newline in session_id": ("session_id", _changed(session_id="a\nb")),
    "ts_ms text": ("ts_ms", _changed(ts_ms="yesterday")),
    "ts_ms negative": ("ts_ms", _changed(ts_ms=-5)),
    "ts_ms huge": ("ts_ms", _changed(ts_ms=10**40)),
    "ts_ms a year ahead": ("ts_ms", _changed(ts_ms=4_000_000_000_000)),
    "value NaN": ("value", lambda n: json.dumps(_action(n, value=float("nan"))).encode()),
    "value 1e999": (
        "value",
        lambda n: json.dumps(_action(n, value=1)).encode().replace(b'"value": 1', b'"value": 1e999'),
    ),
    "unknown action": ("action", _changed(action="teleport")),
    "deep nesting": ("$", _raw(b'{"deep":' + b"[" * 20_000 + b"%N" + b"]" * 20_000 + b"}")),
    "attributes a list": ("attributes", _changed(attributes=[1, 2])),
    "ten megabytes": ("attributes", lambda n: json.dumps(_action(n, attributes={"x": "y" * MONSTER_BYTES})).encode()),
}


def broken(kind: str, n: int) -> bytes:
    """The n-th record of a kind."""
    return KINDS[kind][1](n)


def field_of(kind: str) -> str:
    """The field that the dead letter must name."""
    return KINDS[kind][0]
