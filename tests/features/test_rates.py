import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.rates import item_rates, shrunk, world_rates

COUNTS = st.integers(0, 10**6).map(float)


@given(COUNTS, COUNTS, st.floats(0, 1))
def test_a_rate_lies_between_the_prior_and_what_was_seen(events, more, prior):
    trials = events + more
    rate = shrunk(np.float32([events]), np.float32([trials]), prior=np.float32([prior]), strength=10.0)[0]
    seen = events / trials if trials else prior
    assert min(prior, seen) - 1e-5 <= rate <= max(prior, seen) + 1e-5


def test_an_item_never_shown_has_the_rate_of_the_world():
    world = world_rates(np.float32([[100], [20]]), np.float32([1000, 100]))
    np.testing.assert_allclose(world, [[(20 + 100 * 0.1) / 200]], rtol=1e-6)
    np.testing.assert_allclose(item_rates(np.zeros((1, 2, 1), np.float32), prior=world)[0], world, rtol=1e-6)


def test_where_nothing_was_ever_shown_there_is_no_rate():
    world = world_rates(np.float32([[0], [20]]), np.float32([0, 100]))
    assert np.isnan(item_rates(np.ones((1, 2, 1), np.float32), prior=world)).all()
