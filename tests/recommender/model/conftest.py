from dataclasses import dataclass

import numpy as np
import pytest

from recommender.model.rows import TrainingRows
from recommender.model.training import train
from recommender.model.training_settings import TrainingSettings


@dataclass(frozen=True)
class Columns:
    names: tuple[str, ...] = ("clicks", "price", "genre", "noise")
    fingerprint: str = "0123456789abcdef"
    categorical: tuple[int, ...] = (2,)


def make_rows(queries=120, size=10, seed=5) -> TrainingRows:
    """Lists in which the first column, and genre 3, make an item good."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(queries * size, 4)).astype(np.float32)
    matrix[:, 2] = random.integers(0, 5, len(matrix))
    worth = matrix[:, 0] + (matrix[:, 2] == 3) + random.normal(size=len(matrix)) * 0.3
    grades = (worth.reshape(queries, size) == worth.reshape(queries, size).max(axis=1, keepdims=True)).ravel()
    return TrainingRows(
        matrix,
        grades.astype(np.int32),
        np.arange(len(matrix), dtype=np.uint64),
        np.full(queries, size, np.int64),
        np.arange(queries, dtype=np.int64) * 1000,
        np.arange(queries, dtype=np.uint64),
        tuple(f"q{q}" for q in range(queries)),
    )


@pytest.fixture(scope="session")
def toy_rows():
    return make_rows


@pytest.fixture(scope="session")
def columns():
    return Columns()


@pytest.fixture(scope="session")
def trained(tmp_path_factory, columns):
    settings = TrainingSettings(trees_max=30, search=0)
    return train(make_rows(), columns, directory=tmp_path_factory.mktemp("models"), version="v1", settings=settings)
