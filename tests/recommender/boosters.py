"""A small real booster over any number of columns, for tests that need LightGBM's own arithmetic."""

import lightgbm
import numpy as np


def rows(width, *, size=300, seed=9):
    """float32[size, width], 5 % of it absent."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(size, width)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix


def make_booster(width, *, trees=20, seed=5, leaves=15):
    """Trained on lists of ten in which many columns matter."""
    matrix = rows(width, size=1200, seed=seed)
    worth = np.nan_to_num(matrix) @ np.linspace(1, 0.1, width)
    grades = (worth.reshape(120, 10) >= np.sort(worth.reshape(120, 10))[:, -2:-1]).ravel().astype(int)
    settings = {
        "objective": "lambdarank",
        "num_leaves": leaves,
        "min_data_in_leaf": 5,
        "verbosity": -1,
        "num_threads": 1,
    }
    data = lightgbm.Dataset(matrix, grades, group=[10] * 120, params={"verbosity": -1})
    return lightgbm.Booster(model_str=lightgbm.train(settings, data, trees).model_to_string())
