"""What a deployment's world looks like: its actions, its item attributes, its request context.

Comes from `worker.toml` (written by `headrace init`); the catalogue of features, the rings' columns and the
candidate sources are derived from it, and from nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

RING_ACTIONS_MAX = 7
IMPRESSION = "impression"

DomainName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of user action.

    weight: its share in popularity, affinity and co-visitation (0: none). trigger: whether it causes a recommendation.
    grade: its label in training (0: not a label). horizon_min: how long after a list was shown it may label it.
    counted: whether items have windows of it (at most 7 actions).
    """

    name: DomainName
    weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    trigger: bool = True
    grade: Annotated[int, msgspec.Meta(ge=0, le=30)] = 1
    horizon_min: Annotated[float, msgspec.Meta(ge=0, le=525_600)] = 30
    counted: bool = True
    purchase: bool = False
    negative: bool = False

    @property
    def horizon_ms(self) -> int:
        """The label horizon in ms."""
        return round(self.horizon_min * 60_000)


class Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item attribute. `number`: a float. `category`: one text. `set`: a text or a list of texts.

    candidates: keep a short list of popular items per value (a candidate source). rate: keep windows per value, which
    smooth an item's rates (few values an item only: measured, they buy little for much).
    """

    name: DomainName
    kind: Literal["number", "category", "set"]
    candidates: bool = False
    rate: bool = False


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a request's or an impression's context."""

    name: DomainName
    kind: Literal["number", "category"]


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of it. `item_context` names per-item numbers that come with a list (price ...)."""

    actions: tuple[Action, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    context: tuple[Context, ...] = ()
    item_context: tuple[DomainName, ...] = ()
    session_gap_ms: int = 30 * 60 * 1000
    user_retention_ms: int = 90 * 86_400_000
    item_retention_ms: int = 90 * 86_400_000

    def __post_init__(self) -> None:
        for field in ("actions", "attributes", "context"):
            names = [entry.name for entry in getattr(self, field)]
            if len(set(names)) != len(names):
                raise ValueError(f"{field}: a name stands twice in {names}")
        if IMPRESSION in {action.name for action in self.actions}:
            raise ValueError(f"actions: `{IMPRESSION}` is a topic's own, not an action's name")
        if len(self.counted) > RING_ACTIONS_MAX:
            raise ValueError(
                f"actions: {len(self.counted)} are counted, at most {RING_ACTIONS_MAX}: set counted = false"
            )

    @property
    def counted(self) -> tuple[Action, ...]:
        """The actions that items have windows of, in configured order."""
        return tuple(action for action in self.actions if action.counted)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of an item's rings: impressions first, then the counted actions.

        >>> Domain(actions=(Action("view"), Action("cart"))).columns
        ('impression', 'view', 'cart')
        """
        return (IMPRESSION, *(action.name for action in self.counted))

    def action(self, name: str) -> Action | None:
        """The configured action of that name, None if unknown."""
        return next((action for action in self.actions if action.name == name), None)
