"""A served recommendation again from its logged rows: found among others, recomputed, compared to the bit."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from features.schema import ModelRef, Recommendation, RecommendedItem
from pipeline import recheck
from pipeline.config import ConfigError
from recommender.effort import POPULAR
from recommender.ranker import Cascade, LightGBMRanker
from recommender.recommend import Ranked, Sample
from recommender.served import pack
from tests.recommender.boosters import make_booster, rows

WIDTH = 4
CLOCKS = {"user_id": "u", "ts_ms": 5, "event_age_ms": 7, "backlog": False}
RANKER = LightGBMRanker(make_booster(WIDTH), "v3", "f", trees=20)


class Reader:
    """Two topics in memory."""

    def __init__(self, served, published):
        self._topics = {"eu.served_features": served, "eu.recommendations": published}

    def existing(self, topic):
        return (SimpleNamespace(value=lambda raw=raw: raw) for raw in self._topics[topic])


def answer(rec_id="r-1", *, cascade=None, version="v3", seed=3):
    ranker = LightGBMRanker(RANKER.booster, version, "f", 20, cascade)
    matrix = rows(WIDTH, size=30, seed=seed)
    scores = ranker.score(matrix, shown=4)
    order = np.argsort(-scores, kind="stable")
    top, rest = order[:4], order[4:9]
    sample = Sample([f"s{n}" for n in rest], scores[rest], matrix[rest], np.linspace(0, 0.1, 5), 0.2)
    return Ranked(
        rec_id, [f"i{n}" for n in top], scores[top], ["new"] * 4, "full", None, version, "f", matrix[top],
        cascade_trees=ranker.cascade_trees, sample=sample,
    )  # fmt: skip


def published(ranked, **changes):
    items = [RecommendedItem(i, s, "new") for i, s in zip(ranked.item_ids, ranked.scores.tolist(), strict=True)]
    fields = {"model": ModelRef(ranked.model_version, "f"), "level": "full", "event_age_ms": 0, "latency_ms": 1.0}
    return msgspec.json.encode(Recommendation(ranked.query_id, "u", 9, items, **{**fields, **changes}))


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Stands for the registry: the loading of real artefacts is tried in tests/integration/test_served.py."""

    def serving_model(served, models):
        cascade = Cascade(served.cascade_trees, 0) if served.cascade_trees else None
        return LightGBMRanker(RANKER.booster, served.model_version, "f", 20, cascade)

    monkeypatch.setattr(recheck, "serving_model", serving_model)


def checks(served, answers, rec_id="r-1", tmp="models"):
    found = recheck.find(Reader(served, answers), prefix="eu.", rec_id=rec_id, progress=lambda topic, count: None)
    return recheck.checks(*found, models=tmp)


@pytest.mark.parametrize("cascade", [None, Cascade(5, 6)])
def test_what_was_served_is_recomputed_to_the_bit_and_equals_what_was_published(cascade):
    ranked, other = answer(cascade=cascade), answer("r-12")
    noise = [None, pack(other, **CLOCKS)]
    (found,) = checks([*noise, pack(ranked, **CLOCKS)], [published(other), published(ranked)])
    assert (found.equal, found.is_published, found.published) == (True, True, 1)
    assert [item.shown for item in found.items] == [True] * 4 + [False] * 5
    assert all(item.recomputed == item.logged for item in found.items)
    assert [item.published for item in found.items] == [*ranked.scores.tolist(), *[None] * 5]


def test_a_row_that_was_changed_on_its_way_shows():
    ranked = answer()
    ranked.matrix[1] += 3
    (found,) = checks([pack(ranked, **CLOCKS)], [published(ranked)])
    assert not found.equal
    assert [item.equal for item in found.items].count(False) >= 1
    assert not found.items[1].equal


def test_a_published_score_that_is_one_bit_off_shows():
    ranked = answer()
    off = answer()
    off.scores[0] = np.nextafter(off.scores[0], 9)
    (found,) = checks([pack(ranked, **CLOCKS)], [published(off)])
    assert [item.equal for item in found.items[:2]] == [False, True]
    assert not found.equal


def test_of_several_repeats_each_is_compared_with_its_own():
    before, after = answer(seed=3), answer(seed=4, version="v4")
    found = checks([pack(before, **CLOCKS), pack(after, **CLOCKS)], [published(after), published(before)])
    assert [(each.served.model_version, each.equal, each.is_published) for each in found] == [
        ("v3", True, True),
        ("v4", True, True),
    ]


def test_a_recommendation_with_other_content_is_a_difference_and_one_no_longer_held_is_none():
    ranked, other = answer(seed=3), answer(seed=4)
    (found,) = checks([pack(ranked, **CLOCKS)], [published(other)])
    assert (found.equal, found.is_published) == (False, False)
    (found,) = checks([pack(ranked, **CLOCKS)], [])
    assert (found.equal, found.is_published) == (True, False)


def test_rows_whose_recommendation_a_crash_kept_back_differ_from_nothing_once_the_repeat_is_there():
    before, after = answer(seed=3), answer(seed=4)
    rows_of_both = [pack(before, **CLOCKS), pack(after, **CLOCKS)]
    found = checks(rows_of_both, [published(after)])
    assert [(each.equal, each.is_published) for each in found] == [(True, False), (True, True)]
    found = checks(rows_of_both, [published(after), published(answer(seed=5))])
    assert [(each.equal, each.is_published) for each in found] == [(False, False), (True, True)]


def test_a_repeat_under_overload_has_no_rows_and_differs_from_nothing():
    ranked = answer()
    popular = published(answer(seed=4), model=ModelRef("none", "f"), level="popular", cause=POPULAR.cause)
    (kept_back,) = checks([pack(ranked, **CLOCKS)], [popular])
    assert (kept_back.equal, kept_back.is_published, kept_back.strangers) == (True, False, 0)
    with pytest.raises(ConfigError, match="nothing was scored"):
        checks([], [popular])


def test_where_the_sources_ranked_there_is_nothing_to_recompute():
    ranked = answer(version="none")
    (found,) = checks([pack(ranked, **CLOCKS)], [published(ranked)])
    assert found.equal
    assert all(item.recomputed is None for item in found.items)
    assert found.report()["items"][0]["published"] == found.items[0].logged


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([], "neither there nor on recommendations"),
        ([published(answer())], "on recommendations only"),
        (
            [published(Ranked("r-1", [], np.empty(0), [], "popular", "x", "none", "f", np.empty((0, 0))))],
            "showed nothing",
        ),
    ],
)
def test_what_is_not_found_is_said_in_plain_words(answers, words):
    with pytest.raises(ConfigError, match=words):
        checks([pack(answer("r-12"), **CLOCKS)], answers)


def test_a_record_of_another_release_is_named():
    raw = msgspec.msgpack.encode([1, *msgspec.msgpack.decode(pack(answer(), **CLOCKS))[1:]])
    with pytest.raises(ConfigError, match="format 1, this release reads 2"):
        checks([raw], [])
