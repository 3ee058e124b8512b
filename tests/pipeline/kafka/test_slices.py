"""A cursor cuts what is read into slices that say what they follow, and holds the first one until the marks."""

from pipeline.kafka import slices
from pipeline.kafka.slices import Cursor, LogRecord, Part

PART = Part("t", 0)


def records(*offsets, size=1):
    return [LogRecord(offset, 0, b"k", b"x" * size) for offset in offsets]


def cursor(*, start=0, slice_max=2, hold_to=-1):
    return Cursor(PART, 1, start - 1, slice_max, hold_to=hold_to, held_since_s=0.0)


def shape(cut):
    return [(piece.follows, [record.offset for record in piece.records]) for piece in cut]


def test_slices_have_at_most_slice_max_records_and_chain():
    assert shape(cursor().cut(records(0, 1, 2), now_s=0)) == [(-1, [0, 1]), (1, [2])]


def test_a_slice_follows_the_last_record_not_the_offset_before():
    reading = cursor()
    reading.cut(records(0, 5), now_s=0)
    assert shape(reading.cut(records(9), now_s=0)) == [(5, [9])]


def test_nothing_read_is_no_slice():
    assert cursor().cut([], now_s=0) == []


def test_the_first_slice_waits_until_it_reaches_the_marks():
    reading = cursor(start=3, hold_to=7)
    assert reading.cut(records(3, 4, 5), now_s=0) == []
    assert shape(reading.cut(records(6, 7, 8), now_s=1)) == [(2, [3, 4, 5, 6, 7, 8])]
    assert shape(reading.cut(records(9, 10, 11), now_s=2)) == [(8, [9, 10]), (10, [11])]


def test_what_was_read_past_without_a_record_is_a_slice_without_records_that_the_next_one_follows():
    reading = cursor(start=3)
    assert reading.skip(2) == []
    assert [(piece.follows, piece.last, piece.records) for piece in reading.skip(4)] == [(2, 4, ())]
    assert shape(reading.cut(records(5), now_s=0)) == [(4, [5])]


def test_nothing_is_passed_over_before_what_is_held_has_gone_out():
    reading = cursor(hold_to=7)
    assert reading.skip(6) == []
    reading.cut(records(0), now_s=0)
    assert reading.skip(9) == []
    assert [piece.last for piece in cursor(hold_to=7).skip(7)] == [7]


def test_the_wait_is_bounded_in_time():
    reading = cursor(hold_to=7)
    assert reading.cut(records(0), now_s=0) == []
    assert shape(reading.cut([], now_s=slices.HELD_S_MAX + 1)) == [(-1, [0])]


def test_the_wait_is_bounded_in_records(monkeypatch):
    monkeypatch.setattr(slices, "HELD_RECORDS_MAX", 3)
    assert shape(cursor(hold_to=70).cut(records(0, 1, 2), now_s=0)) == [(-1, [0, 1, 2])]


def test_the_wait_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(slices, "HELD_BYTES_MAX", 100)
    assert shape(cursor(hold_to=70).cut(records(0, size=100), now_s=0)) == [(-1, [0])]
