"""Reasons add up to the score, and the ones that speak for an item come first."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recommender.ranker import Cascade, LightGBMRanker
from recommender.reasons import Explainer
from tests.recommender.boosters import make_booster, rows

NAMES = ("item_click_rate_total", "price", "user_item_session_count", "item_click_rate_total_rank",
         "item_click_rate_total_z", "price_to_min")  # fmt: skip


def explain(row, parts, *, top=3, score=None):
    parts = np.array([parts], float)
    total = parts.sum(axis=1) if score is None else np.array([score])
    (found,) = Explainer(NAMES).explain(np.array([row], np.float32), parts, total, top=top)
    return found


def test_a_feature_and_its_forms_are_one_reason():
    found = explain([0.12, 5, 3, 9, 2.13, 1], [0.1, 0, 0, 0.05, 0.3, 0, -1.0])
    (reason,) = found.reasons
    assert reason.text == "clicked about 0.12 times per impression so far, 2.1 standard deviations above this list"
    assert reason.contribution == pytest.approx(0.45)
    assert found.rest == pytest.approx(-1.0)


def test_a_form_that_is_not_known_is_not_said():
    found = explain([0.12, 5, 3, 9, 2.13, math.nan], [0, 0.2, 0, 0, 0, 0.1, 0])
    assert [reason.text for reason in found.reasons] == ["its price is 5"]


def test_what_speaks_for_the_item_comes_first_then_what_speaks_against_it():
    parts = [0.1, -0.9, 0.4, 0, 0, 0, 0]
    assert [r.contribution for r in explain([1] * 6, parts).reasons] == pytest.approx([0.4, 0.1, -0.9])
    assert [r.contribution for r in explain([1] * 6, parts, top=1).reasons] == pytest.approx([0.4])


def test_what_contributes_nothing_is_no_reason():
    assert explain([1] * 6, [0, 0, 0.4, 0, 0, 0, 0.1]).reasons[0].contribution == 0.4
    assert len(explain([1] * 6, [0, 0, 0.4, 0, 0, 0, 0.1]).reasons) == 1


def test_what_is_the_same_for_every_candidate_is_no_reason_for_one_and_stays_in_the_rest():
    names = ("user_sessions", "now_hour", "context_city", "user_item_bought", "price")
    parts = np.array([[0.5, 0.4, -0.3, 0.2, 0.1, 1.0]])
    (found,) = Explainer(names).explain(np.ones((1, 5), np.float32), parts, parts.sum(axis=1), top=5)
    assert [reason.contribution for reason in found.reasons] == [0.2, 0.1]
    assert found.rest == pytest.approx(1.6)


def test_contributions_that_do_not_add_up_are_not_told():
    parts = [0.1, 0.2, 0.3, 0, 0, 0, 0]
    assert explain([1] * 6, parts, score=0.6 + 1e-9) is not None
    assert explain([1] * 6, parts, score=0.6 + 1e-5) is None
    assert explain([1] * 6, parts, score=math.nan) is None


@given(
    parts=arrays(float, (4, len(NAMES) + 1), elements=st.floats(-5, 5)),
    row=arrays(np.float32, (4, len(NAMES)), elements=st.floats(width=32)),
    top=st.integers(1, 7),
)
def test_the_reasons_and_the_rest_are_the_score(parts, row, top):
    scores = parts.sum(axis=1)
    for score, found in zip(scores, Explainer(NAMES).explain(row, parts, scores, top=top), strict=True):
        assert len(found.reasons) <= top
        assert sum(r.contribution for r in found.reasons) + found.rest == pytest.approx(score, abs=1e-12)
        kinds = [r.contribution > 0 for r in found.reasons]
        assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize("cascade", [None, Cascade(5, 40)])
def test_a_real_model_is_explained_to_its_score_with_and_without_a_cascade(cascade):
    ranker = LightGBMRanker(make_booster(len(NAMES)), "v", "f", trees=20, cascade=cascade)
    matrix = rows(len(NAMES), size=40)
    scores = ranker.score(matrix)
    found = Explainer(NAMES).explain(matrix, ranker.contributions(matrix), scores, top=3)
    for score, each in zip(scores, found, strict=True):
        assert len(each.reasons) == 3
        assert sum(reason.contribution for reason in each.reasons) + each.rest == pytest.approx(score, rel=1e-6)
