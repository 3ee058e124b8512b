import numpy as np
import pytest

from features.domain import Action, Domain
from features.schema import (
    IMPRESSIONS,
    ITEMS,
    REQUESTS,
    USER_ACTIONS,
    Impression,
    Item,
    RecommendationRequest,
    UserAction,
)
from recommender.replay import Replayer, replay

DOMAIN = Domain(actions=(Action("view"), Action("like", trigger=False)), item_context=("price",))
START_MS = 1_700_000_000_000


def view(number, user, item, *, seconds, action="view"):
    return USER_ACTIONS, UserAction(f"e{number}", user, item, action, START_MS + seconds * 1000)


def walks(users=5, items=8):
    """Every user views items 0, 1, 2 ... one a second, in step."""
    for step in range(items):
        for user in range(users):
            yield view(step * users + user, f"u{user}", f"i{step}", seconds=step)


def test_every_trigger_and_request_is_answered_in_order_and_nothing_else():
    log = [
        view(1, "u", "a", seconds=0),
        view(2, "u", "b", seconds=1, action="like"),
        (ITEMS, Item("a", START_MS)),
        (REQUESTS, RecommendationRequest("r1", "u", START_MS + 2000, item_ids=["a", "b"])),
        (USER_ACTIONS, None),
        view(3, "u", "c", seconds=3),
    ]
    answers = list(replay(log, Replayer(DOMAIN)))
    assert [(answer.topic, answer.offset) for answer in answers] == [
        (USER_ACTIONS, 0), (REQUESTS, 0), (USER_ACTIONS, 3)
    ]  # fmt: skip
    assert sorted(answers[1].ranked.item_ids) == ["a", "b"]


def test_every_answer_sees_what_came_before_it_and_nothing_after():
    log = list(walks())
    cut = len(log) // 2
    whole = list(replay(log, Replayer(DOMAIN)))
    half = list(replay(log[:cut], Replayer(DOMAIN)))
    for mine, theirs in zip(half, whole[:cut], strict=True):
        assert mine.ranked.item_ids == theirs.ranked.item_ids
        assert np.array_equal(mine.ranked.matrix, theirs.ranked.matrix, equal_nan=True)


@pytest.mark.parametrize("batch_max", [1, 7, 2000])
def test_the_digest_does_not_depend_on_answers_or_batches(batch_max):
    plain = Replayer(DOMAIN)
    assert list(replay(walks(), plain, answers=False)) == []
    other = Replayer(DOMAIN, batch_max=batch_max)
    assert len(list(replay(walks(), other))) == 40
    assert other.digest() == plain.digest()
    assert other.counts() == plain.counts() == {"applied:user_actions": 40}


def test_a_repeat_and_a_dead_letter_are_counted_apart():
    replayer = Replayer(DOMAIN)
    log = [view(1, "u", "a", seconds=0), view(1, "u", "a", seconds=0), (USER_ACTIONS, None)]
    list(replay(log, replayer, answers=False))
    counts = replayer.counts()
    assert counts == {"applied:user_actions": 1, "repeated:user_actions": 1, "dead_lettered:user_actions": 1}


def test_a_shown_list_is_a_question_with_its_own_context():
    replayer = Replayer(DOMAIN)
    query = replayer.list_query(
        Impression("m", "u", ["a", "b"], START_MS, context={"x": 1.0}, item_context={"price": [5.0, None]})
    )
    assert (query.given, query.k, query.context) == (["a", "b"], 2, {"x": 1.0})
    assert query.item_context["price"].tolist()[0] == 5.0
    assert np.isnan(query.item_context["price"][1])
    assert query.position is None
    shown = Replayer(DOMAIN, use_position=True)
    assert shown.list_query(Impression("m", "u", ["a", "b"], START_MS)).position.tolist() == [0.0, 1.0]
    assert "position" in shown.catalog.names


def test_impressions_and_items_reach_the_state():
    replayer = Replayer(DOMAIN)
    log = [(ITEMS, Item("a", START_MS)), (IMPRESSIONS, Impression("m", "u", ["a", "a", "b"], START_MS))]
    list(replay(log, replayer, answers=False))
    columns = replayer.view.items(replayer.view.learn(["a", "b"]), now_ms=START_MS)
    assert columns.known.tolist() == [True, False]
    assert columns.lifetime[:, 0].tolist() == [1.0, 1.0]
