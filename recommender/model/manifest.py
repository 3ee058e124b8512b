"""The manifest beside a model: what it is, what it was trained on, and rows whose scores it must reproduce."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.scene import Floats

GOLDEN_ROWS_MIN = 64
MODEL_FILE = "model.txt"
MANIFEST_FILE = "manifest.json"


class Golden(msgspec.Struct, frozen=True):
    """Rows float32 little endian in C order as base64, and their raw scores as hex doubles: equal to the bit or no."""

    rows: str
    scores: list[str]


class Window(msgspec.Struct, frozen=True):
    """The event time of the queries it was trained on, both ends included."""

    first_ts_ms: int
    last_ts_ms: int
    queries: int


class Tried(msgspec.Struct, frozen=True):
    """One setting that was tried: what it changed of the best before it, the trees it stopped at, its NDCG@10 on the
    held-out lists, its lead over the best before it with the standard error, and whether it was kept.
    """

    changed: dict[str, Any]
    trees: int
    ndcg: float
    lead: float
    error: float
    kept: bool


class Importance(msgspec.Struct, frozen=True):
    """One column: what its splits gained in the objective, all together, and how many they are."""

    feature: str
    gain: float
    splits: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` holds. `metrics` are those of the held-out last part of the window; `tried` in order;
    `importances` the greatest gain first; `init` the version it was grown on.
    """

    version: str
    sha256: str
    lightgbm: str
    objective: str
    feature_names: list[str]
    features_hash: str
    categorical: list[int]
    num_trees: int
    num_leaves: int
    window: Window
    golden: Golden
    metrics: dict[str, float] = {}
    parameters: dict[str, Any] = {}
    tried: list[Tried] = []
    importances: list[Importance] = []
    init: str | None = None


def golden(rows: Floats, scores: NDArray[np.float64]) -> Golden:
    """Packs rows float32[n, features] and their scores float64[n].

    >>> golden(np.zeros((1, 2), np.float32), np.array([0.5])).scores
    ['0x1.0000000000000p-1']
    """
    packed = b64encode(np.ascontiguousarray(rows, "<f4").tobytes()).decode()
    return Golden(rows=packed, scores=[float(score).hex() for score in scores])


def golden_rows(manifest: Manifest) -> Floats:
    """float32[n, features]: the rows as they were packed. Raises ValueError where they do not fit the names."""
    flat = np.frombuffer(b64decode(manifest.golden.rows, validate=True), "<f4")
    rows: Floats = flat.reshape(len(manifest.golden.scores), len(manifest.feature_names)).astype(np.float32)
    return rows


def hex_scores(scores: NDArray[np.float64]) -> list[str]:
    """The scores as the manifest writes them: text that is equal exactly when the doubles are."""
    return [float(score).hex() for score in scores]
