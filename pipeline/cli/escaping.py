"""Text of somebody else's on a terminal: what would steer it (escape sequences, turned writing) is shown, not obeyed."""

from __future__ import annotations

import re

import orjson

_STEERS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printed(value: object) -> str:
    r"""`value` as one line of JSON, with JSON's escapes for the same characters.

    >>> printed({"title": "a\u009b2J\u202eb"})
    '{"title":"a\\u009b2J\\u202eb"}'
    """
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", orjson.dumps(value).decode())


def escaped(text: str) -> str:
    r"""`text` on one line, with escapes for control characters and for those that turn the direction of writing.

    >>> escaped("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
