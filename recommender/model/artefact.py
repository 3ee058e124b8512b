"""A model as a directory, renamed into place: `model.txt` and `manifest.json`. Saved whole or not at all; loaded only
after every check, since LightGBM kills the process on a damaged file and scores quietly wrong on an altered one.

sha256 -> structure in pure Python -> feature names and fingerprint -> loaded in a process of its own -> golden rows
equal to the bit -> latency budget -> ranker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import lightgbm
import msgspec
import numpy as np

from features.scene import Floats
from recommender.model.manifest import (
    GOLDEN_ROWS_MIN,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    golden_rows,
    hex_scores,
)
from recommender.model.structure import Damaged, read_structure
from recommender.ranker import Cascade, LightGBMRanker

MODEL_BYTES_MAX = 256 * 1024 * 1024
PROBE_TIMEOUT_S = 60.0
BUDGET_ROWS = 500


class ModelRefused(ValueError):
    """A model that must not serve; `reason` says what is wrong with it, in words for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FeatureNames(Protocol):
    """What a model is checked against: `features.catalog.Catalog` has it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in order."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits over names and rules."""
        ...

    @property
    def categorical(self) -> tuple[int, ...]:
        """The indices of the columns that hold codes."""
        ...


def save(directory: Path, model: str, manifest: Manifest) -> Path:
    """Writes `directory` with both files by one rename, and returns it. Raises FileExistsError where it exists.

    `manifest.sha256` is filled in here from the bytes written.
    """
    if directory.exists():
        raise FileExistsError(f"{directory}: a version is never written twice")
    raw = model.encode()
    draft = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    signed = msgspec.structs.replace(manifest, sha256=sha256(raw).hexdigest())
    for name, content in ((MODEL_FILE, raw), (MANIFEST_FILE, msgspec.json.format(msgspec.json.encode(signed)))):
        with (draft / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    draft.rename(directory)
    return directory


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a model directory. Raises `ModelRefused` where there is none or it is not one."""
    try:
        return msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
    except OSError as error:
        raise ModelRefused(f"{MANIFEST_FILE}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{MANIFEST_FILE}: {error}") from None


def load(
    directory: Path,
    catalog: FeatureNames,
    *,
    cascade: Cascade | None = None,
    clock_s: Callable[[], float] | None = None,
    budget_ms: float = 50.0,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> LightGBMRanker:
    """The ranker in `directory`, every check passed; raises `ModelRefused` and never harms the process.

    `clock_s` (seconds, for instance `time.perf_counter`) turns the latency check on: `BUDGET_ROWS` rows within
    `budget_ms`, best of three. `timeout_s` bounds the probe in its own process.
    """
    manifest = read_manifest(directory)
    raw = _read_model(directory, manifest)
    check(raw, manifest, catalog)
    _probe(directory, manifest, timeout_s)
    booster = lightgbm.Booster(model_str=raw.decode())
    if booster.feature_name() != manifest.feature_names:
        raise ModelRefused("the loaded booster's feature names differ from the manifest's")
    ranker = LightGBMRanker(booster, manifest.version, manifest.features_hash, manifest.num_trees)
    rows = golden_rows(manifest)
    if hex_scores(ranker.score(rows)) != manifest.golden.scores:
        raise ModelRefused("golden rows: scores differ in this process")
    if clock_s is not None:
        _check_budget(ranker, rows, clock_s, budget_ms)
    return LightGBMRanker(booster, manifest.version, manifest.features_hash, manifest.num_trees, cascade)


def check(raw: bytes, manifest: Manifest, catalog: FeatureNames) -> None:
    """Everything that can be known of a model without LightGBM. Raises `ModelRefused`."""
    if manifest.features_hash != catalog.fingerprint:
        raise ModelRefused(
            f"features_hash {manifest.features_hash}: this configuration's features are {catalog.fingerprint}"
        )
    if difference := _difference(manifest.feature_names, catalog.names):
        raise ModelRefused(f"feature names of the manifest: {difference}")
    if sha256(raw).hexdigest() != manifest.sha256:
        raise ModelRefused(f"{MODEL_FILE}: sha256 differs from the manifest's: damaged or replaced")
    try:
        structure = read_structure(raw)
    except Damaged as error:
        raise ModelRefused(f"{MODEL_FILE}: {error}") from None
    if difference := _difference(structure.feature_names, catalog.names):
        raise ModelRefused(f"feature names of {MODEL_FILE}: {difference}")
    if tuple(manifest.categorical) != tuple(catalog.categorical):
        raise ModelRefused(f"categorical features {manifest.categorical}, not {list(catalog.categorical)}")
    if structure.num_trees != manifest.num_trees or structure.objective.split()[:1] != [manifest.objective]:
        raise ModelRefused(f"{MODEL_FILE}: {structure.num_trees} trees of {structure.objective}, not the manifest's")
    _check_golden(manifest)


def _check_golden(manifest: Manifest) -> None:
    try:
        rows = golden_rows(manifest)
    except ValueError as error:
        raise ModelRefused(f"golden rows: {error}") from None
    if len(rows) < GOLDEN_ROWS_MIN:
        raise ModelRefused(f"golden rows: {len(rows)}, at least {GOLDEN_ROWS_MIN}")


def _read_model(directory: Path, manifest: Manifest) -> bytes:
    path = directory / MODEL_FILE
    try:
        if path.stat().st_size > MODEL_BYTES_MAX:
            raise ModelRefused(f"{MODEL_FILE} of {manifest.version}: over {MODEL_BYTES_MAX} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{MODEL_FILE}: {error.strerror}") from None


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """The first place where two lists of names part, in words; empty when they are equal."""
    for index, (mine, theirs) in enumerate(zip(found, expected, strict=False)):
        if mine != theirs:
            return f"column {index} is {mine}, here it is {theirs}"
    return f"{len(found)}, here {len(expected)}" if len(found) != len(expected) else ""


def _probe(directory: Path, manifest: Manifest, timeout_s: float) -> None:
    """Loads the model in a process of its own, whose death is an answer too, and compares the golden scores there."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "recommender.model.probe", str(directory)],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ModelRefused(f"probe: no answer within {timeout_s:g} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1][:200]
        raise ModelRefused(f"probe: LightGBM ended with {done.returncode}: {said}")
    if msgspec.json.decode(done.stdout, type=list[str]) != manifest.golden.scores:
        raise ModelRefused("golden rows: the model does not give the scores it was saved with")


def _check_budget(ranker: LightGBMRanker, rows: Floats, clock_s: Callable[[], float], budget_ms: float) -> None:
    matrix: Any = np.ascontiguousarray(np.resize(rows, (BUDGET_ROWS, rows.shape[1])))
    spans_ms = []
    for _ in range(3):
        begun = clock_s()
        ranker.score(matrix)
        spans_ms.append((clock_s() - begun) * 1000)
    if min(spans_ms) > budget_ms:
        raise ModelRefused(f"latency: {min(spans_ms):.1f} ms for {BUDGET_ROWS} rows, the budget is {budget_ms:g} ms")
