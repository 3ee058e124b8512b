from types import SimpleNamespace

import numpy as np
import pytest

from features.domain import Action
from features.schema import ModelRef, Recommendation, RecommendedItem
from pipeline.config import Kafka, Redis, Settings
from pipeline.lockstep import Comparison, Expected, request
from pipeline.private_worker import Answer, private
from recommender.query import Query, question

NAMES = ("item_age_s", "price")
SCORES = np.array([2.0, 1.0, 0.5])
ROWS = np.array([[1, np.nan], [2, 5], [3, 6]], np.float32)


def answer(item_ids, scores=SCORES, rows=ROWS):
    items = [
        RecommendedItem(item_id, score, "given") for item_id, score in zip(item_ids, np.asarray(scores), strict=True)
    ]
    made = Recommendation("r", "u", 5, items, ModelRef("v", "f"), "full", 0, 1.0)
    return Answer(made, SimpleNamespace(rows=np.asarray(rows, np.float32)))


def compared(given):
    found = Comparison(digests_equal=True)
    found.add(Expected("q", ["a", "b", "c"], SCORES, ROWS), given, NAMES)
    return found


def test_equal_to_the_bit_is_equal_and_absent_numbers_are_equal_too():
    found = compared(answer(["a", "b", "c"]))
    assert (found.lists_equal, found.rows_equal, found.scores_equal) == (1, 3, 3)
    assert found.all_equal
    assert "1 lists compared, 1 in equal order" in found.summary()


def test_a_last_bit_of_a_score_differs():
    found = compared(answer(["a", "b", "c"], np.nextafter(SCORES, [9, 1, 0.5])))
    assert (found.lists_equal, found.rows_equal, found.scores_equal) == (1, 3, 2)
    assert not found.all_equal
    assert found.differences == ["q: equal order, 1 scores differ, columns: none"]


def test_rows_are_compared_item_by_item_when_the_order_differs_and_the_columns_are_named():
    rows = ROWS[[1, 0, 2]].copy()
    rows[0, 0] = 2.5
    found = compared(answer(["b", "a", "c"], SCORES[[1, 0, 2]], rows))
    assert (found.lists_equal, found.rows_equal, found.scores_equal) == (0, 2, 3)
    assert found.differences == ["q: another order, 0 scores differ, columns: item_age_s"]


def test_a_list_that_came_back_cut_is_told():
    found = compared(answer(["a", "b"], SCORES[:2], ROWS[:2]))
    assert not found.all_equal
    assert found.differences == ["q: 2 items came back of 3"]


def test_another_digest_alone_is_a_difference():
    found = compared(answer(["a", "b", "c"]))
    found.digests_equal = False
    assert not found.all_equal
    assert "DIFFER" in found.summary()


def test_a_question_as_a_request_is_the_same_question_again():
    prices = np.array([1.5, np.nan, 0.1], np.float32)
    asked = Query("m1", "u", 99, None, 3, given=["a", "b", "a"], context={"x": 1.0}, item_context={"price": prices})
    again = question(request(asked), query_id="rec", user=None, k=20)
    assert (again.salt, again.user_id, again.now_ms, again.k) == ("m1", "u", 99, 3)
    assert (again.given, again.context) == (asked.given, asked.context)
    assert again.item_context["price"].tobytes() == prices.tobytes()


def test_a_private_worker_answers_requests_alone_is_never_stale_and_has_names_of_its_own(tmp_path):
    settings = Settings(actions=(Action("view"), Action("buy")))
    made, other = (
        private(settings, kafka=Kafka(topic_prefix="shop."), redis=Redis(), directory=tmp_path) for _ in range(2)
    )
    assert not any(action.trigger for action in made.actions)
    assert (made.recommend.freshness_ms, made.model.cascade_trees) == (0, 0)
    assert made.kafka.topic_prefix.startswith("shop.lockstep-")
    for place in ("topic_prefix", "group"):
        assert getattr(made.kafka, place) != getattr(other.kafka, place)
    assert made.redis.app != other.redis.app


@pytest.mark.parametrize("context", [{}, {"device": "phone"}])
def test_what_a_question_does_not_have_its_request_does_not_send(context):
    made = request(Query("m1", "u", 99, None, 1, given=["a"], context=context))
    assert made.context == (context or None)
    assert made.item_context is None
