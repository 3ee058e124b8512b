"""The verdict counts what is wrong: it is tried on states and answers that are known to be."""

from collections import Counter
from types import SimpleNamespace

from features.schema import ModelRef, Recommendation, Trigger
from tests.chaos.verdict import _compared, unanswered


def answer(user: str, partition: int, offset: int, *, request: str | None = None) -> Recommendation:
    trigger = Trigger("user_actions", partition, offset, 0)
    return Recommendation("r", user, 0, [], ModelRef("none", ""), "full", 0, 0.0, trigger=trigger, request_id=request)


def test_what_is_missing_is_lost_and_what_is_too_much_is_doubled():
    wanted = {"a": Counter(x=2, y=1), "b": Counter(x=1)}
    found = {"a": Counter(x=1, y=3), "c": Counter(x=4)}
    difference = _compared(wanted, found)
    assert (difference.lost, difference.doubled) == (2, 6)


def test_an_answer_covers_the_earlier_triggers_of_its_user_and_partition():
    truth = SimpleNamespace(triggers={("u", 0, 3), ("u", 0, 5), ("u", 1, 1), ("v", 0, 4)}, requests=set())
    assert unanswered(truth, [answer("u", 0, 5)]) == ["u partition 1 offset 1", "v partition 0 offset 4"]
    assert unanswered(truth, [answer("u", 0, 4), answer("u", 1, 1), answer("v", 0, 9)]) == ["u partition 0 offset 5"]


def test_a_request_is_answered_by_its_own_id():
    truth = SimpleNamespace(triggers=set(), requests={"q1", "q2"})
    assert unanswered(truth, [answer("u", 0, 9, request="q1")]) == ["request q2"]
