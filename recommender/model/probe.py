"""Run as `python -m recommender.model.probe DIRECTORY`: loads a model and prints its golden scores as a JSON list.

A process of its own, because a damaged file can end it without an exception. It costs .45 s of CPU, most of it imports,
and stands behind the worker in the queue for the processor: answers go before a swap.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lightgbm
import msgspec

from recommender.model.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, golden_rows, hex_scores
from recommender.ranker import LightGBMRanker

NICE = 5


def probe(directory: Path) -> list[str]:
    """The hex scores of the manifest's golden rows, as the model file gives them now."""
    manifest = msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
    booster = lightgbm.Booster(model_str=(directory / MODEL_FILE).read_bytes().decode())
    ranker = LightGBMRanker(booster, manifest.version, manifest.features_hash, manifest.num_trees)
    return hex_scores(ranker.score(golden_rows(manifest)))


def main() -> None:
    """LightGBM may write to stdout while it loads: the answer goes to the real one, everything else to stderr."""
    os.nice(NICE)
    answer = os.dup(1)
    os.dup2(2, 1)
    scores = probe(Path(sys.argv[1]))
    os.write(answer, msgspec.json.encode(scores))


if __name__ == "__main__":
    main()
