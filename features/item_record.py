"""The packed record of an item: what the catalogue last said of it.

Layout, big endian: newest_ts u64 | first_ts u64 | flags u8 | id length u16 | id UTF-8 | canonical JSON of the
attributes (sorted keys, no blanks). The newest record wins by (newest_ts, flags and attributes as bytes), whatever the
order of arrival; first_ts is the smallest non-zero time of all records seen (0 = unknown), so it never moves up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from features.schema import Item, ItemAttributes

HEAD = struct.Struct(">QQBH")
AVAILABLE = 1
GONE = 2

_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(dict[str, float | str | list[str]])


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """A decoded record. `first_ts_ms` 0 = unknown, `available` False when withdrawn or gone."""

    item_id: str
    newest_ts_ms: int
    first_ts_ms: int
    available: bool
    gone: bool
    attributes: ItemAttributes


def pack(item: Item) -> bytes:
    """The record of one catalogue entry, as if it were the only one seen.

    >>> unpack(pack(Item("a", 5, attributes={"price": 2.0}))).attributes
    {'price': 2.0}
    """
    flags = AVAILABLE if item.available else 0
    return _packed(item.item_id, item.ts_ms, item.ts_ms, flags, _ENCODER.encode(item.attributes or {}))


def pack_gone(item_id: str, *, ts_ms: int) -> bytes:
    """The record of a null value on `items`. Its time is the log's, so it never makes an item new.

    >>> unpack(pack_gone("a", ts_ms=5)).gone
    True
    """
    return _packed(item_id, ts_ms, 0, GONE, b"{}")


def unpack(blob: bytes) -> ItemRecord:
    """The record that `blob` holds; `blob` must not be empty. Raises `ValueError` for a damaged one."""
    try:
        newest, first, flags, size = HEAD.unpack_from(blob)
        end = HEAD.size + size
        return ItemRecord(
            item_id=blob[HEAD.size : end].decode(),
            newest_ts_ms=newest,
            first_ts_ms=first,
            available=flags == AVAILABLE,
            gone=bool(flags & GONE),
            attributes=_DECODER.decode(blob[end:]),
        )
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its {len(blob)} bytes are no item record: {error}") from None


def merged(old: bytes, new: bytes) -> bytes:
    """The winner of two records of one item; b"" = absent. Commutes, associates and may be repeated.

    >>> a, b = pack(Item("a", 5)), pack(Item("a", 9, available=False))
    >>> merged(a, b) == merged(b, a), unpack(merged(a, b)).first_ts_ms, unpack(merged(a, b)).available
    (True, 5, False)
    """
    if not old or not new:
        return old or new
    winner = max(old, new, key=_rank)
    firsts = [ts for blob in (old, new) if (ts := HEAD.unpack_from(blob)[1])]
    return winner[:8] + min(firsts, default=0).to_bytes(8, "big") + winner[16:]


def texts(value: float | str | list[str] | None) -> list[str]:
    """The distinct values of a category or set attribute; a number is its shortest decimal form.

    >>> texts(None), texts("a"), texts(["a", "b", "a"]), texts(3.0)
    ([], ['a'], ['a', 'b'], ['3'])
    """
    if value is None:
        return []
    if isinstance(value, float):
        return [f"{value:.15g}"]
    return [value] if isinstance(value, str) else list(dict.fromkeys(value))


def _rank(blob: bytes) -> tuple[bytes, bytes, bytes]:
    return blob[:8], blob[16:17], blob[HEAD.size + HEAD.unpack_from(blob)[3] :]


def _packed(item_id: str, newest: int, first: int, flags: int, attributes: bytes) -> bytes:
    name = item_id.encode()
    return HEAD.pack(newest, first, flags, len(name)) + name + attributes
