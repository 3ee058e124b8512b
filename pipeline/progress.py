"""How far each part is answered: the one number that gets committed.

*Answered up to* n: every record below n is in the state and, where it asked for an answer, has one that the broker
acknowledged. It never moves back: after a loss in the store the worker seeks back, applies again, and answers nothing
twice.
"""

from __future__ import annotations

from features.store.port import Part


class Progress:
    """The next unanswered offset of each part that this process has held.

    >>> progress, part = Progress(), Part("user_actions", 0)
    >>> progress.begin(part, committed=7, start=3)
    >>> progress.answered(part)
    7
    >>> progress.mark(part, 5), progress.mark(part, 9), progress.answered(part)
    (None, None, 9)
    """

    def __init__(self) -> None:
        self._answered: dict[Part, int] = {}

    def begin(self, part: Part, *, committed: int | None, start: int) -> None:
        """A placement: what was committed is answered; without a commit nothing at or after `start` is.

        What this process has answered stays answered, whether or not its commit came through.
        """
        known = self._answered.get(part, -1)
        self._answered[part] = max(known, start if committed is None else committed)

    def mark(self, part: Part, offset: int) -> None:
        """Everything below `offset` is answered now."""
        self._answered[part] = max(self._answered.get(part, -1), offset)

    def answered(self, part: Part) -> int | None:
        """The next unanswered offset, None for a part never placed."""
        return self._answered.get(part)
