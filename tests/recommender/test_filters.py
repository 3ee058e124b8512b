import numpy as np
import pytest

from features.ids import hash64
from recommender.filters import filters


def kept(names, query, items, view, **settings):
    rules = filters(names, domain=view.domain, layout=view.layout, **settings)
    keep = np.ones(len(items), bool)
    for rule in rules:
        keep &= rule.keep(query, np.array(items, np.uint64), view)
    return [item for item, stays in zip(items, keep, strict=True) if stays]


def test_what_the_catalogue_withdrew_is_out_and_unknown_items_stay(query, toy_view):
    assert kept(["available"], query(), [1, 2, 3], toy_view(gone=(2,))) == [1, 3]


def test_what_the_user_bought_is_out(query, toy_view):
    assert kept(["bought"], query(bought=(3,)), [1, 2, 3], toy_view()) == [1, 2]


def test_listed_items_are_out_even_if_the_rule_is_not_named(query, toy_view):
    bad = hash64("bad")
    assert kept([], query(), [1, bad], toy_view(), blocked_items=["bad"]) == [1]
    assert kept(["blocked"], query(), [1, bad], toy_view(), blocked_items=["bad"]) == [1]


def test_an_item_is_out_while_the_users_newest_action_on_it_is_negative(query, toy_view):
    asked = query((9, 1, 0, 1.0, 1), (8, 1, 0, 0.0, 3), (7, 2, 0, 0.0, 3), (6, 2, 0, 1.0, 1))
    assert kept(["negative"], asked, [1, 2, 3], toy_view()) == [2, 3]


def test_a_user_without_history_loses_nothing(query, toy_view):
    assert kept(["available", "bought", "negative", "blocked"], query(), [1, 2], toy_view()) == [1, 2]


def test_an_unknown_filter_is_named(toy_view):
    view = toy_view()
    with pytest.raises(ValueError, match="no filter named 'avaliable'"):
        filters(["avaliable"], domain=view.domain, layout=view.layout)
