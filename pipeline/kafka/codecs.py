"""Compressed batches, unfolded within a bound: a batch of 16 MB can hold 500 GB of zeros (zstd), and the broker's limit
is on what it weighs folded.

aiokafka unfolds whatever comes, whole; and without cramjam it knows gzip only, so that the first lz4 batch of a producer
would end every worker. Here its four functions are replaced by ones that stop at a bound.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
from aiokafka.record import default_records as plain
from aiokafka.record import legacy_records as old

UNFOLDED_BYTES_MAX = 128 << 20
NAMES = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")
OLD_NAMES = NAMES[:3]  # batches of Kafka before 0.11
XERIAL_HEAD = b"\x82SNAPPY\x00"
XERIAL_BYTES = 16
LENGTH = struct.Struct("!i")


class BatchDamaged(Exception):
    """A compressed batch that cannot be unfolded, or unfolds to too much."""


def register() -> None:
    """Has aiokafka use what is here, in its C modules and in its Python ones."""
    modules: list[Any] = [plain, old]
    try:
        from aiokafka.record._crecords import default_records, legacy_records

        modules += [default_records, legacy_records]
    except ImportError:  # no C extension on this platform
        pass
    for module in modules:
        for name in NAMES if "default" in module.__name__ else OLD_NAMES:
            if not hasattr(module, name):
                raise RuntimeError(
                    f"aiokafka no longer has {module.__name__}.{name}: batches would be unfolded unbounded"
                )
            setattr(module, name, globals()[name])


def gzip_decode(payload: bytes | memoryview) -> bytes:
    """See `BatchDamaged`.

    >>> gzip_decode(gzip.compress(b"a" * 1000)) == b"a" * 1000
    True
    """
    try:
        raw = gzip.GzipFile(fileobj=io.BytesIO(payload)).read(UNFOLDED_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BatchDamaged(f"gzip: {error}") from None
    if len(raw) > UNFOLDED_BYTES_MAX:
        raise BatchDamaged(_too_much("gzip"))
    return raw


def lz4_decode(payload: bytes | memoryview) -> bytes:
    """See `BatchDamaged`."""
    return _unfolded("lz4", cramjam.lz4.decompress_into, payload)


def zstd_decode(payload: bytes | memoryview) -> bytes:
    """See `BatchDamaged`."""
    return _unfolded("zstd", cramjam.zstd.decompress_into, payload)


def snappy_decode(payload: bytes | memoryview) -> bytes:
    """See `BatchDamaged`. Kafka's Java clients write snappy in blocks, each behind its length."""
    raw = memoryview(payload)
    if raw[: len(XERIAL_HEAD)] != XERIAL_HEAD:
        return _unfolded("snappy", cramjam.snappy.decompress_raw_into, raw)
    pieces, held, at = [], 0, XERIAL_BYTES
    while at < len(raw):
        if at + LENGTH.size > len(raw) or (size := LENGTH.unpack_from(raw, at)[0]) < 0:
            raise BatchDamaged("snappy: a block without a length")
        at += LENGTH.size
        pieces.append(
            _unfolded("snappy", cramjam.snappy.decompress_raw_into, raw[at : at + size], UNFOLDED_BYTES_MAX - held)
        )
        held += len(pieces[-1])
        at += size
    return b"".join(pieces)


def _unfolded(
    codec: str, unfold: Callable[[Any, Any], int], payload: bytes | memoryview, most: int = UNFOLDED_BYTES_MAX
) -> bytes:
    """The room is the bound; pages of it that are not written to cost nothing."""
    room = bytearray(most)
    try:
        size = unfold(bytes(payload), room)
    except (cramjam.DecompressionError, ValueError) as error:
        raise BatchDamaged(f"{codec}: {error} ({_too_much(codec)}, or damaged)") from None
    return bytes(memoryview(room)[:size])


def _too_much(codec: str) -> str:
    return f"{codec}: more than {UNFOLDED_BYTES_MAX} bytes in one batch"
