import numpy as np
import pytest

from features.fresh import Tick
from features.ids import hash64
from features.item_record import merged, pack, pack_gone
from features.item_table import ItemTable
from features.rings import add, delta
from features.schema import Item
from tests.features.worlds import COLUMNS, DOMAIN, NOW_MS

MINUTE = NOW_MS // 60_000


class Shelf:
    """The two reads that the table makes, of blobs put there by hand, and how often each key was read."""

    def __init__(self):
        self.rings, self.records, self.reads = {}, {}, []

    def read_rings(self, keys):
        self.reads += keys
        return [self.rings.get(key, b"") for key in keys]

    def read_records(self, keys):
        return [self.records.get(key, b"") for key in keys]

    def see(self, item_id, *, events=1):
        ring = add(bytearray(self.rings.get(hash64(item_id), b"")), COLUMNS, delta(MINUTE, 1, events), item_id.encode())
        self.rings[hash64(item_id)] = bytes(ring)

    def tell(self, item_id, **attributes):
        self.records[hash64(item_id)] = pack(Item(item_id, 5, attributes=attributes))


def hashes(*item_ids):
    return np.array([hash64(item_id) for item_id in item_ids], np.uint64)


def table(shelf, *, freshness_ms=0, rows_max=1 << 16):
    return ItemTable(shelf, DOMAIN, columns=COLUMNS, freshness_ms=freshness_ms, rows_max=rows_max)


def views(items, keys, *, tick, now_ms=NOW_MS):
    return items.columns(items.rows(keys, tick=tick), now_ms=now_ms).lifetime[:, 1].tolist()


def test_an_item_is_read_once_a_micro_batch_and_again_in_the_next():
    shelf = Shelf()
    items = table(shelf)
    shelf.see("a")
    assert views(items, hashes("a", "b", "a"), tick=Tick(1, 0)) == [1, 0, 1]
    shelf.see("a")
    assert views(items, hashes("a"), tick=Tick(1, 0)) == [1]
    assert views(items, hashes("a"), tick=Tick(2, 0)) == [2]
    assert shelf.reads == [hash64("a"), hash64("b"), hash64("a")]


def test_windows_move_on_with_the_minute_without_a_read():
    shelf = Shelf()
    items = table(shelf, freshness_ms=1000)
    shelf.see("a", events=3)
    rows = items.rows(hashes("a"), tick=Tick(1, 0))
    counts = [items.columns(rows, now_ms=NOW_MS + minutes * 60_000).counts[0, 1, 0] for minutes in (0, 4, 5, 0)]
    assert counts == [3, 3, 0, 3]
    assert len(shelf.reads) == 1


def test_an_item_beyond_the_retention_counts_as_nothing():
    shelf = Shelf()
    items = table(shelf)
    shelf.see("a")
    later_ms = NOW_MS + DOMAIN.item_retention_ms + 60_000
    columns = items.columns(items.rows(hashes("a"), tick=Tick(1, 0)), now_ms=later_ms)
    assert not columns.lifetime.any()
    assert not columns.counts.any()
    assert not columns.decayed.any()


def test_a_record_becomes_columns_and_a_newer_one_replaces_them():
    shelf = Shelf()
    items = table(shelf)
    shelf.tell("a", price=3.5, genres=["x", "y"], brand="b")
    record = items.records(items.rows(hashes("a", "unknown"), tick=Tick(1, 0), counts=False))
    np.testing.assert_array_equal(record.numbers["price"], np.float32([3.5, np.nan]))
    assert record.known.tolist() == [True, False]
    assert record.available.tolist() == [True, True]
    assert record.sets["genres"].start.tolist() == [0, 2, 2]
    assert [items.pools["genres"].values[code] for code in record.sets["genres"].codes] == ["x", "y"]
    shelf.records[hash64("a")] = merged(shelf.records[hash64("a")], pack_gone("a", ts_ms=9))
    record = items.records(items.rows(hashes("a"), tick=Tick(2, 0), counts=False))
    assert not record.available[0]
    assert np.isnan(record.numbers["price"][0])
    assert not len(record.sets["genres"].codes)


def test_the_items_asked_longest_ago_make_room_and_come_back_whole():
    shelf = Shelf()
    items = table(shelf, freshness_ms=10**6, rows_max=8)
    names = [f"i{number}" for number in range(20)]
    for number, name in enumerate(names):
        shelf.see(name, events=number + 1)
        shelf.tell(name, genres=[name])
    for number, name in enumerate(names):
        assert views(items, hashes("i0", name), tick=Tick(number, 0)) == [1, number + 1]
    assert shelf.reads.count(hash64("i0")) == 1
    rows = items.rows(hashes("i3", "i0"), tick=Tick(99, 0))
    assert items.ids(rows) == ["i3", "i0"]
    record = items.records(rows)
    assert [items.pools["genres"].values[code] for code in record.sets["genres"].codes] == ["i3", "i0"]


def test_more_items_at_once_than_the_table_holds_is_an_error_not_a_mixture():
    items = table(Shelf(), rows_max=4)
    with pytest.raises(ValueError, match="more than 4"):
        items.rows(np.arange(9, dtype=np.uint64), tick=Tick(1, 0))


@pytest.mark.parametrize("kind", ["rings", "records"])
def test_a_damaged_blob_is_refused_at_every_look_and_names_its_item(kind):
    shelf = Shelf()
    for name in ("i1", "i2"):
        shelf.see(name)
        shelf.tell(name, genres=[name])
    items = table(shelf)
    blobs = getattr(shelf, kind)
    sound = blobs[hash64("i2")]
    blobs[hash64("i2")] = sound[:-3]
    for look in range(3):
        with pytest.raises(ValueError, match=f"item {hash64('i2'):016x}: its {len(sound) - 3} bytes"):
            items.columns(items.rows(hashes("i1", "i2"), tick=Tick(look, look)), now_ms=NOW_MS)
    blobs[hash64("i2")] = sound
    rows = items.rows(hashes("i1", "i2"), tick=Tick(9, 9))
    assert items.columns(rows, now_ms=NOW_MS).known.tolist() == [True, True]
