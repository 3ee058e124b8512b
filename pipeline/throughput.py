"""How many records a step takes: what is applied within a small part of the deadline, whatever the machine does today.

At 2 000 records a step one took 0.1 s on an idle machine and over 1 s on a loaded one: then the time for the answers
was over before the first was begun, and the other agents waited for the store as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

SHARE = 1 / 8  # of the deadline: four agents share the store's thread, and each run of answers may wait for them all
KNOWN = 0.8  # weight of what was known, for each batch more


@dataclass(frozen=True, slots=True)
class Throughput:
    """Records that were applied and the seconds it took, older ones for less. Many in one batch weigh more than few.

    >>> Throughput().records_in(0.125), Throughput().after(500, 0.5).records_in(0.125)
    (inf, 125.0)
    """

    records: float = 0.0
    seconds: float = 0.0

    def after(self, records: int, seconds: float) -> Throughput:
        """With one more batch."""
        return Throughput(KNOWN * self.records + records, KNOWN * self.seconds + seconds)

    def records_in(self, seconds: float) -> float:
        """How many are applied in so long; no limit where nothing is known."""
        return seconds * self.records / self.seconds if self.seconds else inf
