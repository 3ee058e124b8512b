"""Shoppers in the simulated shop: they come, look at lists, click, put into the cart, buy, and leave.

What they are shown is the newest recommendation for them, where one has come; a control group gets the shop's own
trending list instead, so that both hit rates can be compared. Without recommendations the same seed and the same
clock give the same records. Everything here is pure: the clock is an argument, chance is the world's generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from features.schema import (
    IMPRESSIONS,
    ITEMS,
    REQUESTS,
    USER_ACTIONS,
    Impression,
    Item,
    RecommendationRequest,
    UserAction,
)
from pipeline.demo.world import CATEGORIES, Floats, Indices, World

Record = UserAction | Impression | Item | RecommendationRequest
Kind = Literal["recommended", "trending", "own", "search"]
TOPIC_OF: dict[type, str] = {
    UserAction: USER_ACTIONS,
    Impression: IMPRESSIONS,
    Item: ITEMS,
    RecommendationRequest: REQUESTS,
}

LIST_LENGTH = 10
LISTS_MAX = 8
CLICKS_MAX = 3
POSITION_BIAS = 0.25  # the item at position j (from 0) is looked at with probability 1 / (1 + 0.25 j)
CONTROL_SHARE = 0.2
TRENDING_HALF_LIFE_RECORDS = 4_000
TRENDING_EVERY = 50
NEW_ITEM_EVERY = 150
STOCK_CHANGE_EVERY = 700
SEARCH_ITEMS = 24
OWNED_MAX = 50


@dataclass(slots=True)
class Visit:
    """One shopper in the shop now. `intent` is the taste bent towards what this visit is for."""

    user: int
    session_id: str
    intent: Floats
    device: str
    pending: deque[tuple[str, int, str | None]] = field(default_factory=deque)  # action, item, impression_id
    lists: int = 0
    viewed: int | None = None
    request_id: str | None = None
    searched: list[int] = field(default_factory=list)
    leaving: float = 0.0


@dataclass(slots=True)
class Shown:
    """Lists of one kind: how many were shown, how many got a click, and how many would on average (the truth)."""

    lists: int = 0
    hits: int = 0
    expected: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share of lists with at least one click; None before the first list."""
        return self.hits / self.lists if self.lists else None


class Shop:
    """Moves shoppers on, one step a call, and remembers what was recommended to whom."""

    def __init__(self, world: World, rng: np.random.Generator, *, active: int = 200) -> None:
        self.world = world
        self.shown: dict[Kind, Shown] = {}
        self.count_afresh()
        self._rng = rng
        users = len(world.tastes)
        self._control = rng.random(users) < CONTROL_SHARE
        self._acted = np.zeros(users, dtype=bool)
        self._owned: dict[int, deque[int]] = {}
        self._available = np.ones(len(world.products), dtype=bool)
        self._clicks = np.zeros(len(world.products))
        self._trending: Indices = np.arange(2 * LIST_LENGTH)
        self._records = 0
        self._steps = 0
        self._serial = 0
        self._inside: set[int] = set()
        self._visits = [self._arrive() for _ in range(min(active, users // 2))]
        self._for_user: dict[str, tuple[str, list[int]]] = {}
        self._for_request: dict[str, tuple[str, list[int]]] = {}

    def opening(self, *, ts_ms: int) -> list[Record]:
        """The catalogue before the doors open: one record an item."""
        return [product.record(ts_ms=ts_ms) for product in self.world.products]

    def step(self, *, now_ms: int) -> list[Record]:
        """One shopper's next move and whatever the catalogue does meanwhile: 0 to 3 records."""
        self._steps += 1
        records = self._catalogue(now_ms)
        slot = int(self._rng.integers(len(self._visits)))
        visit = self._visits[slot]
        if self._done(visit):
            self._inside.discard(visit.user)
            visit = self._visits[slot] = self._arrive()
        records += self._move(visit, now_ms)
        self._records += len(records)
        return records

    def receive(self, user_id: str, rec_id: str, item_ids: Sequence[str], *, request_id: str | None = None) -> None:
        """A recommendation has come: the user's next list shows it (an answer to a search: that search's list)."""
        known = [index for item_id in item_ids if (index := self.world.index.get(item_id)) is not None]
        if not known:
            return
        if request_id is None:
            self._for_user[user_id] = (rec_id, known)
        else:
            self._for_request[request_id] = (rec_id, known)

    def count_afresh(self) -> None:
        """Starts the hit rates again: what was shown before recommendations flowed compares nothing."""
        self.shown = {"recommended": Shown(), "trending": Shown(), "own": Shown(), "search": Shown()}

    def is_control(self, user_id: str) -> bool:
        """Whether this user belongs to the control group, which sees trending lists only."""
        return bool(self._control[int(user_id[1:])])

    def _arrive(self) -> Visit:
        rng, world = self._rng, self.world
        user = int(rng.choice(len(world.tastes), p=world.activity))
        while user in self._inside:
            user = int(rng.integers(len(world.tastes)))
        self._inside.add(user)
        taste = world.tastes[user]
        wish = np.exp(4.0 * taste[: len(CATEGORIES)])
        purpose = np.zeros_like(taste)
        purpose[rng.choice(len(CATEGORIES), p=wish / wish.sum())] = 0.6
        intent = taste + purpose
        device = "mobile" if rng.random() < 0.6 else "desktop"
        return Visit(user, f"s{self._next()}", intent / np.linalg.norm(intent), device)

    def _done(self, visit: Visit) -> bool:
        if visit.pending or visit.request_id is not None:
            return False
        return visit.lists >= LISTS_MAX or (visit.lists > 0 and bool(self._rng.random() < visit.leaving))

    def _move(self, visit: Visit, now_ms: int) -> list[Record]:
        if visit.pending:
            return [self._act(visit, *visit.pending.popleft(), now_ms)]
        if visit.request_id is not None:
            return self._show(visit, now_ms)
        chance = self._rng.random()
        if visit.viewed is None and chance < 0.8:
            return [self._browse(visit, now_ms)]
        if chance < 0.05:
            return [self._search(visit, now_ms)]
        if chance < 0.2:
            return [self._browse(visit, now_ms)]
        return self._show(visit, now_ms)

    def _browse(self, visit: Visit, now_ms: int) -> UserAction:
        """The shopper finds an item alone: a view without a list."""
        world = self.world
        weight = 6.0 * (world.vectors @ visit.intent) + world.appeal(self._records)
        chances = np.exp(weight - weight.max()) * self._available
        item = int(self._rng.choice(len(chances), p=chances / chances.sum()))
        return self._act(visit, "view", item, None, now_ms)

    def _search(self, visit: Visit, now_ms: int) -> RecommendationRequest:
        """The shopper searches; the shop asks for the results in a good order."""
        open_items = np.flatnonzero(self._available)
        near = self.world.vectors[open_items] @ visit.intent + self._rng.normal(scale=0.25, size=len(open_items))
        results = open_items[np.argsort(-near, kind="stable")[:SEARCH_ITEMS]]
        self._rng.shuffle(results)
        visit.searched = results.tolist()
        visit.request_id = f"r{self._next()}"
        ids = [self.world.products[index].item_id for index in visit.searched]
        return RecommendationRequest(
            visit.request_id, _user_id(visit.user), now_ms, item_ids=ids, context={"device": visit.device}
        )

    def _show(self, visit: Visit, now_ms: int) -> list[Record]:
        """Shows a list and lets the shopper look at it from the top: the impression now, the clicks one by one later."""
        kind, rec_id, items = self._list_for(visit)
        visit.lists += 1
        impression = Impression(
            f"i{self._next()}",
            _user_id(visit.user),
            [self.world.products[index].item_id for index in items],
            now_ms,
            rec_id=rec_id,
            session_id=visit.session_id,
            context={"device": visit.device},
        )
        chances = look_chances(len(items)) * self._relevance(visit, items)
        clicked = np.flatnonzero(self._rng.random(len(items)) < chances)[:CLICKS_MAX]
        for index in items[clicked].tolist():
            visit.pending.extend(self._after_click(visit, index, impression.impression_id))
        # Shoppers whom nobody knows yet would make the control group look worse than it is.
        if self._acted[visit.user]:
            shown = self.shown[kind]
            shown.lists += 1
            shown.hits += len(clicked) > 0
            shown.expected += float(1.0 - np.prod(1.0 - chances))
        visit.leaving = 0.2 if len(clicked) else 0.45
        return [impression]

    def _list_for(self, visit: Visit) -> tuple[Kind, str | None, Indices]:
        """What the shopper sees next; never an item that ran out, never an empty list."""
        user_id = _user_id(visit.user)
        if visit.request_id is not None:
            rec_id, found = self._for_request.pop(visit.request_id, (None, visit.searched))
            visit.request_id = None
            if len(items := self._cut(found)):
                return "search", rec_id, items
        if self._control[visit.user]:
            return "trending", None, self._cut(self._trending)
        if user_id in self._for_user:
            rec_id, found = self._for_user[user_id]
            if len(items := self._cut(found)):
                return "recommended", rec_id, items
        return "own", None, self._own_page(visit)

    def _own_page(self, visit: Visit) -> Indices:
        """What the shop shows without Headrace: trending, or a page around what was viewed last, mixed with chance."""
        if visit.viewed is None or self._rng.random() < 0.4:
            return self._cut(self._trending)
        open_items = np.flatnonzero(self._available)
        near = self.world.vectors[open_items] @ self.world.vectors[visit.viewed]
        near += self._rng.normal(scale=0.3, size=len(open_items))
        return open_items[np.argsort(-near, kind="stable")[:LIST_LENGTH]]

    def _cut(self, items: Sequence[int] | Indices) -> Indices:
        array = np.asarray(items, dtype=np.int64)
        return array[self._available[array]][:LIST_LENGTH]

    def _relevance(self, visit: Visit, items: Indices) -> Floats:
        relevance = self.world.relevance(visit.intent, items, at=self._records)
        return relevance * np.where(np.isin(items, list(self._owned.get(visit.user, ()))), 0.1, 1.0)

    def _after_click(self, visit: Visit, item: int, impression_id: str) -> list[tuple[str, int, str | None]]:
        liking = float(self._relevance(visit, np.asarray([item]))[0])
        actions: list[tuple[str, int, str | None]] = [("click", item, impression_id)]
        if self._rng.random() < 0.5 * liking:
            actions.append(("cart", item, impression_id))
            if self._rng.random() < 0.5:
                actions.append(("purchase", item, impression_id))
        return actions

    def _act(self, visit: Visit, action: str, item: int, impression_id: str | None, now_ms: int) -> UserAction:
        self._acted[visit.user] = True
        visit.viewed = item
        self._clicks[item] += 1.0
        product = self.world.products[item]
        if action == "purchase":
            self._owned.setdefault(visit.user, deque(maxlen=OWNED_MAX)).append(item)
        return UserAction(
            f"e{self._next()}",
            _user_id(visit.user),
            product.item_id,
            action,
            now_ms,
            session_id=visit.session_id,
            impression_id=impression_id,
            value=product.price if action == "purchase" else None,
        )

    def _catalogue(self, now_ms: int) -> list[Record]:
        """New items arrive, stocks run out and fill up again; the trending list is made anew now and then."""
        records: list[Record] = []
        if self._steps % NEW_ITEM_EVERY == 0 and not self.world.is_full:
            product = self.world.add_item(at=self._records)
            self._available = np.append(self._available, True)
            self._clicks = np.append(self._clicks, 0.0)
            records.append(product.record(ts_ms=now_ms))
        if self._steps % STOCK_CHANGE_EVERY == 0:
            item = int(self._rng.integers(len(self._available)))
            self._available[item] = not self._available[item]
            records.append(self.world.products[item].record(ts_ms=now_ms, available=bool(self._available[item])))
        if self._steps % TRENDING_EVERY == 0:
            self._clicks *= 0.5 ** (TRENDING_EVERY / TRENDING_HALF_LIFE_RECORDS)
            order = np.argsort(-np.where(self._available, self._clicks, -1.0), kind="stable")
            self._trending = order[: 2 * LIST_LENGTH]
        return records

    def _next(self) -> int:
        self._serial += 1
        return self._serial


def look_chances(length: int) -> Floats:
    """float64[length]: the probability that a shopper looks at each position of a list.

    >>> look_chances(3).round(2).tolist()
    [1.0, 0.8, 0.67]
    """
    return 1.0 / (1.0 + POSITION_BIAS * np.arange(length, dtype=np.float64))


def _user_id(user: int) -> str:
    return f"u{user:05d}"
