"""A dead letter carries what came in and why it was refused."""

from hashlib import sha256

from features.schema import Refused
from features.store.port import Part
from pipeline.kafka.dead_letters import HEAD_BYTES, WHOLE_BYTES_MAX, dead_letter
from pipeline.kafka.slices import LogRecord

PART = Part("user_actions", 3)


def letter(value, key=b"u"):
    return dead_letter("dead", PART, LogRecord(17, 0, key, value), Refused("ts_ms", "missing"))


def test_the_raw_bytes_and_key_go_out_as_they_came():
    sent = letter(b"\x00{", key=b"\xff")
    assert (sent.topic, sent.key, sent.value) == ("dead", b"\xff", b"\x00{")


def test_the_headers_name_reason_field_and_source():
    assert dict(letter(b"x").headers) == {
        "reason": b"missing",
        "field": b"ts_ms",
        "topic": b"user_actions",
        "partition": b"3",
        "offset": b"17",
    }


def test_a_null_value_stays_null():
    assert letter(None).value is None


def test_a_value_that_fits_stays_whole():
    assert letter(b"x" * WHOLE_BYTES_MAX).value == b"x" * WHOLE_BYTES_MAX


def test_a_monster_is_cut_and_named_by_its_sha256():
    monster = b"ab" * WHOLE_BYTES_MAX
    sent = letter(monster)
    assert sent.value == monster[:HEAD_BYTES]
    assert dict(sent.headers)["sha256"] == sha256(monster).hexdigest().encode()
    assert dict(sent.headers)["bytes"] == str(len(monster)).encode()


def test_a_reason_is_bounded():
    sent = dead_letter("dead", PART, LogRecord(0, 0, b"k", b""), Refused("f", "r" * 10_000))
    assert len(dict(sent.headers)["reason"]) <= 2000
