from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from features.item_record import merged, pack, pack_gone, unpack
from features.schema import Item

VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5), st.lists(st.text(max_size=3)))
ITEMS = st.builds(
    Item,
    item_id=st.just("é1"),
    ts_ms=st.integers(0, 3),
    available=st.booleans(),
    attributes=st.dictionaries(st.sampled_from(["a", "b"]), VALUES),
)
BLOBS = st.one_of(ITEMS.map(pack), st.integers(0, 3).map(lambda ts: pack_gone("é1", ts_ms=ts)))


@given(ITEMS)
def test_a_record_comes_back_as_it_went_in(item):
    record = unpack(pack(item))
    assert (record.item_id, record.newest_ts_ms, record.available) == ("é1", item.ts_ms, item.available)
    assert record.attributes == item.attributes


@given(st.lists(BLOBS, min_size=1, max_size=5), st.randoms())
def test_the_merged_record_does_not_depend_on_the_order_of_arrival(blobs, random):
    shuffled = [*blobs, random.choice(blobs)]
    random.shuffle(shuffled)
    assert reduce(merged, shuffled, b"") == reduce(merged, blobs, b"")


def test_an_unknown_time_never_makes_an_item_new():
    record = unpack(merged(pack(Item("a", 0)), pack(Item("a", 7))))
    assert record.first_ts_ms == 7
    assert unpack(pack(Item("a", 0))).first_ts_ms == 0


def test_a_gone_item_is_not_available():
    record = unpack(merged(pack(Item("a", 5)), pack_gone("a", ts_ms=6)))
    assert record.gone
    assert not record.available
    assert record.first_ts_ms == 5
