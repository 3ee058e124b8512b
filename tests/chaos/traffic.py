"""The events of a run: the same seed and the same beginning give the same records, in the same order.

Shoppers look, click (1 action in 10: that asks for an answer) and buy; the catalogue changes; lists are shown; somebody
asks for recommendations; some records come late, some twice, some are broken. A few users act, are forgotten and come
back: these are shown no lists, so that what is forgotten follows from one partition's order alone.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from features.domain import Action, Attribute
from features.schema import IMPRESSIONS, ITEMS, REQUESTS, USER_ACTIONS

STEP_MS = 20
LATE_MS = (3_600_000, 10_800_000, 172_800_000)
HEAVY_LATE_MS = (1_000, 5_000)  # a repeat counts once only while its event is among the 256 newest of its user
RECENT_MAX = 400  # repeats come within this many actions: the 256 newest of a user are known
COLOURS = ("red", "green", "blue", "black")

ACTIONS = (
    Action(name="view", trigger=False),
    Action(name="click", weight=2.0),
    Action(name="buy", weight=5.0, purchase=True, trigger=False),
    Action(name="dislike", weight=1.0, negative=True, trigger=False),
)
ATTRIBUTES = (Attribute(name="colour", kind="category", candidates=True), Attribute(name="price", kind="number"))


class Post(NamedTuple):
    """One record on its way into an input topic (its name in the contract). `partition` -1: as the key says."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of what. Shares are of all records but the catalogue's first lines; `clicks` is of the actions."""

    users: int = 3_000
    items: int = 1_500
    clicks: float = 0.1
    impressions: float = 0.1
    items_again: float = 0.04
    requests: float = 0.005
    repeats: float = 0.02
    late: float = 0.03
    broken: float = 0.005
    forgets: float = 0.002
    heavy: float = 0.02  # of the actions: by one of three users, whose logs are cut to their newest 256


@dataclass(slots=True)
class Traffic:
    """An iterator factory: `records()` yields `events` posts. `base_ms`: event time of the first."""

    seed: int
    events: int
    base_ms: int
    shape: Shape = Shape()

    def records(self) -> Iterator[Post]:
        """The posts, in order."""
        random, shape = Random(f"{self.seed}/traffic"), self.shape
        recent: deque[Post] = deque(maxlen=RECENT_MAX)
        first = min(shape.items // 3, self.events // 5)
        for number in range(self.events):
            now_ms = self.base_ms + number * STEP_MS
            if number < first:
                yield _item(random, number, now_ms)
                continue
            post = self._next(random, number, now_ms, recent)
            if post.topic == USER_ACTIONS and post.value is not None:
                recent.append(post)
            yield post

    def _next(self, random: Random, number: int, now_ms: int, recent: deque[Post]) -> Post:
        shape, dice = self.shape, random.random()
        for share, make in (
            (shape.broken, lambda: _broken(random, number, now_ms)),
            (shape.repeats, lambda: random.choice(recent) if recent else self._action(random, number, now_ms)),
            (shape.items_again, lambda: _item(random, random.randrange(shape.items), now_ms)),
            (shape.impressions, lambda: self._impression(random, number, now_ms)),
            (shape.requests, lambda: self._request(random, number, now_ms)),
            (shape.forgets, lambda: Post(USER_ACTIONS, _passing(random).encode(), None)),
        ):
            if dice < share:
                return make()
            dice -= share
        return self._action(random, number, now_ms)

    def _action(self, random: Random, number: int, now_ms: int) -> Post:
        dice = random.random()
        if dice < self.shape.heavy:
            user = f"heavy{random.randrange(3)}"
        elif dice < self.shape.heavy + 0.01:
            user = _passing(random)
        else:
            user = self._user(random)
        dice = random.random()
        clicks = self.shape.clicks
        name = (
            "click"
            if dice < clicks
            else "buy"
            if dice < clicks + 0.05
            else "dislike"
            if dice < clicks + 0.07
            else "view"
        )
        record = {
            "event_id": f"e{number}",
            "user_id": user,
            "item_id": _any_item(random, self.shape),
            "action": name,
            "ts_ms": self._when(random, now_ms, user),
        }
        if random.random() < 0.5:
            record["session_id"] = f"{user}/{number // 5_000}"
        return _post(USER_ACTIONS, user, record)

    def _impression(self, random: Random, number: int, now_ms: int) -> Post:
        user = self._user(random)
        shown = [_any_item(random, self.shape) for _ in range(random.randrange(1, 8))]
        record = {"impression_id": f"p{number}", "user_id": user, "item_ids": shown, "ts_ms": now_ms}
        return _post(IMPRESSIONS, user, record)

    def _request(self, random: Random, number: int, now_ms: int) -> Post:
        user = self._user(random)
        record = {"request_id": f"q{number}", "user_id": user, "ts_ms": now_ms}
        if random.random() < 0.5:
            record["item_ids"] = [_any_item(random, self.shape) for _ in range(20)]
        return _post(REQUESTS, user, record)

    def _user(self, random: Random) -> str:
        return f"u{int(self.shape.users * random.random() ** 1.5)}"

    def _when(self, random: Random, now_ms: int, user: str) -> int:
        if user.startswith("passing"):  # half of what these do lies behind the moment at which they are forgotten
            return now_ms if random.random() < 0.5 else self.base_ms + self.events * STEP_MS + random.randrange(200_000)
        late_ms = random.choice(HEAVY_LATE_MS if user.startswith("heavy") else LATE_MS)
        return now_ms - random.randrange(late_ms) if random.random() < self.shape.late else now_ms


def _post(topic: str, key: str, record: dict[str, object]) -> Post:
    return Post(topic, key.encode(), json.dumps(record, separators=(",", ":")).encode())


def _any_item(random: Random, shape: Shape) -> str:
    return f"i{int(shape.items * random.random() ** 2)}"


def _passing(random: Random) -> str:
    return f"passing{random.randrange(20)}"


def _item(random: Random, number: int, now_ms: int) -> Post:
    name = f"i{number}"
    if random.random() < 0.03:
        return Post(ITEMS, name.encode(), None)
    record: dict[str, object] = {
        "item_id": name,
        "ts_ms": now_ms - random.randrange(60_000),
        "attributes": {"colour": random.choice(COLOURS), "price": random.randrange(1, 500)},
    }
    if random.random() < 0.05:
        record["available"] = False
    return _post(ITEMS, name, record)


def _broken(random: Random, number: int, now_ms: int) -> Post:
    good = {"event_id": f"e{number}", "user_id": "u1", "item_id": "i1", "action": "view", "ts_ms": now_ms}
    kind = random.randrange(6)
    if kind == 0:
        return Post(USER_ACTIONS, b"u1", b'{"event_id": "e')
    if kind == 1:
        return _post(USER_ACTIONS, "u1", {**good, "action": "unheard-of"})
    if kind == 2:
        return _post(USER_ACTIONS, "u1", {**good, "ts_ms": now_ms + 864_000_000})
    if kind == 3:
        return _post(USER_ACTIONS, "u1", {name: value for name, value in good.items() if name != "item_id"})
    if kind == 4:
        return Post(IMPRESSIONS, b"u1", None)
    return _post(REQUESTS, "u1", {"request_id": "", "user_id": "u1", "ts_ms": now_ms})
