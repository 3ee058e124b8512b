"""Labels by the join equal those of a plain reading of the rules, whatever comes in whatever order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.domain import Action, Domain
from features.schema import Impression, UserAction
from pipeline.config import Settings
from pipeline.offline import Source, settings_for
from recommender.model import join
from recommender.model.join import labels
from recommender.model.log_columns import LogColumns, read_columns
from tests.datasets import dataset

MIN = 60_000
DOMAIN = Domain(
    actions=(
        Action("view", grade=0),
        Action("click", grade=1),
        Action("buy", grade=3, horizon_min=7 * 24 * 60),
        Action("hide", grade=2, negative=True),
    )
)


def shown(impression_id, *items, user="u", ts_ms=0):
    return Impression(impression_id, user, list(items), ts_ms)


def acted(event_id, item, *, user="u", ts_ms=1, name="click", impression=None):
    return UserAction(event_id, user, item, name, ts_ms, impression_id=impression)


def log(*records) -> LogColumns:
    return read_columns([("", record) for record in records], DOMAIN)


def found(*records, **bounds):
    """{(list, place): grade} and what was dropped."""
    columns = log(*records)
    query, place, grade, dropped = labels(columns.lists, columns.actions, DOMAIN, **bounds)
    ordered = list(zip(query.tolist(), place.tolist(), strict=True))
    assert all(before < after for before, after in pairwise(ordered))
    return dict(zip(ordered, grade.tolist(), strict=True)), dict(dropped)


def test_an_action_labels_the_list_that_it_names():
    got, _ = found(shown("1", "a", "b"), shown("2", "a", "b"), acted("e", "b", impression="1"))
    assert got == {(0, 1): 1}


def test_an_item_that_stands_twice_is_labelled_twice():
    got, _ = found(shown("1", "a", "b", "a"), acted("e", "a", impression="1"))
    assert got == {(0, 0): 1, (0, 2): 1}


def test_an_action_that_names_no_list_labels_the_newest_that_showed_its_user_the_item():
    got, _ = found(
        shown("1", "a"), shown("2", "a"), shown("3", "b"), shown("4", "a", user="v"), acted("e", "a", ts_ms=30 * MIN)
    )
    assert got == {(1, 0): 1}


def test_an_action_that_names_no_list_labels_none_where_others_name_theirs():
    got, dropped = found(shown("1", "a", "b"), acted("e", "a"), acted("f", "b", impression="1"))
    assert got == {(0, 1): 1}
    assert dropped == {join.NO_LIST: 1}


def test_each_action_has_its_own_horizon():
    records = [shown("1", "a", "b"), acted("e", "a", ts_ms=30 * MIN + 1), acted("f", "b", ts_ms=31 * MIN, name="buy")]
    assert found(*records)[0] == {(0, 1): 3}


def test_in_a_complete_log_an_action_labels_the_list_that_it_names_however_late():
    late = acted("e", "a", ts_ms=30 * MIN + 1, impression="1")
    assert found(shown("1", "a"), late)[0] == {(0, 0): 1}
    got, dropped = found(shown("1", "a"), late, closed_at_ms=10**12)
    assert got == {}
    assert dropped == {join.NO_LABEL: 1, join.NO_LIST: 1}


def test_the_highest_of_several_grades_holds():
    got, _ = found(
        shown("1", "a"),
        acted("e", "a", impression="1"),
        acted("f", "a", name="buy", impression="1"),
        acted("g", "a", impression="1"),
    )
    assert got == {(0, 0): 3}


def test_an_action_without_grade_or_against_the_item_is_no_label():
    got, dropped = found(
        shown("1", "a", "b"), acted("e", "a", name="view", impression="1"), acted("f", "b", name="hide")
    )
    assert got == {}
    assert dropped == {join.NO_LABEL: 1}


def test_an_action_from_before_its_list_never_labels_it():
    assert found(shown("1", "a", ts_ms=10), acted("e", "a", ts_ms=9, impression="1"))[0] == {}


def test_an_action_that_the_log_holds_before_the_list_never_labels_it():
    assert found(acted("e", "a", ts_ms=10, impression="1"), shown("1", "a", ts_ms=10))[0] == {}


def test_a_list_waits_until_the_longest_horizon_is_over():
    week = 7 * 24 * 60 * MIN
    records = [shown("1", "a"), shown("2", "a", ts_ms=5), acted("e", "a", impression="1", ts_ms=6)]
    assert found(*records, closed_at_ms=week) == ({}, {join.WAITING: 2})
    got, dropped = found(*records, closed_at_ms=week + 1)
    assert got == {(0, 0): 1}
    assert dropped == {join.WAITING: 1}


def test_the_horizon_runs_from_when_the_list_was_shown():
    records = [shown("1", "a"), acted("e", "a", impression="1", ts_ms=40 * MIN)]
    got, _ = found(*records, closed_at_ms=10**12, shown_ms=np.array([10 * MIN]))
    assert got == {(0, 0): 1}


def test_repeats_of_lists_and_events_are_counted_once():
    click = acted("e", "a", impression="1")
    got, dropped = found(shown("1", "a"), shown("1", "a"), click, click)
    assert got == {(0, 0): 1}
    assert dropped == {join.REPEATED_LISTS: 1, join.REPEATED_ACTIONS: 1}


def test_a_log_without_lists_or_actions_has_no_labels():
    assert found() == ({}, {})
    assert found(shown("1", "a")) == ({}, {join.NO_LABEL: 1})
    assert found(acted("e", "a")) == ({}, {join.NO_LIST: 1})


# --- the rules once more, as plain loops


def expected(records, *, closed_at_ms):
    graded = {action.name: action for action in DOMAIN.actions if action.grade and not action.negative}
    longest = max(action.horizon_ms for action in graded.values())
    order = sorted(range(len(records)), key=lambda at: (records[at].ts_ms, at))
    lists, repeated, events, kept = {}, 0, [], {}
    numbers = [at for at, record in enumerate(records) if isinstance(record, Impression)]
    for at in order:
        record = records[at]
        if isinstance(record, Impression):
            repeated += record.impression_id in kept
            if kept.setdefault(record.impression_id, at) == at:
                lists[at] = record
        elif record.action in graded:
            events.append((at, record))
    actions, seen = [], set()
    for at, event in events:
        if (event.user_id, event.event_id) not in seen:
            actions.append((at, event))
        seen.add((event.user_id, event.event_id))
    named = any(event.impression_id for _, event in events)
    got, none, waiting = {}, 0, {at for at, each in lists.items() if closed(each, longest, closed_at_ms)}
    for at, event in actions:
        if named:
            fitting = [place for place in lists if records[place].impression_id == event.impression_id]
        else:
            fitting = [
                place
                for place in order
                if place in lists
                and records[place].user_id == event.user_id
                and event.item_id in records[place].item_ids
                and records[place].ts_ms <= event.ts_ms
            ][-1:]
        bounded = closed_at_ms is not None or not named
        hit = [
            (place, index)
            for place in fitting
            for index, item in enumerate(records[place].item_ids)
            if item == event.item_id
            and place < at
            and records[place].ts_ms <= event.ts_ms
            and (not bounded or event.ts_ms - records[place].ts_ms <= graded[event.action].horizon_ms)
        ]
        none += not hit
        for place, index in hit:
            if place not in waiting:
                key = numbers.index(place), index
                got[key] = max(got.get(key, 0), graded[event.action].grade)
    labelled = {query for query, _ in got}
    counts = {
        join.NO_LABEL: len(lists) - len(waiting) - len(labelled),
        join.WAITING: len(waiting),
        join.REPEATED_LISTS: repeated,
        join.REPEATED_ACTIONS: len(events) - len(actions),
        join.NO_LIST: none,
    }
    return got, {reason: count for reason, count in counts.items() if count}


def closed(each, longest, closed_at_ms):
    return closed_at_ms is not None and each.ts_ms + longest >= closed_at_ms


times = st.sampled_from([0, 1, 2, 30 * MIN, 30 * MIN + 1, 7 * 24 * 60 * MIN, 7 * 24 * 60 * MIN + 2])
ids = st.sampled_from("12345")
users = st.sampled_from("uv")
items = st.sampled_from("abc")
impressions = st.builds(Impression, ids, users, st.lists(items, min_size=1, max_size=4), times)
names = st.sampled_from([action.name for action in DOMAIN.actions])


def actions(answering):
    return st.builds(UserAction, st.sampled_from("efgh"), users, items, names, times, impression_id=answering)


logs = st.one_of(
    st.lists(st.one_of(impressions, actions(st.none())), max_size=14),
    st.lists(st.one_of(impressions, actions(st.one_of(st.none(), ids))), max_size=14),
)


@given(logs, st.one_of(st.none(), times))
@settings(max_examples=80)
def test_labels_are_those_of_the_rules_read_plainly(records, closed_at_ms):
    assert found(*records, closed_at_ms=closed_at_ms) == expected(records, closed_at_ms=closed_at_ms)


@pytest.mark.data
@pytest.mark.parametrize(("name", "lists", "labelled"), [("ranklens", 9_800, 8_773), ("trivago", 6_722, 6_721)])
def test_a_known_log_has_its_known_labels(name, lists, labelled):
    chosen = settings_for(dataset(name), Settings())
    columns = read_columns(Source(dataset(name), chosen), chosen.domain)
    assert len(columns.lists) == lists
    assert len(np.unique(labels(columns.lists, columns.actions, chosen.domain).query)) == labelled
