import json

import pytest

from features.schema import decode
from pipeline.mapping import MappingError, csv_rows, json_rows, parse


def mapped(text, *entries, topic="user_actions", delimiter=","):
    mapping = parse(entries, topic=topic)
    lines = text.splitlines(keepends=True)
    return [json.loads(raw) for raw in csv_rows(lines, mapping, topic=topic, name="f.csv", delimiter=delimiter)]


def test_a_csv_row_becomes_a_record_that_decodes():
    mapping = parse(["user_id=visitor", "item_id=thing", "action==view"], topic="user_actions")
    lines = ["visitor,thing,ts_ms\n", "v,t,5000000000000\n"]
    [raw] = csv_rows(lines, mapping, topic="user_actions", name="f.csv")
    record = decode("user_actions", raw)
    assert (record.user_id, record.item_id, record.ts_ms, record.event_id) == ("v", "t", 5_000_000_000_000, "f.csv:2")


def test_seconds_milliseconds_and_iso_times_are_understood():
    rows = mapped("t\n1577836800\n1577836800000\n2020-01-01\n2020-01-01T01:00:00+01:00\n", "ts_ms=t")
    assert {row["ts_ms"] for row in rows} == {1_577_836_800_000}


def test_what_does_not_read_as_a_number_stays_text_for_the_worker_to_refuse():
    assert mapped("t,v\nsoon,much\n", "ts_ms=t", "value=v") == [
        {"event_id": "f.csv:2", "ts_ms": "soon", "value": "much"}
    ]


def test_item_attributes_take_numbers_texts_and_lists():
    rows = mapped(
        "id;p;g\na;1.5;x|y\n", "item_id=id", "attributes.price=p", "attributes.genres=g", topic="items", delimiter=";"
    )
    assert rows == [{"item_id": "a", "attributes": {"price": 1.5, "genres": ["x", "y"]}}]


def test_an_empty_cell_is_an_absent_field():
    assert mapped("u,s\nv,\n", "user_id=u", "session_id=s") == [{"event_id": "f.csv:2", "user_id": "v"}]


def test_json_fields_are_renamed_and_others_stay():
    mapping = parse(["user_id=visitor", "action==view"], topic="user_actions")
    [raw] = json_rows([(1, b'{"visitor":"v","ts_ms":5}')], mapping)
    assert json.loads(raw) == {"user_id": "v", "action": "view", "ts_ms": 5}


def test_what_is_no_json_object_passes_as_it_is():
    mapping = parse(["user_id=visitor"], topic="user_actions")
    assert list(json_rows([(1, b"{cut"), (2, b"[1]")], mapping)) == [b"{cut", b"[1]"]


@pytest.mark.parametrize("entry", ["user=visitor", "user_id", "user_id=", "attributes=x", "user_id.x=y"])
def test_a_mapping_that_fits_no_field_is_named(entry):
    with pytest.raises(MappingError, match=entry):
        parse([entry], topic="user_actions")


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(MappingError, match="no column visitor"):
        mapped("a,b\n1,2\n", "user_id=visitor")


def test_a_time_beyond_every_calendar_stays_text():
    rows = mapped("t\n1e300\n-1e300\n", "ts_ms=t")
    assert [row["ts_ms"] for row in rows] == ["1e300", "-1e300"]


def test_a_column_that_is_called_like_a_table_and_is_none_gives_way():
    mapping = parse(["attributes.price=p"], topic="items")
    [raw] = json_rows([(1, b'{"item_id":"i","attributes":5,"p":2}')], mapping)
    assert json.loads(raw) == {"item_id": "i", "attributes": {"price": 2}}


def test_a_mapping_that_is_no_text_is_refused():
    with pytest.raises(MappingError, match="not valid UTF-8"):
        parse(["action==\udcff"], topic="user_actions")
