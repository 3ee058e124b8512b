"""A domain that contradicts itself is refused by name."""

from __future__ import annotations

import pytest

from features.domain import Action, Attribute, Domain


def test_the_columns_are_impressions_then_the_counted_actions():
    domain = Domain(actions=(Action("view"), Action("hide", counted=False), Action("buy")))
    assert domain.columns == ("impression", "view", "buy")


def test_an_eighth_counted_action_is_refused():
    with pytest.raises(ValueError, match="8 are counted"):
        Domain(actions=tuple(Action(f"a{n}") for n in range(8)))


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Domain(attributes=(Attribute("brand", "category"), Attribute("brand", "set")))


def test_impression_is_no_actions_name():
    with pytest.raises(ValueError, match="impression"):
        Domain(actions=(Action("impression"),))


def test_an_unknown_action_is_none():
    assert Domain(actions=(Action("view"),)).action("buy") is None
