import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import catalog as catalog_module
from features.catalog import catalog, slugs
from features.domain import Action, Attribute, Context, Domain
from tests.features.worlds import DOMAIN, SOURCES

CATALOG = catalog(DOMAIN, sources=SOURCES)
SCOPES = ("item", "user", "user_item", "genres", "brand", "price", "shown", "context", "source", "now")


def test_every_name_is_unique_and_starts_with_its_scope():
    assert len(set(CATALOG.names)) == len(CATALOG.names)
    for name in CATALOG.names:
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert name.startswith(SCOPES)


def test_the_rule_of_names_stands_in_the_catalogue_itself():
    text = Path(catalog_module.__file__).read_text()
    for scope in ("item", "user", "user_item", "shown_<name>", "context_<name>", "source_<name>", "now"):
        assert f"`{scope}`" in text


def test_every_kind_of_feature_of_the_contract_is_there():
    for name in (
        "item_impression_count_5m", "item_view_rate_24h", "item_cart_rate_by_brand", "item_purchase_decayed_7d",
        "user_view_count_1h", "user_recency_s", "user_session_length", "user_session_dwell_mean_s",
        "user_item_view_count", "user_item_last_action", "user_item_recency_s", "user_item_session_count",
        "user_item_touched_last", "genres_affinity", "genres_cosine", "brand_overlap", "source_co_visited", "price",
        "context_device", "context_hour_price", "shown_price", "item_view_rate_total_rank", "source_co_visited_z",
        "price_to_min", "shown_price_to_median", "price_less_mean_touched", "shown_price_less_last_touched",
        "user_item_session_recency_rank", "user_item_run_length", "user_item_session_share", "item_age_s", "now_hour",
        "now_weekday",
    ):  # fmt: skip
        assert name in CATALOG.names


def test_the_fingerprint_changes_with_every_meaning():
    heavier = msgspec.structs.replace(DOMAIN, actions=(Action("view", weight=2), *DOMAIN.actions[1:]))
    shorter = msgspec.structs.replace(DOMAIN, session_gap_ms=60_000)
    prints = [
        catalog(DOMAIN, sources=SOURCES).fingerprint,
        catalog(DOMAIN, sources=SOURCES[:-1]).fingerprint,
        catalog(DOMAIN, sources=SOURCES, use_position=True).fingerprint,
        catalog(heavier, sources=SOURCES).fingerprint,
        catalog(shorter, sources=SOURCES).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in prints)
    assert catalog(DOMAIN, sources=SOURCES).fingerprint == prints[0]


def test_a_label_horizon_gives_no_column_another_meaning():
    patient = msgspec.structs.replace(
        DOMAIN, actions=tuple(msgspec.structs.replace(action, horizon_min=5, grade=9) for action in DOMAIN.actions)
    )
    assert catalog(patient, sources=SOURCES).fingerprint == CATALOG.fingerprint


def test_codes_are_marked_as_categories():
    assert {CATALOG.names[index] for index in CATALOG.categorical} == {"user_item_last_action", "context_device"}


def test_two_features_never_share_a_name():
    clash = Domain(attributes=(Attribute("shown_price", "number"),), item_context=("price",))
    with pytest.raises(ValueError, match="shown_price"):
        catalog(clash, sources=())


def test_a_domain_with_nothing_in_it_has_a_catalogue():
    assert catalog(Domain(), sources=()).names


@given(st.lists(st.text(min_size=1, max_size=6), max_size=8))
def test_any_configured_names_become_distinct_parts_of_names(names):
    made = slugs(names)
    assert len(set(made)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", slug) for slug in made)


def test_odd_action_and_context_names_fit_the_rule():
    domain = Domain(
        actions=(Action("clickout item"), Action("Größe?"), Action("größe!")), context=(Context("größe", "category"),)
    )
    names = catalog(domain, sources=()).names
    assert "item_clickout_item_count_1h" in names
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
