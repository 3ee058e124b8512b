import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.affinity import affinities, inverse_document_frequency
from features.scene import SetColumn

VALUES = 6
SETS = st.lists(st.lists(st.integers(0, VALUES - 1), unique=True, max_size=3), min_size=1, max_size=6)


def column(rows):
    start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return SetColumn(start, np.array([code for row in rows for code in row], np.int64))


@given(SETS, SETS, st.integers(0, 99))
def test_matches_equal_dense_vectors(items, touched, seed):
    random = np.random.default_rng(seed)
    weights, idf = random.random(len(touched)), (1 + random.random(VALUES)).astype(np.float32)
    got = affinities(column(items), column(touched), weights, idf)
    dense = np.array([[code in row for code in range(VALUES)] for row in touched], float)
    profile = weights @ dense
    filled = [row for row in touched if row]
    for row, cells in zip(items, got, strict=True):
        has = np.array([code in row for code in range(VALUES)], float)
        mine, theirs = profile * idf, has * idf
        lengths = np.linalg.norm(mine) * np.linalg.norm(theirs)
        last = np.array([bool(filled) and code in filled[-1] for code in range(VALUES)])
        wanted = [
            profile @ has / (weights.sum() * max(len(row), 1)),
            mine @ theirs / lengths if lengths else 0,
            theirs @ (profile > 0) / max(theirs.sum(), 1e-9),
            theirs @ last / max(theirs.sum(), 1e-9),
        ]
        np.testing.assert_allclose(cells, wanted, rtol=1e-4, atol=1e-6)


def test_a_shared_rare_value_says_more_than_a_shared_common_one():
    idf = inverse_document_frequency(np.array([1, 90, 50]), documents=100)
    touched = column([[0, 1]])
    rare, common = affinities(column([[0, 2], [1, 2]]), touched, np.ones(1), idf)[:, 1]
    assert rare > common


def test_nothing_is_known_of_a_user_without_events():
    assert not affinities(column([[0], []]), column([]), np.empty(0), np.ones(1, np.float32)).any()
