"""How long nothing has moved: what tells a slow pipeline from one that stands still."""

from __future__ import annotations

from collections.abc import Hashable


class Stillness:
    """Looks at some figures again and again.

    >>> still = Stillness(at_s=0.0)
    >>> [still.look((1,), at_s=1.0), still.look((1,), at_s=4.0), still.look((2,), at_s=5.0)]
    [0.0, 3.0, 0.0]
    """

    def __init__(self, *, at_s: float) -> None:
        self._since_s = at_s
        self._figures: Hashable = None

    def look(self, figures: Hashable, *, at_s: float) -> float:
        """Seconds since the figures last changed."""
        if figures != self._figures:
            self._figures, self._since_s = figures, at_s
        return at_s - self._since_s
