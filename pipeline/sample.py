"""What `headrace init` sees in a sample: counts by action, attribute and context name. Everything is bounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from features.schema import Impression, InputRecord, Item, UserAction

DISTINCT_MAX = 100_000
PAIRS_MAX = 1_000_000
NAMES_MAX = 500  # of each kind; the contract allows 64 a record


@dataclass(slots=True)
class ActionSeen:
    """One action: its rows, how many answer an impression, have a value below 0, repeat a (user, item) pair."""

    rows: int = 0
    answering: int = 0
    below_zero: int = 0
    repeats: int = 0
    paired: int = 0
    pairs: set[int] = field(default_factory=set)  # their hashes

    def add(self, action: UserAction, *, follow: bool) -> None:
        """Counts one row; `follow`: its pair, too."""
        self.rows += 1
        self.answering += action.impression_id is not None
        self.below_zero += action.value is not None and action.value < 0
        if follow:
            pair = hash((action.user_id, action.item_id))
            self.paired += 1
            self.repeats += pair in self.pairs
            self.pairs.add(pair)


@dataclass(slots=True)
class ValuesSeen:
    """One attribute or context field: how many of its values are numbers, texts, lists; distinct texts."""

    numbers: int = 0
    texts: int = 0
    lists: int = 0
    chars: int = 0
    held: int = 0
    distinct: set[int] = field(default_factory=set)  # their hashes

    def add(self, value: float | str | Iterable[str]) -> None:
        """Counts one value; distinct texts are followed up to a hundred thousand."""
        if isinstance(value, float | int):
            self.numbers += 1
        elif isinstance(value, str):
            self.texts += 1
            self._hold((value,))
        else:
            self.lists += 1
            self._hold(value)

    @property
    def rows(self) -> int:
        """How often the field was given."""
        return self.numbers + self.texts + self.lists

    @property
    def kind(self) -> str:
        """`number`, `category` or `set`: a list anywhere makes a set, else the more frequent type decides.

        >>> seen = ValuesSeen()
        >>> for value in ("a", ["a", "b"]): seen.add(value)
        >>> seen.kind
        'set'
        """
        if self.lists:
            return "set"
        return "number" if self.numbers >= self.texts else "category"

    def _hold(self, values: Iterable[str]) -> None:
        for value in values:
            self.held += 1
            self.chars += len(value)
            if len(self.distinct) < DISTINCT_MAX:
                self.distinct.add(hash(value))


@dataclass(slots=True)
class Sample:
    """The whole of it. paired: of which actions (user, item) pairs are followed, a million of them in all."""

    paired: Callable[[str], bool]
    pairs: int = 0
    actions: defaultdict[str, ActionSeen] = field(default_factory=lambda: defaultdict(ActionSeen))
    attributes: defaultdict[str, ValuesSeen] = field(default_factory=lambda: defaultdict(ValuesSeen))
    context: defaultdict[str, ValuesSeen] = field(default_factory=lambda: defaultdict(ValuesSeen))
    item_context: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    items: int = 0
    impressions: int = 0

    def add(self, record: InputRecord) -> None:
        """Counts one record."""
        if isinstance(record, UserAction):
            if record.action in self.actions or len(self.actions) < NAMES_MAX:
                seen = self.actions[record.action]
                before = len(seen.pairs)
                seen.add(record, follow=self.pairs < PAIRS_MAX and self.paired(record.action))
                self.pairs += len(seen.pairs) - before
        elif isinstance(record, Item):
            self.items += 1
            for name, value in (record.attributes or {}).items():
                if name in self.attributes or len(self.attributes) < NAMES_MAX:
                    self.attributes[name].add(value)
        elif isinstance(record, Impression):
            self.impressions += 1
            for name, scalar in (record.context or {}).items():
                if name in self.context or len(self.context) < NAMES_MAX:
                    self.context[name].add(scalar)
            for name in record.item_context or {}:
                if name in self.item_context or len(self.item_context) < NAMES_MAX:
                    self.item_context[name] += 1
