import msgspec
import numpy as np
import pytest

from recommender.evaluation.intervals import mean_interval, paired
from recommender.evaluation.report import Judged, Report, report

USERS = np.repeat(np.arange(40, dtype=np.uint64), 3)


def judged(name, seed, *, better=0.0, shown=(1, 2)):
    values = np.random.default_rng(seed).random(len(USERS)) + better
    return Judged(name, {"mrr": values, "hr@20": 1 - values}, [np.array(shown, np.uint64)] * len(USERS))


def reported(*systems, **facts):
    popularity = np.array([1, 2], np.uint64), np.array([5, 9])
    return report(
        systems, users=USERS, catalogue=np.arange(4, dtype=np.uint64), popularity=popularity, seed=3, facts=facts
    )


def close(found, expected):
    return (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_every_system_has_its_figures_and_every_other_the_lead_of_the_first():
    first, second = judged("Headrace", 1, better=0.5), judged("popularity", 2)
    found = reported(first, second)
    assert [system.name for system in found.systems] == ["Headrace", "popularity"]
    for system, one in zip(found.systems, (first, second), strict=True):
        for metric, estimate in system.metrics.items():
            assert close(estimate, mean_interval(one.values[metric], users=USERS, seed=3))
    assert found.systems[0].differences == {}
    for metric, lead in found.systems[1].differences.items():
        assert close(lead, paired(first.values[metric], second.values[metric], users=USERS, seed=3))


def test_queries_and_users_are_counted():
    found = reported(judged("Headrace", 1), protocol="rerank")
    assert (found.queries, found.users, found.facts) == (120, 40, {"protocol": "rerank"})


def test_a_system_with_the_same_figures_is_level_with_the_first():
    lead = reported(judged("Headrace", 1), judged("twin", 1)).systems[1].differences["mrr"]
    assert (lead.mean, lead.low, lead.high) == (0.0, 0.0, 0.0)


def test_what_is_shown_beside_the_catalogue_counts_as_part_of_it_for_every_system():
    found = reported(judged("Headrace", 1, shown=(1, 2)), judged("other", 2, shown=(3, 77)))
    assert [system.coverage for system in found.systems] == [2 / 5, 2 / 5]


def test_a_report_survives_json():
    found = reported(judged("Headrace", 1), judged("popularity", 2, shown=()), position=False)
    assert found.systems[1].novelty_bits is None
    assert msgspec.json.decode(msgspec.json.encode(found), type=Report) == found


def test_a_system_that_answered_other_queries_is_refused():
    short = Judged("popularity", {"mrr": np.ones(3), "hr@20": np.ones(3)}, [])
    with pytest.raises(ValueError, match="popularity has another number of queries"):
        reported(judged("Headrace", 1), short)
