"""What others wrote does not steer the terminal of who looks at it."""

import json

import pytest

from features.schema import ModelRef, Recommendation, RecommendedItem, Refused, decode
from pipeline.cli import dead_letters, tail
from pipeline.refused_record import RefusedRecord

STEERING = "\x1b]0;owned\x07\x9b2J\u202e\n"


def answer(**changed):
    fields = {"user_id": "u", "cause": None, "ts_ms": 5} | changed
    items = [RecommendedItem(f"i{STEERING}", 1.0, "new")]
    return Recommendation(
        rec_id="r", items=items, model=ModelRef("v", "h"), level="full", event_age_ms=1, latency_ms=1.0, **fields
    )


def test_a_recommendation_is_one_line_whatever_its_names_hold():
    line = tail.line(answer(user_id=f"u{STEERING}", cause=STEERING))
    assert line.isprintable()
    assert "\\x1b]0;owned" in line


def test_a_time_that_no_calendar_has_is_shown_as_it_is():
    assert tail.line(answer(ts_ms=10**18)).startswith(f"{10**18} ")


def test_a_producers_field_names_reach_the_operators_terminal_as_escapes():
    shown = {"impression_id": "i", "user_id": "u", "item_ids": ["a"], "ts_ms": 5, "item_context": {STEERING: []}}
    with pytest.raises(Refused) as refused:
        decode("impressions", json.dumps(shown).encode())
    letter = RefusedRecord(
        0, refused.value.reason, refused.value.field, "impressions", 0, 0, None, STEERING.encode(), ""
    )
    assert dead_letters.line(letter).isprintable()
    assert dead_letters.reason(letter).isprintable()
    assert "\\x1b]0;owned" in dead_letters.reason(letter)
