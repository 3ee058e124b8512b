import numpy as np
import pytest

from features.domain import Domain
from recommender.candidates import SOURCES
from recommender.candidates.affinity import Affinity
from recommender.candidates.co_visited import CoVisited
from recommender.candidates.history import History
from recommender.candidates.new import New
from recommender.candidates.trending import EPOCH_MS, HALF_LIFE_MS, Trending


def scores(each):
    return dict(zip(each.items.tolist(), each.scores.tolist(), strict=True))


def test_trending_scores_are_the_decayed_counts_at_the_querys_time(query, toy_view, now_ms):
    log = (now_ms - EPOCH_MS) / HALF_LIFE_MS
    view = toy_view(tops={"top": [(7, log + 3), (8, log + 1)]})
    now, tomorrow = Trending().find([query(), query(now_ms=now_ms + HALF_LIFE_MS)], view)
    assert scores(now) == pytest.approx({7: 8.0, 8: 2.0})
    assert scores(tomorrow) == pytest.approx({7: 4.0, 8: 1.0})


def test_new_items_count_less_by_the_day_and_not_at_all_after_a_month(query, toy_view, now_ms):
    day_ms = 86_400_000
    view = toy_view(tops={"new": [(7, now_ms), (8, now_ms - day_ms), (9, now_ms - 31 * day_ms)]})
    assert scores(New().find([query()], view)[0]) == pytest.approx({7: 1.0, 8: 0.5})


def test_history_is_the_users_own_items_by_weight_and_age(query, toy_view):
    minutes = 24 * 60
    found = History().find([query((minutes, 7, 0, 3.0), (0, 8, 1), (0, 9, 1, 0.0))], toy_view())[0]
    assert scores(found) == pytest.approx({7: 1.5, 8: 1.0})
    assert found.items.tolist() == [7, 8]


def test_an_old_item_is_still_known(query, toy_view):
    assert scores(History().find([query((89 * 24 * 60, 7, 0))], toy_view())[0])[7] > 0


def test_co_visited_adds_shares_of_the_lists_of_the_sessions_items(query, toy_view):
    view = toy_view(co_visited={1: [(30, 8.0), (40, 8.0)], 2: [(30, 1.0), (50, 3.0)]})
    found = CoVisited().find([query((5, 1, 0), (4, 2, 0)), query(), query((1, 99, 0))], view)
    assert scores(found[0]) == pytest.approx({50: 0.75, 30: 0.25 + 0.25, 40: 0.25})
    assert [len(each.items) for each in found] == [3, 0, 0]


def test_affinity_goes_by_the_values_that_the_user_likes(query, toy_view):
    view = toy_view(
        genres={1: ["drama"], 2: ["drama", "war"], 3: ["comedy"]},
        tops={"a:genre:drama": [(10, 0), (11, 0)], "a:genre:war": [(11, 0)], "a:genre:comedy": [(12, 0)]},
    )
    found = Affinity().find([query((5, 1, 0), (4, 2, 0)), query((5, 3, 0)), query()], view)
    assert found[0].items.tolist() == [11, 10]
    assert found[1].items.tolist() == [12]
    assert len(found[2].items) == 0


def test_affinity_does_not_depend_on_the_order_in_which_a_process_met_the_values(query, toy_view):
    names = [f"g{number}" for number in range(40)]
    genres = {item: names[item::5] for item in range(20)}
    tops = {f"a:genre:{name}": [(100 + at, 0), (200 + at % 3, 0), (300, 0)] for at, name in enumerate(names)}
    asked = query(*((20 - item, item, 0, 1 + item / 7) for item in range(20)))
    answers = set()
    for seed in range(20):
        view = toy_view(genres=genres, tops=tops)
        view._texts = np.random.default_rng(seed).permutation(view._texts).tolist()
        found = Affinity().find([asked], view)[0]
        answers.add((found.items.tobytes(), found.scores.tobytes()))
    assert len(answers) == 1


def test_what_a_user_hid_says_nothing_of_their_taste(query, toy_view):
    view = toy_view(genres={1: ["drama"]}, tops={"a:genre:drama": [(10, 0)]})
    assert len(Affinity().find([query((5, 1, 0, 0.0, 3))], view)[0].items) == 0


def test_without_attributes_affinity_knows_nothing(query, toy_view):
    view = toy_view()
    view.domain = Domain()
    assert len(Affinity().find([query((5, 1, 0))], view)[0].items) == 0


def test_every_source_has_a_name_of_its_own_and_takes_an_empty_batch(toy_view):
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert [source.find([], toy_view()) for source in SOURCES] == [[]] * len(SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_finds_distinct_items_best_first_with_scores_above_nothing(source, query, toy_view, now_ms):
    view = toy_view(
        tops={
            "top": [(7, 9000.0), (8, 8990.0)],
            "new": [(5, now_ms), (6, now_ms - 1)],
            "a:genre:war": [(3, 0), (4, 0)],
        },
        co_visited={1: [(30, 8.0), (40, 9.0)]},
        sessions={1: [(now_ms, 8, 1)]},
        members={(8, 1): [1, 70]},
        genres={1: ["war"]},
    )
    found = source.find([query((5, 1, 0), (4, 2, 0))], view)[0]
    assert len(found.items) >= 2
    assert len(np.unique(found.items)) == len(found.items)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > 0).all()
