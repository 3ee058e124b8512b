"""The history of promotions: an append-only file beside the versions, one JSON object a line, on disk before a record goes out.

A crash may cut the last line, and a record may fail to go out after its line was written: reading takes both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from recommender.model.gate import Verdict

FILE = "promotions.jsonl"
READ_MAX = 10_000
BYTES_MAX = 16 << 20  # a line has a few hundred bytes


class Promotion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: what the operator did. version None: the shadow was turned off. forced: without the gate's comparison."""

    ts_ms: int
    action: Literal["promote", "rollback", "shadow"]
    version: str | None
    before: str | None = None
    forced: bool = False
    verdict: Verdict | None = None


def note(directory: Path, promotion: Promotion) -> None:
    """Appends a line to `directory/promotions.jsonl`; it is on disk when this returns."""
    line = msgspec.json.encode(promotion) + b"\n"
    with (directory / FILE).open("ab+") as file:
        file.seek(max(0, file.tell() - 1))
        cut = file.read(1) not in (b"", b"\n")  # a crash left half a line: only that one is lost
        file.write(b"\n" + line if cut else line)
        file.flush()
        os.fsync(file.fileno())


def history(directory: Path) -> list[Promotion]:
    """The newest promotions, oldest first; lines that cannot be read are passed over."""
    if not (directory / FILE).is_file():  # a pipe would be waited for
        return []
    try:
        with (directory / FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BYTES_MAX))
            lines = file.read(BYTES_MAX).splitlines()
    except OSError:
        return []
    return [each for line in lines[-READ_MAX:] if (each := _parsed(line)) is not None]


def before(promotions: Sequence[Promotion], serving: str) -> str | None:
    """The version that served before `serving`; each rollback leads one further back.

    >>> def line(action, version): return Promotion(ts_ms=0, action=action, version=version)
    >>> past = [line("promote", "v1"), line("promote", "v2"), line("promote", "v3")]
    >>> before(past, "v3"), before([*past, line("rollback", "v2")], "v2"), before(past[:1], "v1")
    ('v2', 'v1', None)
    """
    stack: list[str] = []
    for each in promotions:
        if each.action != "shadow" and each.version is not None:
            if each.action == "rollback" and each.version in stack:
                _pop_to(stack, each.version)
            elif stack[-1:] != [each.version]:
                stack.append(each.version)
    if serving not in stack:  # named by other means than ours
        return stack[-1] if stack else None
    _pop_to(stack, serving)  # what lies above never went out
    return stack[-2] if len(stack) > 1 else None


def _pop_to(stack: list[str], version: str) -> None:
    while stack[-1] != version:
        stack.pop()


def _parsed(line: bytes) -> Promotion | None:
    try:
        return msgspec.json.decode(line, type=Promotion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
