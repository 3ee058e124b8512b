"""The reckoning: the demo's books held against the state's own counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.demo.ledger import Totals
from pipeline.demo.state_reader import Counts


@dataclass(frozen=True, slots=True)
class Summary:
    """The reckoning. `missing` is empty when everything published is accounted for and every trigger is answered."""

    figures: dict[str, Any]
    missing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def missing_of(totals: Totals, counts: Counts, unanswered: list[str]) -> list[str]:
    """What keeps the demo from being complete, in sentences; empty when all is well."""
    lines = []
    if totals.failed:
        lines.append(f"{totals.failed} records were not taken by the broker")
    if totals.published != counts.done:
        lines.append(
            f"published {totals.published}, but applied {counts.applied} + repeated {counts.repeated}"
            f" + dead-lettered {counts.dead_lettered} = {counts.done}"
        )
    if totals.unanswered:
        lines.append(f"{totals.unanswered} triggers are not answered, the oldest: {', '.join(unanswered)}")
    return lines
