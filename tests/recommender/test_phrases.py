"""Every name that the catalogue can give has a phrase of human words."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalog import catalog
from features.domain import Action, Attribute, Context, Domain
from recommender.candidates import SOURCES
from recommender.phrases import RULES, phrase, relation
from recommender.reasons import subjects

SHOP = Domain(
    actions=(Action("view"), Action("add to cart"), Action("buy", purchase=True), Action("hide", negative=True)),
    attributes=(Attribute("genres", "set", rate=True), Attribute("brand", "category"), Attribute("price", "number")),
    context=(Context("device", "category"), Context("hour price", "number")),
    item_context=("price", "distance"),
)
HOTELS = Domain(
    actions=(Action("clickout item"), Action("interaction item image"), Action("search for item", counted=False)),
    attributes=(Attribute("properties", "set"), Attribute("star rating", "number"), Attribute("page_rank", "number")),
    context=(Context("platform", "category"),),
    item_context=("price",),
)
DESK = Domain(actions=(Action("VIEW"), Action("LIKE"), Action("COMMENT CREATED"), Action("rate"), Action("count")))
BARE = Domain()
DOMAINS = {"shop": SHOP, "hotels": HOTELS, "desk": DESK, "bare": BARE}
ODD_VALUES = (0.0, 1.0, 3.0, 0.123, -2.5, 1e30, -1e30, math.inf, -math.inf, math.nan)


def catalogue(name):
    return catalog(DOMAINS[name], sources=[*(source.name for source in SOURCES), "my_own"], use_position=True)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_name_of_a_catalogue_has_a_phrase_for_every_value(name):
    made = catalogue(name)
    told = 0
    for subject in subjects(made.names, made.categorical):
        for value in ODD_VALUES:
            text = subject.say(value)
            assert text
            assert "_" not in text
            assert not set(text.split()) & {name for name in made.names if "_" in name}
            assert "{" not in text
        told += 1 + len(subject.forms)
    assert told == len(made.names)


@pytest.mark.parametrize("name", DOMAINS)
def test_only_the_numbers_of_the_items_are_told_by_the_rule_for_all_that_is_left(name):
    made = catalogue(name)
    numbers = {re.sub(r"\W+", "_", each.name) for each in DOMAINS[name].attributes if each.kind == "number"}
    plain = {
        made.names[subject.columns[0]]
        for subject in subjects(made.names, made.categorical)
        if next(rule for rule in RULES if re.fullmatch(rule.pattern, made.names[subject.columns[0]])) is RULES[-1]
    }
    assert plain == numbers


def test_no_rule_is_dead():
    names = {
        made.names[each.columns[0]] for name in DOMAINS for made in [catalogue(name)] for each in subjects(made.names)
    }
    used = {next(rule.pattern for rule in RULES if re.fullmatch(rule.pattern, name)) for name in names}
    assert {rule.pattern for rule in RULES} == used


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("user_item_session_count", 3, "touched 3 times in this session"),
        ("user_item_view_count", 3, "you viewed it 3 times before"),
        ("user_item_view_count", 0, "you never viewed it"),
        ("user_item_add_to_cart_count", 1, "you added it to cart once before"),
        ("user_item_clickout_item_count", 2, 'you did "clickout item" with it 2 times before'),
        ("item_click_rate_total", 0.12, "clicked about 0.12 times per impression so far"),
        ("user_item_comment_created_count", 1, 'you did "comment created" with it once before'),
        ("user_item_view_product_count", 2, 'you did "view product" with it 2 times before'),
        ("item_comment_created_count_1h", 3, '"comment created" 3 times in the last hour'),
        ("item_click_rate_total", 1, "clicked about once per impression so far"),
        ("user_sessions", 1, "your sessions so far: 1"),
        ("item_click_rate_5m", math.nan, "nothing was shown yet"),
        ("item_click_rate_by_brand", 0.2, "things of its brand are clicked about 0.2 times per impression"),
        ("item_clickout_item_count_1h", 12, '"clickout item" 12 times in the last hour'),
        ("item_rate_rate_7d", 0.5, "rated about 0.5 times per impression in the last 7 days"),
        ("user_item_recency_s", 7300, "you last touched it 2 hours ago"),
        ("user_item_recency_s", math.nan, "you never touched it before"),
        ("genres_affinity", 0.25, "your taste in genres, matched by 25 %"),
        ("source_co_visited", 1.5, "co-visited with what you looked at"),
        ("source_co_visited", 0, "not co-visited with what you looked at"),
        ("shown_price_less_mean_touched", -20, "its price is 20 below that of what you looked at"),
        ("price", math.nan, "its price is not known"),
        ("now_weekday", 1, "the day of the week: Tuesday"),
    ],
)
def test_a_phrase_says_what_the_value_means(name, value, text):
    assert phrase(name)(value) == text


def test_a_category_of_the_request_is_named_without_its_code():
    assert phrase("context_device", is_category=True)(17.0) == "the device of this request"


@given(form=st.sampled_from(["rank", "z", "to_min", "to_median"]), value=st.floats())
def test_a_relation_is_human_words_too(form, value):
    assert re.fullmatch(r"[a-z0-9+., -]+", relation(form, value))
