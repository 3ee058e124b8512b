import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.relative import relative

LISTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.integers(1, 3)),
    elements=st.sampled_from([np.nan, -2, 0, 0.5, 1, 1, 3, 1e6]),
)


def brute_ranks(column):
    present = [value for value in column.tolist() if value == value]
    return [
        np.nan if value != value else sum(o < value for o in present) + (sum(o == value for o in present) + 1) / 2
        for value in column.tolist()
    ]


@given(LISTS)
def test_ties_share_their_average_rank(values):
    ranks = relative(values, ratios=values.shape[1]).rank
    for column in range(values.shape[1]):
        np.testing.assert_array_equal(ranks[:, column], np.float32(brute_ranks(values[:, column])))


@given(LISTS)
def test_forms_equal_their_definitions(values):
    forms = relative(values, ratios=values.shape[1])
    for column in range(values.shape[1]):
        present = values[:, column][~np.isnan(values[:, column])].astype(np.float64)
        if not len(present):
            assert np.isnan(forms.rank[:, column]).all()
            continue
        lowest, median, spread = present.min(), np.median(present), present.std()
        with np.errstate(invalid="ignore"):
            z = (values[:, column] - present.mean()) / spread if spread else values[:, column] * 0
        np.testing.assert_allclose(forms.z[:, column], z, rtol=1e-4, atol=1e-4)
        nothing = np.full(len(values), np.nan)
        to_min = values[:, column] / lowest if lowest > 0 else nothing
        to_median = values[:, column] / median if median > 0 else nothing
        np.testing.assert_allclose(forms.to_min[:, column], to_min, rtol=1e-5)
        np.testing.assert_allclose(forms.to_median[:, column], to_median, rtol=1e-5)


@given(LISTS, st.randoms())
def test_the_order_of_the_candidates_changes_not_one_bit(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    for moved, still in zip(
        relative(values[order], ratios=values.shape[1]), relative(values, ratios=values.shape[1]), strict=True
    ):
        np.testing.assert_array_equal(moved, still[order])
