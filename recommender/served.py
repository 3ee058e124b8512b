"""Served rows: the very feature rows that were scored, as bytes on the topic `served_features`.

One MessagePack array a recommendation (`Served`, in the order of its fields): first the shown items, best first, then
a fair sample of those that were scored and not shown. `rows` is float32 and `scores` float64, both little endian, one
row of `columns` numbers and one score an item. Training reads exactly these bytes, so what was served and what is
learnt from cannot drift apart; and the scores can be recomputed from them to the bit (`recompute`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.scene import Floats
from recommender.ranker import LightGBMRanker
from recommender.recommend import Ranked

FORMAT = 2
SERVED_BYTES_MAX = 900_000  # a broker's default limit is 1 MB
BACKLOG_MS = 60_000


class Served(msgspec.Struct, frozen=True, array_like=True):
    """The scored rows of one recommendation.

    ts_ms: event time of the trigger, the `now` of the features. event_age_ms: from the log's timestamp of the trigger
    to its reading. backlog: such rows teach nothing, for their trigger's age (`is_backlog`), or for want of a source
    that failed or was not asked. cascade_trees: the prefix of the cascade that scored (0: all trees scored all rows).
    The first `shown` of item_ids were shown; the others are a sample of `sample_rate` (0 to 1) of the rest, for audit
    and comparison, not for training. features_hash names the catalogue that gives the columns their meaning.
    """

    format: int
    rec_id: str
    user_id: str
    ts_ms: int
    event_age_ms: int
    backlog: bool
    model_version: str
    features_hash: str
    cascade_trees: int
    item_ids: list[str]
    shown: int
    sample_rate: float
    scores: bytes
    columns: int
    rows: bytes


class Unpacked(NamedTuple):
    """A record with its numbers: scores float64[items], rows float32[items, columns]."""

    served: Served
    scores: NDArray[np.float64]
    rows: Floats


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Served)


def pack(ranked: Ranked, *, user_id: str, ts_ms: int, event_age_ms: int, backlog: bool) -> bytes:
    """The record of one answer. Beyond SERVED_BYTES_MAX of rows the sample is cut, what was shown never."""
    drawn, rate = _room(ranked)
    sample = ranked.sample
    rows = np.concatenate([ranked.matrix, sample.matrix[:drawn]]) if drawn else ranked.matrix
    scores = np.concatenate([ranked.scores, sample.scores[:drawn]])
    return _ENCODER.encode(
        Served(
            FORMAT,
            ranked.query_id,
            user_id,
            ts_ms,
            event_age_ms,
            backlog,
            ranked.model_version,
            ranked.features_hash,
            ranked.cascade_trees,
            [*ranked.item_ids, *sample.item_ids[:drawn]],
            len(ranked.item_ids),
            rate,
            np.ascontiguousarray(scores, "<f8").tobytes(),
            ranked.matrix.shape[1],
            np.ascontiguousarray(rows, "<f4").tobytes(),
        )
    )


def unpack(raw: bytes) -> Unpacked:
    """The record and its numbers. Raises ValueError for anything that is not one."""
    try:
        served = _DECODER.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    if served.format != FORMAT:
        raise ValueError(f"format {served.format}, this release reads {FORMAT}")
    items = len(served.item_ids)
    rows, scores = np.frombuffer(served.rows, "<f4"), np.frombuffer(served.scores, "<f8")
    if rows.size != items * served.columns or scores.size != items or not 0 <= served.shown <= items:
        raise ValueError(
            f"{rows.size} numbers and {scores.size} scores for {items} items of {served.columns} columns, "
            f"{served.shown} of them shown"
        )
    return Unpacked(served, scores, rows.reshape(items, served.columns))


def is_backlog(*, read_ms: int, log_ts_ms: int, ts_ms: int) -> bool:
    """Whether a trigger is part of a backlog: read more than 60 s after it was logged, or after it happened.

    The first is a worker that was behind, the second an old log published again or an event that came late. Either way
    the state may know by then what came after `ts_ms`, labels included: such rows are served, never trained on.

    >>> is_backlog(read_ms=100_000, log_ts_ms=99_000, ts_ms=98_000), is_backlog(read_ms=100_000, log_ts_ms=99_000, ts_ms=1)
    (False, True)
    """
    return read_ms - min(log_ts_ms, ts_ms) > BACKLOG_MS


def recompute(unpacked: Unpacked, ranker: LightGBMRanker) -> NDArray[np.float64]:
    """float64[items]: the scores of the logged rows by the model that is named in the record, `ranker` having the
    record's cascade: equal to the logged ones to the bit.
    """
    return ranker.rescore(np.ascontiguousarray(unpacked.rows, np.float32), unpacked.scores)


def _room(ranked: Ranked) -> tuple[int, float]:
    """How many sampled rows go on record, and their rate: of a cut sample the draw of the first that is left out."""
    sample = ranked.sample
    if not sample.item_ids:
        return 0, sample.rate
    room = max(0, SERVED_BYTES_MAX - ranked.matrix.nbytes) // max(1, sample.matrix[0].nbytes)
    if room >= len(sample.item_ids):
        return len(sample.item_ids), sample.rate
    return room, float(sample.draws[room])
