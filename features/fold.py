"""The fold: one user's facts of a micro-batch into the user's new log and what they do to items.

Facts come in offset order. An event whose hash stands in the log is a repeat, unless this very log record put it there
in an earlier try (offset at or before the shard's mark, and the record's tag matches): then it is *ours*. An event at
or before the mark that is not in the log is ours, too, and was cut since. New and ours have effects on items; repeats
have none. A redo first takes the log back to how it stood before the batch, so that the context of an event (the items
before it in its session) is the same as the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from features import user_log
from features.domain import Domain
from features.facts import Fact, Forget
from features.ids import hash64, session_hash, source_tag
from features.schema import Impression, UserAction
from features.store.port import Layout
from features.user_log import RECORD_BYTES, SESSION_AT, TAG_AT, Log

CONTEXT_ITEMS = 3  # an action follows up to 3 distinct items before it: at distance 1, 2, 3
TIME_BYTES = 6
ITEM_BACK = RECORD_BYTES - TIME_BYTES  # where the last record's item begins, from the log's end


class ActionRule(NamedTuple):
    """What the fold knows of an action: its code in the log, its ring column (-1: not counted), its pull in
    co-visitation (0 for negative ones), whether it is a purchase, whether it counts as interest in the item.
    """

    code: int
    column: int
    pull: float
    purchase: bool
    interest: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The domain as the fold needs it. `quiet`: the codes of negative actions, as one-byte strings."""

    actions: dict[str, ActionRule]
    quiet: frozenset[int]
    gap_ms: int


class Effect(NamedTuple):
    """What one accepted event does to items: `items` (hash, id) count in `column`; `before` are the 8-byte hashes of
    the items that it follows, nearest first; `interest`: it enters the item's session list.
    """

    offset: int
    ts_ms: int
    items: Sequence[tuple[int, str]]
    column: int
    user: int
    session: int
    interest: bool
    pull: float
    before: tuple[bytes, ...]


@dataclass(slots=True)
class Folded:
    """One user's outcome. `blob` is the log to write, equal to what was read when nothing changed; `fresh`: per fact,
    whether it changed the state, now or in an earlier try; `repeated`, `applied`: among those beyond the mark.
    """

    blob: bytes
    fresh: list[bool]
    effects: list[Effect]
    applied: int = 0
    repeated: int = 0


def rules_of(domain: Domain, layout: Layout) -> Rules:
    """The fold's view of a domain under the codes and columns that `meta` fixes."""
    columns = {name: index for index, name in enumerate(layout.columns)}
    actions = {
        action.name: ActionRule(
            code=layout.action_codes[action.name],
            column=columns.get(action.name, -1),
            pull=0.0 if action.negative else float(action.weight),
            purchase=action.purchase,
            interest=not action.negative,
        )
        for action in domain.actions
    }
    quiet = frozenset(rule.code for rule in actions.values() if not rule.interest)
    return Rules(actions, quiet, domain.session_gap_ms)


def fold(blob: bytes, facts: Sequence[Fact], *, partition: int, mark: int, rules: Rules) -> Folded:
    """Folds one user's facts into the log that `blob` holds; `mark` is the last offset that the log's shard applied."""
    outcome = Folded(blob, [], [])
    first = facts[0].offset
    work = _Work(user_log.take_apart(blob), rules, partition, outcome)
    if first > mark:
        work.take(facts)
        if outcome.applied:
            outcome.blob = user_log.pack(work.log)
        return outcome
    work.redo(facts, mark)
    outcome.blob = (
        _with_new(blob, facts, partition=partition, mark=mark, rules=rules) if facts[-1].offset > mark else blob
    )
    return outcome


def _with_new(blob: bytes, facts: Sequence[Fact], *, partition: int, mark: int, rules: Rules) -> bytes:
    """The log to write in a redo: what stands there plus what is new. What was cut or forgotten since stays away."""
    new = [fact for fact in facts if fact.offset > mark]
    return fold(blob, new, partition=partition, mark=mark, rules=rules).blob


class _Work:
    """A log under the fold, with the newest items of the session that the last event continued."""

    __slots__ = ("_recent", "_recent_key", "log", "outcome", "partition", "rules")

    def __init__(self, log: Log, rules: Rules, partition: int, outcome: Folded) -> None:
        self.log = log
        self.rules = rules
        self.partition = partition
        self.outcome = outcome
        self._recent: list[bytes] = []
        self._recent_key: tuple[int, int] = (-1, 0)  # session, ts_ms of the log's last record; -1: not known

    def take(self, facts: Iterable[Fact]) -> None:
        """Folds facts beyond the mark."""
        outcome = self.outcome
        for offset, record in facts:
            fresh = self._one(offset, record)
            outcome.fresh.append(fresh)
            if fresh:
                outcome.applied += 1
            else:
                outcome.repeated += 1

    def redo(self, facts: Sequence[Fact], mark: int) -> None:
        """Folds facts of which some were applied before: takes the log back, then folds all of them again."""
        outcome = self.outcome
        self._take_back(fact for fact in facts if fact.offset <= mark)
        held: list[tuple[bytearray, bytes]] = []
        for fact in facts:
            if fact.offset > mark:
                self.take([fact])
            elif isinstance(fact.record, Forget):
                self._undo(held)
                outcome.fresh.append(True)
            else:
                fresh = self._one(fact.offset, fact.record)
                outcome.fresh.append(fresh)
                if fresh:
                    held.append((self._section(fact.record), _event_of(fact.record)))

    def _take_back(self, facts: Iterable[Fact]) -> None:
        """Removes the records that these very facts put there."""
        for offset, record in facts:
            if isinstance(record, Forget):
                continue
            section = self._section(record)
            at = user_log.find(section, _event_of(record), user_log.EVENT_AT, RECORD_BYTES)
            tag = source_tag(self.partition, offset).to_bytes(2, "big")
            if at >= 0 and section[at + TAG_AT : at + RECORD_BYTES] == tag:
                del section[at : at + RECORD_BYTES]

    def _undo(self, held: list[tuple[bytearray, bytes]]) -> None:
        """A forget that was applied before: only what this redo put back goes; what came after it stays."""
        for section, event in held:
            at = user_log.find(section, event, user_log.EVENT_AT, RECORD_BYTES)
            if at >= 0:
                del section[at : at + RECORD_BYTES]
        held.clear()
        self._recent_key = (-1, 0)

    def _section(self, record: object) -> bytearray:
        return self.log.actions if isinstance(record, UserAction) else self.log.impressions

    def _one(self, offset: int, record: object) -> bool:
        if type(record) is UserAction:
            return self._act(offset, record)
        if type(record) is Impression:
            return self._show(offset, record)
        if type(record) is Forget:
            self.log = Log()
            self._recent_key = (-1, 0)
            return True
        raise TypeError(f"{type(record).__name__} is no fact of a user's log")

    def _act(self, offset: int, record: UserAction) -> bool:
        log, rule = self.log.actions, self.rules.actions[record.action]
        event = user_log.event_bytes(record.event_id)
        if user_log.find(log, event, user_log.EVENT_AT, RECORD_BYTES) >= 0:
            return False
        ts_ms, item, session = record.ts_ms, hash64(record.item_id), session_hash(record.session_id)
        entry = user_log.record(ts_ms, item, event, session, rule.code, source_tag(self.partition, offset))
        at = user_log.place(log, entry, RECORD_BYTES)
        if rule.purchase:
            user_log.buy(self.log.bought, ts_ms, item)
        before = self._before(at, ts_ms, session, entry[TIME_BYTES : TIME_BYTES + 8], interest=rule.interest)
        self.outcome.effects.append(
            Effect(
                offset, ts_ms, ((item, record.item_id),), rule.column, hash64(record.user_id), session, rule.interest,
                rule.pull, before if rule.pull > 0 else (),
            )
        )  # fmt: skip
        return True

    def _before(self, at: int, ts_ms: int, session: int, item: bytes, *, interest: bool) -> tuple[bytes, ...]:
        """The last distinct other items of the session before the record at `at`, nearest first. Kept from event to
        event while a session grows at the log's end; else looked up.
        """
        log = self.log.actions
        last_session, last_ms = self._recent_key
        at_end = at == len(log) - RECORD_BYTES
        if at_end:
            kept = last_session == session and (session or ts_ms - last_ms <= self.rules.gap_ms)
        else:  # among records of the same millisecond and item, places do not matter
            kept = last_session == session and ts_ms == last_ms and item == log[-ITEM_BACK : 8 - ITEM_BACK]
            kept = kept and item in self._recent[:1]
        recent = self._recent if kept else session_items(log, at, ts_ms, session, self.rules)
        before = tuple([other for other in recent if other != item][:CONTEXT_ITEMS])
        if at_end:
            self._recent_key = (session, ts_ms)
            self._recent = [item, *before] if interest else recent
        elif not kept:
            self._recent_key = (-1, 0)
        return before

    def _show(self, offset: int, record: Impression) -> bool:
        event = user_log.event_bytes(record.impression_id)
        log = self.log.impressions
        if user_log.find(log, event, user_log.EVENT_AT, RECORD_BYTES) >= 0:
            return False
        session = session_hash(record.session_id)
        entry = user_log.record(record.ts_ms, 0, event, session, 0, source_tag(self.partition, offset))
        user_log.place(log, entry, RECORD_BYTES)
        items = [(hash64(item), item) for item in dict.fromkeys(record.item_ids)]
        self.outcome.effects.append(
            Effect(offset, record.ts_ms, items, 0, hash64(record.user_id), session, interest=False, pull=0.0, before=())
        )
        return True


def _event_of(record: object) -> bytes:
    if isinstance(record, UserAction):
        return user_log.event_bytes(record.event_id)
    if isinstance(record, Impression):
        return user_log.event_bytes(record.impression_id)
    raise TypeError(f"{type(record).__name__} has no event id")


def session_items(log: bytearray, end: int, ts_ms: int, session: int, rules: Rules) -> list[bytes]:
    """The newest distinct items (8-byte hashes, at most one more than a context needs) of the session before byte
    `end` of a log. Without a session_id the session ends at the first gap. Negative actions do not count.
    """
    needle = session.to_bytes(2, "big")
    found: list[bytes] = []
    bound, later_ms = end, ts_ms
    while len(found) <= CONTEXT_ITEMS:
        hit = log.rfind(needle, 0, bound)
        if hit < 0:
            break
        bound = hit + 1
        if hit % RECORD_BYTES != SESSION_AT:
            continue
        start = hit - SESSION_AT
        if not session:
            here_ms = int.from_bytes(log[start : start + TIME_BYTES], "big")
            if later_ms - here_ms > rules.gap_ms:
                break
            later_ms = here_ms
        item = bytes(log[start + TIME_BYTES : start + TIME_BYTES + 8])
        if item not in found and log[hit + 2] not in rules.quiet:
            found.append(item)
    return found
