"""What is remembered of a user who was forgotten: until when, under a name that tells nothing.

A tombstone holds neither the id nor its hash. Its name is a keyed hash of the user's hash; the key (the salt of the
state) stands in `meta`. Events of the user up to `until_ms` never count again, for nobody.

A redo must know how an event came out the first time, which a deleted log no longer tells: it was counted, before its
user was forgotten, or refused, after. An event that is refused leaves its place: in that partition all that is as old
is refused from there on, and what lies before was counted.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from features.store.port import Part

REFUSALS_MAX = 32  # one a partition and forgetting; a redo needs the newest


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """From this offset on, a partition's events of the user up to `until_ms` are refused."""

    topic: str
    partition: int
    offset: int
    until_ms: int


class Tombstone(msgspec.Struct, frozen=True, array_like=True):
    """`until_ms`: event time up to which nothing of the user counts, -1: never forgotten."""

    until_ms: int = -1
    refusals: tuple[Refusal, ...] = ()

    def refused(self, part: Part, offset: int, ts_ms: int) -> bool:
        """Whether the event at that offset is known to have come after its user was forgotten.

        >>> Tombstone(9).refusing(Part("t", 0), 5).refused(Part("t", 0), 6, 9)
        True
        """
        return any(
            (each.topic, each.partition) == part and each.offset <= offset and ts_ms <= each.until_ms
            for each in self.refusals
        )

    def refusing(self, part: Part, offset: int) -> Tombstone:
        """The same, after the event at that offset was refused."""
        refusals = (*self.refusals, Refusal(part.topic, part.partition, offset, self.until_ms))
        return Tombstone(self.until_ms, refusals[-REFUSALS_MAX:])

    def later(self, until_ms: int) -> Tombstone:
        """The same, after the user was forgotten once more."""
        return Tombstone(max(self.until_ms, until_ms), self.refusals)


NEVER = Tombstone()


def pack(tombstone: Tombstone) -> bytes:
    """As the store keeps it (MessagePack)."""
    return msgspec.msgpack.encode(tombstone)


def unpack(blob: bytes) -> Tombstone:
    """What the store kept; `NEVER` for an absent one. Raises `ValueError` for a damaged one.

    >>> unpack(pack(Tombstone(5))), unpack(b"") == NEVER
    (Tombstone(until_ms=5, refusals=()), True)
    """
    try:
        return _DECODER.decode(blob) if blob else NEVER
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"its {len(blob)} bytes are no tombstone: {error}") from None


def name(user: int, salt: bytes) -> str:
    """32 hex digits: a user hash under the state's salt. No other key of the state has it.

    >>> name(7, b"salt") == name(7, b"salt") != name(7, b"other"), len(name(7, b""))
    (True, 32)
    """
    return blake2b(user.to_bytes(8, "big"), key=salt, digest_size=16).hexdigest()


_DECODER = msgspec.msgpack.Decoder(Tombstone)
