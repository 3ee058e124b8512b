"""The real data sets that tests look for: in HEADRACE_DATA, else beside the project; a test skips, loudly, without."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("HEADRACE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def dataset(name: str) -> Path:
    """The folder of a data set."""
    if not (ROOT / name).is_dir():
        pytest.skip(f"no data set {name}: set HEADRACE_DATA to the folder that holds it")
    return ROOT / name
