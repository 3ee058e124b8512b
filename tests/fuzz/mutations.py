"""What careless and hostile producers do to a record: seeded, pure, bytes in, bytes out.

`mutated(raw, seed)` gives the same bytes for the same arguments on every machine. A mutation may leave a record sound
(a swapped digit of a time, a field that nobody knows): whether it is a dead letter is the reader's word, not ours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

Mutator = Callable[[bytes, random.Random], bytes]

GROWN_BYTES_MAX = 4_096  # a mutation adds no more, so that a million of them fit any topic
NESTING = 3_000
ROUNDS_MAX = 3
JUNK = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n",
    b'"',
    b"\\",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b",",
    b":",
)
ODD_VALUES = (
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0.1", b"18446744073709551616", b"1" * 400, b"-1", b'""',
    b'"\\u0000"', b'"\\ud800"', b'"\\n"', b'"' + "\u202e\U0001f600".encode() + b'"', b"[]", b"{}", b"[" * 40 + b"]" * 40,
    b'"' + b"x" * 300 + b'"', b"9007199254740993", b"253402300799999", b"253402300800000",
)  # fmt: skip


def mutated(raw: bytes, seed: int) -> bytes:
    """`raw` after one to three mutations that `seed` picks.

    >>> mutated(b'{"a": 1}', 7) == mutated(b'{"a": 1}', 7)
    True
    """
    chance = random.Random(seed)
    for _ in range(chance.randint(1, ROUNDS_MAX)):
        raw = MUTATORS[chance.choice(NAMES)](raw, chance)
    return raw


def _place(raw: bytes, chance: random.Random) -> int:
    return chance.randrange(len(raw) + 1)


def _bit(raw: bytes, chance: random.Random) -> bytes:
    if not raw:
        return raw
    at = chance.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]


def _byte(raw: bytes, chance: random.Random) -> bytes:
    at = _place(raw, chance)
    return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]


def _cut(raw: bytes, chance: random.Random) -> bytes:
    return raw[: _place(raw, chance)]


def _headless(raw: bytes, chance: random.Random) -> bytes:
    return raw[_place(raw, chance) :]


def _left_out(raw: bytes, chance: random.Random) -> bytes:
    start, end = sorted((_place(raw, chance), _place(raw, chance)))
    return raw[:start] + raw[end:]


def _repeated(raw: bytes, chance: random.Random) -> bytes:
    start, end = sorted((_place(raw, chance), _place(raw, chance)))
    return raw[:end] + raw[start:end][:GROWN_BYTES_MAX] + raw[end:]


def _swapped(raw: bytes, chance: random.Random) -> bytes:
    first, second, third = sorted(_place(raw, chance) for _ in range(3))
    return raw[:first] + raw[second:third] + raw[first:second] + raw[third:]


def _junk(raw: bytes, chance: random.Random) -> bytes:
    at = _place(raw, chance)
    return raw[:at] + chance.choice(JUNK) + raw[at:]


def _noise(raw: bytes, chance: random.Random) -> bytes:
    at = _place(raw, chance)
    return raw[:at] + chance.randbytes(chance.randrange(64)) + raw[at:]


def _digit(raw: bytes, chance: random.Random) -> bytes:
    digits = [at for at, byte in enumerate(raw[:GROWN_BYTES_MAX]) if 48 <= byte < 58]
    if not digits:
        return raw
    at = chance.choice(digits)
    return raw[:at] + str(chance.randrange(10)).encode() * chance.choice((1, 1, 1, 20)) + raw[at + 1 :]


def _nested(raw: bytes, chance: random.Random) -> bytes:
    depth = chance.choice((2, 100, NESTING // 2))
    left, right = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return (left * depth)[:GROWN_BYTES_MAX] + raw + right * chance.choice((0, min(depth, GROWN_BYTES_MAX // len(left))))


def _value(raw: bytes, chance: random.Random) -> bytes:
    """A field's value is another one, the rest as it was; of what is no JSON object, a byte."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return _byte(raw, chance)
    if not isinstance(record, dict) or not record:
        return _byte(raw, chance)
    field = chance.choice(list(record))
    parts = [
        json.dumps(name).encode() + b": " + (chance.choice(ODD_VALUES) if name == field else _written(value))
        for name, value in record.items()
    ]
    return b"{" + b", ".join(parts) + b"}"


def _key(raw: bytes, chance: random.Random) -> bytes:
    """A field is left out, stands twice, or is called otherwise."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return _cut(raw, chance)
    if not isinstance(record, dict) or not record:
        return _cut(raw, chance)
    pairs = [(name, _written(value)) for name, value in record.items()]
    at = chance.randrange(len(pairs))
    name, value = pairs[at]
    how = chance.randrange(3)
    pairs[at : at + 1] = [] if how == 0 else [(name, value), (name, value)] if how == 1 else [(name.upper(), value)]
    return b"{" + b", ".join(json.dumps(name).encode() + b": " + value for name, value in pairs) + b"}"


def _written(value: object) -> bytes:
    return json.dumps(value).encode()


MUTATORS: dict[str, Mutator] = {
    "bit": _bit, "byte": _byte, "cut": _cut, "headless": _headless, "left out": _left_out, "repeated": _repeated,
    "swapped": _swapped, "junk": _junk, "noise": _noise, "digit": _digit, "nested": _nested, "value": _value, "key": _key,
}  # fmt: skip
NAMES = tuple(MUTATORS)
