"""The fold: one user's facts of a micro-batch into the user's new log and what they do to items.

Facts come in offset order. An event whose hash stands in the log is a repeat, unless this very log record put it there
in an earlier try (offset at or before the shard's mark, and the record's tag matches): then it is *ours*. An event at
or before the mark that is not in the log is ours, too, and was cut since. New and ours have effects on items; repeats
have none. A redo first takes the log back to how it stood before the batch, so that the context of an event (the items
before it in its session) is the same as the first time.

A forgotten user's events up to the tombstone's time are refused: they count as repeats. In a redo those that were
counted before their user was forgotten count for the items as they did, but leave no trace of the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from features import tombstone, user_log
from features.domain import Domain
from features.facts import Fact, Forget
from features.ids import hash64, session_hash, source_tag
from features.schema import Impression, UserAction
from features.store.port import Layout, Part
from features.tombstone import NEVER, Tombstone
from features.user_log import RECORD_BYTES, SESSION_AT, TAG_AT, TIME_BYTES, Log

CONTEXT_ITEMS = 3  # an action follows up to 3 distinct items before it: at distance 1, 2, 3
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


class Forgotten(NamedTuple):
    """A user (hash) was forgotten: session entries up to `until_ms` go; `items` (8 bytes each) are known to have some."""

    offset: int
    user: int
    until_ms: int
    items: Sequence[bytes]


@dataclass(slots=True)
class Folded:
    """One user's outcome. `blob` is the log to write, equal to what was read when nothing changed; `tombstone` the one to
    write, b"" where it says what it said; `fresh`: per fact, whether it changed the state, now or in an earlier try;
    `repeated`, `applied`: among those beyond the mark. `cut`: the log was full, and its oldest went. `unsteady`: a redo
    could not tell what came out, for the log no longer holds what a repeat was one of; fewer facts at once are steady.
    """

    blob: bytes
    fresh: list[bool]
    effects: list[Effect]
    tombstone: bytes = b""
    forgotten: list[Forgotten] = field(default_factory=list)
    applied: int = 0
    repeated: int = 0
    cut: bool = False
    unsteady: bool = False


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


def fold(blob: bytes, facts: Sequence[Fact], *, part: Part, mark: int, rules: Rules, known: bytes = b"") -> Folded:
    """Folds one user's facts into the log that `blob` holds; `mark` is the last offset that the log's shard applied,
    `known` the user's packed tombstone, b"" for none.
    """
    outcome = Folded(blob, [], [])
    work = _Work(user_log.take_apart(blob), tombstone.unpack(known), rules, part, outcome)
    if facts[0].offset > mark:
        work.take(facts)
        if outcome.applied:
            outcome.blob = user_log.pack(work.log)
        if work.known is not work.tombstone:
            outcome.tombstone = tombstone.pack(work.tombstone)
        outcome.cut = bool(work.gone)
        outcome.unsteady = outcome.unsteady or not work.gone.isdisjoint(work.repeats)
        return outcome
    work.redo(facts, mark)
    if facts[-1].offset > mark:
        # the log to write is what stands there plus what is new: what was cut or forgotten since stays away
        new = [fact for fact in facts if fact.offset > mark]
        written = fold(blob, new, part=part, mark=mark, rules=rules, known=known)
        outcome.blob, outcome.tombstone = written.blob, written.tombstone
    return outcome


class _Work:
    """A log under the fold, with the newest items of the session that the last event continued.

    It is cut with every event, as if each came alone: which repeats are known must not depend on the batch. `gone` are
    the events (hashes) that were cut off, `repeats` those of which one more came.
    """

    __slots__ = (
        "_recent", "_recent_key", "gone", "known", "log", "outcome", "part", "repeats", "rules", "tombstone", "until_ms",
    )  # fmt: skip

    def __init__(self, log: Log, known: Tombstone, rules: Rules, part: Part, outcome: Folded) -> None:
        self.log = log
        self.known = self.tombstone = known
        self.until_ms = known.until_ms
        self.rules = rules
        self.part = part
        self.outcome = outcome
        self._recent: list[bytes] = []
        self._recent_key: tuple[int, int] = (-1, 0)  # session, ts_ms of the log's last record; -1: not known
        self.gone: set[bytes] = set()
        self.repeats: set[bytes] = set()
        if known is not NEVER:
            log.flags |= user_log.FORGOTTEN

    def take(self, facts: Iterable[Fact]) -> None:
        """Folds facts beyond the mark."""
        outcome = self.outcome
        for offset, record, ahead_ms in facts:
            fresh = self._one(offset, record)
            outcome.fresh.append(fresh)
            if fresh:
                outcome.applied += 1
                if ahead_ms:
                    user_log.note_ahead(self.log, ahead_ms)
            else:
                outcome.repeated += 1

    def redo(self, facts: Sequence[Fact], mark: int) -> None:
        """Folds facts of which some were applied before: takes the log back, then folds all of them again."""
        self._take_back(fact for fact in facts if fact.offset <= mark)
        for fact in facts:
            if fact.offset > mark:
                self.take([fact])
            else:
                self.outcome.fresh.append(self._again(fact.offset, fact.record))

    def _again(self, offset: int, record: object) -> bool:
        """A fact that came before, as it came out then, though its user may have been forgotten since."""
        if isinstance(record, Forget):
            until_ms = max(self.until_ms, record.forgotten_ms)
            self.outcome.forgotten.append(Forgotten(offset, hash64(record.user_id), until_ms, ()))
            return True
        if not isinstance(record, (UserAction, Impression)) or record.ts_ms > self.until_ms:
            return self._one(offset, record)
        if self.tombstone.refused(self.part, offset, record.ts_ms):
            return False
        until_ms, self.until_ms = self.until_ms, -1
        fresh = self._one(offset, record)
        self.until_ms = until_ms
        if fresh:
            self.outcome.effects[-1] = self.outcome.effects[-1]._replace(interest=False)
        return fresh

    def _take_back(self, facts: Iterable[Fact]) -> None:
        """Removes the records that these very facts put there."""
        for offset, record, _ in facts:
            if isinstance(record, Forget):
                continue
            section = self._section(record)
            at = user_log.find(section, _event_of(record), user_log.EVENT_AT, RECORD_BYTES)
            tag = source_tag(self.part.partition, offset).to_bytes(2, "big")
            if at >= 0 and section[at + TAG_AT : at + RECORD_BYTES] == tag:
                del section[at : at + RECORD_BYTES]

    def _section(self, record: object) -> bytearray:
        return self.log.actions if isinstance(record, UserAction) else self.log.impressions

    def _one(self, offset: int, record: object) -> bool:
        if type(record) is UserAction:
            return self._act(offset, record)
        if type(record) is Impression:
            return self._show(offset, record)
        if type(record) is Forget:
            return self._forget(offset, record)
        raise TypeError(f"{type(record).__name__} is no fact of a user's log")

    def _forget(self, offset: int, record: Forget) -> bool:
        until_ms, items = user_log.forget(self.log, forgotten_ms=record.forgotten_ms, until_ms=self.until_ms)
        self.tombstone, self.until_ms = self.tombstone.later(until_ms), until_ms
        self.outcome.forgotten.append(Forgotten(offset, hash64(record.user_id), until_ms, items))
        self._recent_key = (-1, 0)
        return True

    def _refuse(self, offset: int, ts_ms: int) -> bool:
        """An event that is as old as what was forgotten, and which refusal has its place."""
        if not self.tombstone.refused(self.part, offset, ts_ms):
            self.tombstone = self.tombstone.refusing(self.part, offset)
        return False

    def _act(self, offset: int, record: UserAction) -> bool:
        if record.ts_ms <= self.until_ms:
            return self._refuse(offset, record.ts_ms)
        log, rule = self.log.actions, self.rules.actions[record.action]
        event = user_log.event_bytes(record.event_id)
        if user_log.find(log, event, user_log.EVENT_AT, RECORD_BYTES) >= 0:
            self.repeats.add(event)
            return False
        ts_ms, item, session = record.ts_ms, hash64(record.item_id), session_hash(record.session_id)
        entry = user_log.record(ts_ms, item, event, session, rule.code, source_tag(self.part.partition, offset))
        at = user_log.place(log, entry, RECORD_BYTES)
        if rule.purchase:
            user_log.buy(self.log.bought, ts_ms, item)
        before = self._before(at, ts_ms, session, entry[TIME_BYTES : TIME_BYTES + 8], interest=rule.interest)
        self._cut(log, user_log.ACTIONS_MAX, event)
        self.outcome.effects.append(
            Effect(
                offset, ts_ms, ((item, record.item_id),), rule.column, hash64(record.user_id), session, rule.interest,
                rule.pull, before if rule.pull > 0 else (),
            )
        )  # fmt: skip
        return True

    def _cut(self, section: bytearray, most: int, event: bytes) -> None:
        """Cuts a section that `event` was just put into."""
        if self.gone and event in self.gone:
            self.outcome.unsteady = True
        while len(section) > most * RECORD_BYTES:
            self.gone.add(bytes(section[user_log.EVENT_AT : SESSION_AT]))
            del section[:RECORD_BYTES]

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
        if record.ts_ms <= self.until_ms:
            return self._refuse(offset, record.ts_ms)
        event = user_log.event_bytes(record.impression_id)
        log = self.log.impressions
        if user_log.find(log, event, user_log.EVENT_AT, RECORD_BYTES) >= 0:
            self.repeats.add(event)
            return False
        session = session_hash(record.session_id)
        entry = user_log.record(record.ts_ms, 0, event, session, 0, source_tag(self.part.partition, offset))
        user_log.place(log, entry, RECORD_BYTES)
        self._cut(log, user_log.IMPRESSIONS_MAX, event)
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
