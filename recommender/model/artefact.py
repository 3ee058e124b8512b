"""A model as a directory, renamed into place: `model.txt` and `manifest.json`. Saved whole or not at all; loaded only
after every check, since LightGBM kills the process on a damaged file and scores quietly wrong on an altered one.

fingerprint and feature names -> sha256 -> structure in pure Python -> loaded in a process of its own -> golden rows
equal to the bit -> latency budget -> ranker.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
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
from recommender.ranker import Cascade, LightGBMRanker, Ranker
from recommender.recommend import NO_VERSION

MODEL_BYTES_MAX = 256 * 1024 * 1024
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
PROBE_TIMEOUT_S = 60.0
BUDGET_ROWS = 500
BUDGET_RUNS = 9
BUDGET_MS = 50.0
REASON_MAX = 300
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
VERSION_RULE = "1 to 128 of A-Z a-z 0-9 _ . + -, the first none of . + -"


class ModelRefused(ValueError):
    """A model that must not serve; `reason` says what is wrong with it, in words for the operator.

    A manifest may hold megabytes of text; the reason becomes the cause of every answer, so it quotes only their start.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason if len(reason) <= REASON_MAX else f"{reason[:REASON_MAX]}..."
        super().__init__(self.reason)


def check_version(version: str) -> None:
    """Refuses a version's name that is no safe part of a path: `ModelRefused`.

    >>> check_version("20260101T120000")
    >>> check_version("../v1")
    Traceback (most recent call last):
    recommender.model.artefact.ModelRefused: version '../v1': 1 to 128 of A-Z a-z 0-9 _ . + -, the first none of . + -
    """
    if version == NO_VERSION or not VERSION.fullmatch(version):
        rule = "it means: no model" if version == NO_VERSION else VERSION_RULE
        raise ModelRefused(f"version {version[:200]!r}: {rule}")


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


def save(directory: Path, model: str, manifest: Manifest, *, files: Mapping[str, bytes] | None = None) -> Path:
    """Writes `directory` with both files by one rename, and returns it. Raises FileExistsError where it exists.

    `manifest.sha256` is filled in here from the bytes written. files {name: content}: what else lies beside them.
    """
    if directory.exists():
        raise FileExistsError(f"{directory}: a version is never written twice")
    raw = model.encode()
    draft = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    signed = msgspec.structs.replace(manifest, sha256=sha256(raw).hexdigest())
    written = {MODEL_FILE: raw, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(signed))}
    for name, content in {**(files or {}), **written}.items():
        with (draft / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    draft.rename(directory)
    return directory


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a model directory. Raises `ModelRefused` where there is none or it is not one."""
    raw = _read(directory / MANIFEST_FILE, MANIFEST_BYTES_MAX)
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"{MANIFEST_FILE}: {error}") from None


def inspect(directory: Path, catalog: FeatureNames) -> tuple[Manifest, bytes]:
    """The manifest and the model's bytes, with every check that needs no LightGBM. Raises `ModelRefused`."""
    manifest = read_manifest(directory)
    raw = _read(directory / MODEL_FILE, MODEL_BYTES_MAX)
    check(raw, manifest, catalog)
    return manifest, raw


def load(
    directory: Path,
    catalog: FeatureNames,
    *,
    cascade: Cascade | None = None,
    clock_s: Callable[[], float] | None = None,
    budget_ms: float = BUDGET_MS,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> LightGBMRanker:
    """The ranker in `directory`, every check passed; raises `ModelRefused` and never harms the process.

    `clock_s` turns the latency check on (see `latency_ms`), against `budget_ms`. `timeout_s` bounds the probe in its
    own process.
    """
    manifest, raw = inspect(directory, catalog)
    _probe(directory, manifest, timeout_s)
    booster = lightgbm.Booster(model_str=raw.decode())
    if booster.feature_name() != manifest.feature_names:
        raise ModelRefused("the loaded booster's feature names differ from the manifest's")
    rows = golden_rows(manifest)
    whole = LightGBMRanker(booster, manifest.version, manifest.features_hash, manifest.num_trees)
    if hex_scores(whole.score(rows)) != manifest.golden.scores:
        raise ModelRefused("golden rows: scores differ in this process")
    ranker = LightGBMRanker(booster, manifest.version, manifest.features_hash, manifest.num_trees, cascade)
    if clock_s is not None and (took_ms := latency_ms(ranker, rows, clock_s)) > budget_ms:
        raise ModelRefused(over_budget(took_ms, budget_ms))
    return ranker


def latency_ms(ranker: Ranker, rows: Floats, clock_s: Callable[[], float]) -> float:
    """Milliseconds that scoring `BUDGET_ROWS` rows takes, the median of `BUDGET_RUNS` calls; `rows` are repeated.

    clock_s: seconds. `time.thread_time` counts what the scoring thread works and not what its neighbours take from it.
    """
    matrix: Any = np.ascontiguousarray(np.resize(rows, (BUDGET_ROWS, rows.shape[1])))
    spans_s = []
    for _ in range(BUDGET_RUNS):
        begun_s = clock_s()
        ranker.score(matrix)
        spans_s.append(clock_s() - begun_s)
    return float(np.median(spans_s)) * 1000


def over_budget(took_ms: float, budget_ms: float) -> str:
    """A model too slow to serve, in words."""
    return f"latency: {took_ms:.1f} ms for {BUDGET_ROWS} rows, the budget is {budget_ms:g} ms"


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


def _read(path: Path, bytes_max: int) -> bytes:
    """A file's bytes. Nothing but a regular file is opened: a pipe would be waited for."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelRefused(f"{path.name}: not a file")
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)  # not what stat said: it may grow
    except OSError as error:
        raise ModelRefused(f"{path.name}: {error.strerror}") from None
    if len(raw) > bytes_max:
        raise ModelRefused(f"{path.name}: over {bytes_max} bytes")
    return raw


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """The first place where two lists of names part, in words; empty when they are equal."""
    for index, (mine, theirs) in enumerate(zip(found, expected, strict=False)):
        if mine != theirs:
            return f"column {index} is {mine}, here it is {theirs}"
    return f"{len(found)}, here {len(expected)}" if len(found) != len(expected) else ""


def _probe(directory: Path, manifest: Manifest, timeout_s: float) -> None:
    """Loads the model in a process of its own, whose death is an answer too, and compares the golden scores there. It gets
    none of our settings, which may hold passwords: what LightGBM leaves in a core file is the model and nothing else.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "recommender.model.probe", str(directory)],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ModelRefused(f"probe: no answer within {timeout_s:g} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1][:200]
        raise ModelRefused(f"probe: LightGBM ended with {done.returncode}: {said}")
    if msgspec.json.decode(done.stdout, type=list[str]) != manifest.golden.scores:
        raise ModelRefused("golden rows: the model does not give the scores it was saved with")
