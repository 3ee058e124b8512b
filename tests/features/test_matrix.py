import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalog import catalog
from tests.features.worlds import DOMAIN, SOURCES, permuted, random_scene

CATALOG = catalog(DOMAIN, sources=SOURCES)
SCENES = st.builds(
    random_scene, st.integers(0, 10**6), candidates=st.integers(1, 25), events=st.sampled_from([0, 1, 2, 30])
)


@given(SCENES, st.randoms())
def test_permuting_the_candidates_permutes_the_rows_and_changes_nothing(scene, random):
    order = list(range(scene.size))
    random.shuffle(order)
    np.testing.assert_array_equal(CATALOG.matrix(permuted(scene, order)), CATALOG.matrix(scene)[order])


@given(SCENES)
def test_every_row_is_float32_in_c_order_and_finite_or_absent(scene):
    matrix = CATALOG.matrix(scene)
    assert matrix.shape == (scene.size, len(CATALOG.names))
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert not np.isinf(matrix).any()


@pytest.mark.parametrize("size", [0, 1])
def test_a_list_of_none_or_one_has_rows_too(size):
    assert CATALOG.matrix(random_scene(1, candidates=size)).shape == (size, len(CATALOG.names))


def test_columns_hold_what_their_names_say():
    scene = random_scene(3)
    matrix = dict(zip(CATALOG.names, CATALOG.matrix(scene).T, strict=True))
    cart = DOMAIN.columns.index("cart")
    np.testing.assert_array_equal(matrix["item_cart_count_24h"], scene.items.counts[:, cart, 2])
    np.testing.assert_array_equal(matrix["item_cart_count_total"], scene.items.lifetime[:, cart])
    np.testing.assert_array_equal(matrix["item_impression_decayed_30d"], scene.items.decayed[:, 0, 2])
    np.testing.assert_array_equal(matrix["price"], scene.items.numbers["price"])
    np.testing.assert_array_equal(matrix["shown_price"], scene.item_context["price"])
    np.testing.assert_array_equal(matrix["source_trending"], scene.sources["trending"])
    assert (matrix["user_recency_s"] == np.float32((scene.now_ms - scene.user.ts_ms[-1]) / 1000)).all()


def test_the_position_is_a_feature_only_where_it_was_asked_for():
    scene = random_scene(5)
    with_position = catalog(DOMAIN, sources=SOURCES, use_position=True)
    assert "position" in with_position.names
    assert "position" not in CATALOG.names
    assert np.isnan(with_position.matrix(scene)[:, with_position.names.index("position")]).all()
