"""Every way to break a record is refused with the field that broke it, and nothing else escapes the decoder."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import schema
from features.schema import Refused, decode
from tests.broken_records import KINDS, broken, field_of

ACTION = {"event_id": "e", "user_id": "u", "item_id": "i", "action": "view", "ts_ms": 1_000}
IMPRESSION = {"impression_id": "m", "user_id": "u", "item_ids": ["a", "b"], "ts_ms": 1_000}
REQUEST = {"request_id": "r", "user_id": "u", "ts_ms": 1_000}
ITEM = {"item_id": "i", "ts_ms": 0, "attributes": {"genres": ["a", "b"], "price": 3, "title": "T"}}
WHOLE = {
    schema.USER_ACTIONS: ACTION,
    schema.IMPRESSIONS: IMPRESSION,
    schema.ITEMS: ITEM,
    schema.REQUESTS: REQUEST,
}


def raw(record: object) -> bytes:
    return json.dumps(record).encode()


@pytest.mark.parametrize("topic", list(WHOLE))
def test_a_whole_record_is_read_and_unknown_fields_are_ignored(topic):
    record = decode(topic, raw({**WHOLE[topic], "something_new": {"deep": [1]}}))
    assert msgspec.to_builtins(record).items() >= WHOLE[topic].items()


@pytest.mark.parametrize("topic", list(WHOLE))
def test_each_missing_required_field_is_named(topic):
    required = [f.name for f in msgspec.structs.fields(schema.RECORD_OF_TOPIC[topic]) if f.required]
    for field in required:
        with pytest.raises(Refused) as refused:
            decode(topic, raw({k: v for k, v in WHOLE[topic].items() if k != field}))
        assert refused.value.field == field


BROKEN = [
    (schema.USER_ACTIONS, {**ACTION, "user_id": ""}, "user_id"),
    (schema.USER_ACTIONS, {**ACTION, "user_id": 7}, "user_id"),
    (schema.USER_ACTIONS, {**ACTION, "user_id": None}, "user_id"),
    (schema.USER_ACTIONS, {**ACTION, "user_id": "x" * 257}, "user_id"),
    (schema.USER_ACTIONS, {**ACTION, "user_id": "ä" * 129}, "user_id"),
    (schema.USER_ACTIONS, {**ACTION, "item_id": "a\x00b"}, "item_id"),
    (schema.USER_ACTIONS, {**ACTION, "event_id": "a\nb"}, "event_id"),
    (schema.USER_ACTIONS, {**ACTION, "session_id": "\x7f"}, "session_id"),
    (schema.USER_ACTIONS, {**ACTION, "impression_id": "\x85"}, "impression_id"),
    (schema.USER_ACTIONS, {**ACTION, "action": ""}, "action"),
    (schema.USER_ACTIONS, {**ACTION, "action": ["view"]}, "action"),
    (schema.USER_ACTIONS, {**ACTION, "ts_ms": "1000"}, "ts_ms"),
    (schema.USER_ACTIONS, {**ACTION, "ts_ms": -1}, "ts_ms"),
    (schema.USER_ACTIONS, {**ACTION, "ts_ms": 10**30}, "ts_ms"),
    (schema.USER_ACTIONS, {**ACTION, "ts_ms": 1.5}, "ts_ms"),
    (schema.USER_ACTIONS, {**ACTION, "ts_ms": True}, "ts_ms"),
    (schema.USER_ACTIONS, {**ACTION, "value": "12"}, "value"),
    (schema.USER_ACTIONS, {**ACTION, "value": float("nan")}, "value"),
    (schema.USER_ACTIONS, {**ACTION, "attributes": [1]}, "attributes"),
    (schema.USER_ACTIONS, {**ACTION, "attributes": {str(i): 1 for i in range(65)}}, "attributes"),
    (schema.IMPRESSIONS, {**IMPRESSION, "item_ids": []}, "item_ids"),
    (schema.IMPRESSIONS, {**IMPRESSION, "item_ids": ["a", "\t"]}, "item_ids[1]"),
    (schema.IMPRESSIONS, {**IMPRESSION, "item_ids": ["a"] * 1001}, "item_ids"),
    (schema.IMPRESSIONS, {**IMPRESSION, "item_context": {"price": [1]}}, "item_context.price"),
    (schema.REQUESTS, {**REQUEST, "k": 0}, "k"),
    (schema.ITEMS, {**ITEM, "available": "yes"}, "available"),
    (schema.ITEMS, {**ITEM, "item_id": {}}, "item_id"),
]


@pytest.mark.parametrize(("topic", "record", "field"), BROKEN)
def test_a_broken_field_is_refused_by_its_name(topic, record, field):
    with pytest.raises(Refused) as refused:
        decode(topic, raw(record))
    assert refused.value.field == field
    assert refused.value.reason


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (b"", "$"),
        (b"null", "$"),
        (b"[" * 100_000, "$"),
        (b"\xff\xfe", "$"),
        (b'{"event_id":"a","user_id":"u', "user_id"),
        (b'{"event_id":"a\xff","user_id":"u"}', "event_id"),
        (b'{"event_id":"a","value":NaN}', "value"),
        (b'{"event_id":"a","attributes":{"x":Infinity}}', "attributes"),
        (b'{"event_id":"a\\ud800"}', "event_id"),
        (b'{"event_id":"e","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "$"),
    ],
)
def test_bytes_that_are_no_json_are_refused_with_the_field_where_they_broke_off(broken, field):
    with pytest.raises(Refused) as refused:
        decode(schema.USER_ACTIONS, broken)
    assert refused.value.field == field


def test_a_cut_at_any_byte_is_refused():
    whole = raw(ACTION)
    for cut in range(len(whole)):
        with pytest.raises(Refused):
            decode(schema.USER_ACTIONS, whole[:cut])


@given(st.sampled_from(sorted(WHOLE)), st.binary(max_size=300))
def test_no_bytes_raise_anything_but_refused(topic, junk):
    try:
        decode(topic, junk)
    except Refused as refused:
        assert refused.field


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_no_mutated_record_raises_anything_but_refused(topic, data):
    whole = bytearray(raw(WHOLE[topic]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(topic, bytes(whole))
    except Refused as refused:
        assert refused.field


def test_a_time_far_ahead_of_the_log_is_refused_and_a_late_one_is_welcome():
    record = decode(schema.USER_ACTIONS, raw({**ACTION, "ts_ms": 10_000_000}))
    schema.check_time(record, log_ts_ms=10_000_000 - schema.FUTURE_MS_MAX)
    schema.check_time(record, log_ts_ms=10**12)
    with pytest.raises(Refused) as refused:
        schema.check_time(record, log_ts_ms=10_000_000 - schema.FUTURE_MS_MAX - 1)
    assert refused.value.field == "ts_ms"


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in {"unknown action", "ts_ms a year ahead"}])
def test_each_known_kind_of_broken_record_names_its_field(kind):
    with pytest.raises(Refused) as refused:
        decode(schema.USER_ACTIONS, broken(kind, 3))
    assert refused.value.field.split("[")[0].split(".")[0] == field_of(kind)
    assert len(str(refused.value)) < 500
