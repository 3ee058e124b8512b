"""The sources' shares of the candidates: the one place that knows the defaults."""

from __future__ import annotations

from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1_000)]


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share for each source by its name; what is absent keeps its default, 0 switches a source off."""

    session_neighbours: Share = 0.35
    co_visited: Share = 0.25
    history: Share = 0.1
    affinity: Share = 0.1
    trending: Share = 0.15
    new: Share = 0.05

    def __post_init__(self) -> None:
        if not sum(self.shares.values()) > 0:
            raise ValueError("at least one source needs a share above 0")

    @property
    def shares(self) -> dict[str, float]:
        """{source: share}, as the path takes them.

        >>> Quotas(new=0.5).shares["new"], Quotas().shares["co_visited"]
        (0.5, 0.25)
        """
        return {name: getattr(self, name) for name in self.__struct_fields__}
