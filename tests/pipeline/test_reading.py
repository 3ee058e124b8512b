"""Records become facts, questions and refusals."""

import pytest

from features.domain import Action
from features.facts import Forget, Gone
from features.store.port import Part
from pipeline.kafka.slices import LogRecord, Unreadable
from pipeline.reading import read

ACTIONS = {"view": Action("view"), "hide": Action("hide", trigger=False)}
NOW = 1_700_000_000_000


def action(user="u", name="view", ts_ms=NOW, event="e"):
    return f'{{"event_id":"{event}","user_id":"{user}","item_id":"i","action":"{name}","ts_ms":{ts_ms}}}'.encode()


def run(*values, kind="user_actions", keys=None, answer_from=0):
    keys = keys or [b"u"] * len(values)
    records = [LogRecord(n, NOW, key, value) for n, (value, key) in enumerate(zip(values, keys, strict=True))]
    return read(kind, Part(kind, 0), records, actions=ACTIONS, answer_from=answer_from)


def refusals(reading):
    return [(record.offset, refused.field) for record, refused in reading.refused]


def test_every_offset_has_a_fact_refused_ones_without_content():
    reading = run(action(), b"{", action())
    assert [(fact.offset, fact.record is None) for fact in reading.facts] == [(0, False), (1, True), (2, False)]


def test_the_newest_trigger_of_a_user_is_answered_once():
    reading = run(action("a"), action("b"), action("a"))
    assert sorted((ask.record.user_id, ask.offset) for ask in reading.asks) == [("a", 2), ("b", 1)]


def test_an_action_that_triggers_nothing_does_not_hide_an_earlier_trigger():
    assert [ask.offset for ask in run(action(), action(name="hide")).asks] == [0]


def test_what_is_answered_already_is_applied_and_not_answered_again():
    reading = run(action(), action(), answer_from=2)
    assert len(reading.facts) == 2
    assert reading.asks == []


def test_what_has_its_dead_letter_already_gets_none_again_and_is_still_a_fact():
    reading = run(b"{", b"{", answer_from=1)
    assert refusals(reading) == [(1, "$")]
    assert [fact.record for fact in reading.facts] == [None, None]


def test_every_request_has_its_own_answer():
    request = b'{"request_id":"r","user_id":"u","ts_ms":5}'
    assert [ask.offset for ask in run(request, request, kind="recommendation_requests").asks] == [0, 1]


def test_an_unknown_action_is_refused_by_its_field():
    assert refusals(run(action(name="fly"))) == [(0, "action")]


def test_far_future_is_measured_against_the_logs_clock():
    assert refusals(run(action(ts_ms=NOW + 300_000), action(ts_ms=NOW + 300_001))) == [(1, "ts_ms")]


def test_a_null_value_forgets_the_keys_user():
    assert run(None, keys=[b"bob"]).facts[0].record == Forget("bob", NOW)


def test_a_null_item_is_gone_at_the_logs_time():
    assert run(None, kind="items", keys=[b"x"]).facts[0].record == Gone("x", NOW)


@pytest.mark.parametrize(
    ("kind", "key", "field"),
    [("user_actions", None, "key"), ("items", b"\xff", "key"), ("items", b"", "key"), ("impressions", b"u", "$")],
)
def test_a_null_value_that_means_nothing_is_refused(kind, key, field):
    assert refusals(run(None, kind=kind, keys=[key])) == [(0, field)]


@pytest.mark.parametrize("kind", ["user_actions", "items"])
@pytest.mark.parametrize("log_ts_ms", [-1, 1 << 60])
def test_a_null_value_without_a_time_in_the_log_is_refused(kind, log_ts_ms):
    part = Part(kind, 0)
    reading = read(kind, part, [LogRecord(0, log_ts_ms, b"u", None)], actions=ACTIONS, answer_from=0)
    assert refusals(reading) == [(0, "timestamp")]


def test_another_key_than_the_user_counts_as_miskeyed_and_is_applied():
    reading = run(action("a"), action("u"), keys=[b"x", b"u"])
    assert reading.miskeyed == 1
    assert not reading.refused


def test_a_batch_that_nobody_can_read_is_refused_with_its_cause():
    unreadable = Unreadable(9, 5, None, b"raw", (("why", b"offsets 3 to 9 cannot be read: zstd"),))
    found = read("user_actions", Part("user_actions", 0), [unreadable], actions={}, answer_from=0)
    assert [(fact.offset, fact.record) for fact in found.facts] == [(9, None)]
    [(record, refused)] = found.refused
    assert (record.value, refused.field, refused.reason) == (b"raw", "batch", "offsets 3 to 9 cannot be read: zstd")
