"""Forgetting in plain words: one log in order, sets of events, nothing incremental. Beside `plain_state.PlainState`."""

from features.facts import Forget
from features.schema import UserAction
from tests.plain_state import PlainState


def name_of(record):
    return type(record).__name__, record.user_id, getattr(record, "event_id", None) or record.impression_id


class PlainForgetting(PlainState):
    """What a state holds after records in this order. `accepted` counts for the items, `kept` is left in users' logs."""

    def __init__(self, ordered, domain, codes):
        self.until_ms = {}
        self.accepted, self.kept, self.refused = [], [], 0
        for record in ordered:
            if isinstance(record, Forget):
                self._forget(record)
            elif record.ts_ms <= self.until_ms.get(record.user_id, -1):
                self.refused += 1
            elif name_of(record) not in map(name_of, self.kept):
                self.accepted.append(record)
                self.kept.append(record)
        super().__init__(self.accepted, domain, codes)
        self._of_users = PlainState(self.kept, domain, codes)

    def _forget(self, record):
        until_ms = max(record.forgotten_ms, self.until_ms.get(record.user_id, -1))
        self.until_ms[record.user_id] = until_ms
        self.kept = [each for each in self.kept if each.user_id != record.user_id or each.ts_ms > until_ms]

    def users(self):
        return self._of_users.users()

    def named(self):
        """(item, user, ts_ms) that a session list may name: of actions that are kept."""
        return {(each.item_id, each.user_id, each.ts_ms) for each in self.kept if isinstance(each, UserAction)}
