"""The state's plain reference: dicts and loops over the set of distinct events, nothing incremental, nothing clever.

It knows the packed layouts from their descriptions alone and shares no code with the fold, the rings or the stores.
"""

import hashlib
import json
import math
import struct
from fractions import Fraction

from features.schema import Impression, Item, UserAction

RINGS = ((1, 6), (5, 13), (60, 25), (1440, 8))
HALF_LIVES_DAYS = (1, 7, 30)


def hash_of(text, size=8):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")


def session_of(text):
    return 0 if text is None else hash_of(text) % 65_535 + 1


class PlainState:
    """Answers `scan` as a store would, from a list of records in which an event may stand many times."""

    def __init__(self, records, domain, codes, *, actions_max=256, impressions_max=64, bought_max=128):
        distinct = {}
        for record in records:
            key = getattr(record, "event_id", None) or getattr(record, "impression_id", None) or (id(record),)
            distinct.setdefault((type(record).__name__, getattr(record, "user_id", ""), key), record)
        self.records = list(distinct.values())
        self.domain, self.codes = domain, codes
        self.limits = actions_max, impressions_max, bought_max

    def scan(self, kind):
        return iter(sorted({"u": self.users, "i": self.rings, "g": self.world, "r": self.catalogue}[kind]()))

    def actions(self):
        return [record for record in self.records if isinstance(record, UserAction)]

    def impressions(self):
        return [record for record in self.records if isinstance(record, Impression)]

    def users(self):
        names = {record.user_id for record in (*self.actions(), *self.impressions())}
        return [(f"{hash_of(user):016x}", self.log(user)) for user in names]

    def log(self, user):
        mine = [record for record in self.actions() if record.user_id == user]
        acted = sorted(
            (each.ts_ms, hash_of(each.item_id), hash_of(each.event_id, 5), session_of(each.session_id),
             self.codes[each.action])
            for each in mine
        )  # fmt: skip
        shown = sorted(
            (each.ts_ms, 0, hash_of(each.impression_id, 5), session_of(each.session_id), 0)
            for each in self.impressions()
            if each.user_id == user
        )
        purchases = {action.name for action in self.domain.actions if action.purchase}
        newest = {}
        for each in mine:
            if each.action in purchases:
                newest[each.item_id] = max(newest.get(each.item_id, 0), each.ts_ms)
        bought = sorted((ts_ms, hash_of(item)) for item, ts_ms in newest.items())
        acted, shown, bought = (rows[-most:] for rows, most in zip((acted, shown, bought), self.limits, strict=True))
        blob = bytes(4) + struct.pack(">HHHH", len(acted), len(shown), len(bought), 0)
        for ts_ms, item, event, session, code in acted + shown:
            blob += ts_ms.to_bytes(6, "big") + item.to_bytes(8, "big") + event.to_bytes(5, "big")
            blob += session.to_bytes(2, "big") + bytes([code]) + bytes(2)
        for ts_ms, item in bought:
            blob += ts_ms.to_bytes(6, "big") + item.to_bytes(8, "big")
        return blob

    def touches(self):
        """(item, minute, column) of every event of every item."""
        columns = self.domain.columns
        for record in self.actions():
            if record.action in columns:
                yield record.item_id, record.ts_ms // 60_000, columns.index(record.action)
        for record in self.impressions():
            for item in set(record.item_ids):
                yield item, record.ts_ms // 60_000, 0

    def rings(self):
        of_item = {}
        for item, minute, column in self.touches():
            of_item.setdefault(item, []).append((minute, column))
        return [(f"{hash_of(item):016x}", self.ring(events, item)) for item, events in of_item.items()]

    def world(self):
        events = [(minute, column) for _, minute, column in self.touches()]
        return [("", self.ring(events, ""))] if events else []

    def ring(self, events, name):
        columns = len(self.domain.columns)
        newest = max(minute for minute, _ in events)
        heads = [newest // width for width, _ in RINGS]
        decay_heads = [newest // (days * 1440 * 8) for days in HALF_LIVES_DAYS]
        counts = [[0] * columns for _ in range(52)]
        decays = [[[0] * columns for _ in range(2)] for _ in HALF_LIVES_DAYS]
        lifetime = [0] * columns
        for minute, column in events:
            lifetime[column] += 1
            first = 0
            for (width, slots), head in zip(RINGS, heads, strict=True):
                if minute // width > head - slots:
                    counts[first + minute // width % slots][column] += 1
                first += slots
            for place, days in enumerate(HALF_LIVES_DAYS):
                bucket, age = divmod(minute, days * 1440 * 8)
                if bucket > decay_heads[place] - 2:
                    decays[place][bucket % 2][column] += math.floor(power(20 + Fraction(age, days * 1440)))
        blob = struct.pack(">7I", *heads, *decay_heads)
        blob += b"".join(struct.pack(f">{columns}Q", *slot) for pair in decays for slot in pair)
        blob += struct.pack(f">{columns}I", *lifetime)
        blob += b"".join(struct.pack(f">{columns}I", *slot) for slot in counts)
        return blob + len(name.encode()).to_bytes(2, "big") + name.encode()

    def catalogue(self):
        winners = {}
        for record in self.records:
            if isinstance(record, Item):
                text = json.dumps(record.attributes or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
                rank = (record.ts_ms, bytes([record.available]) + text.encode())
                known, first = winners.get(record.item_id, ((-1, b""), 0))
                times = [ts_ms for ts_ms in (first, record.ts_ms) if ts_ms]
                winners[record.item_id] = (max(known, rank), min(times, default=0))
        return [
            (
                f"{hash_of(item):016x}",
                struct.pack(">QQBH", ts_ms, first, body[0], len(item.encode())) + item.encode() + body[1:],
            )
            for item, ((ts_ms, body), first) in winners.items()
        ]


def power(exponent):
    """2 ** exponent as the state defines it: in steps of 2**-20, product of correctly rounded square roots."""
    whole, steps = int(exponent), int((exponent - int(exponent)) * 2**20)
    product, root = 1.0, 2.0
    for bit in range(19, -1, -1):
        root = math.sqrt(root)
        if steps >> bit & 1:
            product *= root
    return product * 2**whole
