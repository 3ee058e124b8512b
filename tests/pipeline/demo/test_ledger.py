"""The books: an answer covers what lies at or before its trigger, nothing else, and counts once."""

from hypothesis import given
from hypothesis import strategies as st

from features.schema import ModelRef, Recommendation, Trigger
from pipeline.demo.ledger import Ledger


def answer(offset, *, user="u", partition=0, rec_id=None, request_id=None, level="full"):
    return Recommendation(
        rec_id=rec_id or f"user_actions-{partition}-{offset}-{user}-{request_id}",
        user_id=user,
        ts_ms=0,
        items=[],
        model=ModelRef("none", ""),
        level=level,
        event_age_ms=0,
        latency_ms=0.0,
        trigger=None if request_id else Trigger("user_actions", partition, offset, 0),
        request_id=request_id,
    )


def deliver(ledger, offset, *, user="u", partition=0, at_s=1.0, request_id=None):
    ledger.delivered("user_actions", partition, offset, at_s=at_s, user_id=user, request_id=request_id)


def test_an_answer_covers_the_earlier_triggers_of_its_user_and_partition():
    ledger = Ledger()
    for offset in (3, 5, 9):
        deliver(ledger, offset)
    ledger.received(answer(5), at_s=2.0)
    assert (ledger.totals().answered, ledger.totals().unanswered) == (2, 1)
    assert ledger.oldest_unanswered() == ["user_actions-0-9 of u"]


def test_another_user_or_partition_is_not_covered():
    ledger = Ledger()
    deliver(ledger, 1, user="a")
    deliver(ledger, 2, user="b", partition=1)
    ledger.received(answer(7, user="b"), at_s=2.0)
    assert ledger.totals().answered == 0


def test_an_answer_may_come_before_the_delivery_report():
    ledger = Ledger()
    ledger.measure_from(0.0)
    ledger.received(answer(4), at_s=2.0)
    deliver(ledger, 4, at_s=1.5)
    assert ledger.totals().unanswered == 0
    assert ledger.latency().p50 == 500.0


def test_a_repeat_is_known_by_its_rec_id_and_an_older_trigger_says_nothing_new():
    ledger = Ledger()
    assert ledger.received(answer(4), at_s=2.0)
    assert not ledger.received(answer(4), at_s=2.1)
    assert not ledger.received(answer(2), at_s=2.2)
    totals = ledger.totals()
    assert (totals.recommendations, totals.repeats, totals.older) == (2, 1, 1)


def test_a_request_is_answered_by_its_own_id_only():
    ledger = Ledger()
    deliver(ledger, 0, request_id="r1")
    ledger.received(answer(9), at_s=2.0)
    assert ledger.totals().answered == 0
    ledger.received(answer(0, request_id="r1"), at_s=2.0)
    assert ledger.totals().unanswered == 0


def test_a_record_that_triggers_nothing_needs_no_answer():
    ledger = Ledger()
    ledger.delivered("items", 0, 0, at_s=1.0, user_id=None)
    totals = ledger.totals()
    assert (totals.published, totals.triggers, totals.unanswered) == (1, 0, 0)


def test_latency_is_measured_to_the_covering_answer_and_not_for_the_backlog():
    ledger = Ledger()
    deliver(ledger, 0, at_s=8.0)
    ledger.received(answer(0), at_s=8.5)
    ledger.measure_from(10.0)
    deliver(ledger, 1, at_s=9.0)
    deliver(ledger, 2, at_s=10.0)
    ledger.received(answer(2), at_s=10.25)
    latency = ledger.latency()
    assert (latency.p50, latency.p99, latency.n) == (250.0, 250.0, 1)


def test_without_an_answer_there_is_no_latency():
    assert Ledger().latency().p50 is None


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), min_size=1, max_size=30),
    st.data(),
)
def test_answered_is_what_the_definition_says(triggers, data):
    """Any order of reports and answers gives the count that the definition gives over the finished log."""
    log = [(user, partition, offset) for offset, (user, partition) in enumerate(triggers)]
    answers = data.draw(st.lists(st.sampled_from(log), max_size=20))
    steps = data.draw(st.permutations([("t", entry) for entry in log] + [("a", entry) for entry in answers]))
    # Delivery reports of one partition come in offset order; answers in any.
    pending = iter(log)
    ledger = Ledger()
    for kind, (user, partition, offset) in steps:
        if kind == "t":
            deliver(ledger, (entry := next(pending))[2], user=entry[0], partition=entry[1])
        else:
            ledger.received(answer(offset, user=user, partition=partition), at_s=2.0)
    expected = sum(
        any(u == user and p == partition and o >= offset for u, p, o in answers) for user, partition, offset in log
    )
    assert ledger.totals().answered == expected
