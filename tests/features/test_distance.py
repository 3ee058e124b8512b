import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.distance import distances, within_list


def test_the_distance_is_to_the_weighted_mean_and_to_the_last_known():
    got = distances(np.float32([10, np.nan]), np.float32([1, 4, np.nan]), np.array([1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(got, np.float32([[7, 6], [np.nan, np.nan]]))


def test_without_a_touched_number_there_is_no_distance():
    assert np.isnan(distances(np.float32([1]), np.float32([np.nan, 2]), np.array([1.0, 0.0]))).all()
    assert np.isnan(distances(np.float32([1]), np.empty(0, np.float32), np.empty(0))).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=8), st.randoms())
def test_what_the_list_says_of_the_touched_items_does_not_depend_on_its_order(rows, random):
    touched = np.array([1, 3, 9], np.uint64)

    def read(pairs):
        items, values = np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.float32)
        return within_list(values, items, touched)

    shuffled = list(rows)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(read(rows), read(shuffled))
