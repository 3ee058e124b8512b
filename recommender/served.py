"""Served rows: the very feature rows that were scored and shown, as bytes on the topic `served_features`.

One MessagePack array a recommendation (`Served`, in the order of its fields); `rows` is float32, little endian, one row
of `columns` numbers per item, in the order shown. Training reads exactly these bytes, so what was served and what is
learnt from cannot drift apart. `features_hash` names the catalogue that gives the columns their meaning.
"""

from __future__ import annotations

import msgspec
import numpy as np

from features.scene import Floats
from recommender.recommend import Ranked

FORMAT = 1


class Served(msgspec.Struct, frozen=True, array_like=True):
    """The shown rows of one recommendation. ts_ms: event time of the trigger, the `now` of the features."""

    format: int
    rec_id: str
    user_id: str
    ts_ms: int
    event_age_ms: int
    model_version: str
    features_hash: str
    item_ids: list[str]
    columns: int
    rows: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Served)


def pack(ranked: Ranked, *, user_id: str, ts_ms: int, event_age_ms: int) -> bytes:
    """The record of one answer; `ranked.matrix` float32[k, columns]."""
    rows = np.ascontiguousarray(ranked.matrix, dtype="<f4")
    return _ENCODER.encode(
        Served(
            FORMAT,
            ranked.query_id,
            user_id,
            ts_ms,
            event_age_ms,
            ranked.model_version,
            ranked.features_hash,
            ranked.item_ids,
            rows.shape[1],
            rows.tobytes(),
        )
    )


def unpack(raw: bytes) -> tuple[Served, Floats]:
    """The record and its rows, float32[items, columns]. Raises ValueError for anything that is not one."""
    served = _DECODER.decode(raw)
    if served.format != FORMAT:
        raise ValueError(f"format {served.format}, this release reads {FORMAT}")
    rows = np.frombuffer(served.rows, "<f4")
    if rows.size != len(served.item_ids) * served.columns:
        raise ValueError(f"{rows.size} numbers for {len(served.item_ids)} items of {served.columns} columns")
    return served, rows.reshape(len(served.item_ids), served.columns)
