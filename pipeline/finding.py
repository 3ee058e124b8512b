"""What an examination says: one line a finding."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """One line of the doctor's: what was looked at, how it is, what was seen, what to do."""

    check: str
    status: Status
    seen: str
    mend: str = ""
