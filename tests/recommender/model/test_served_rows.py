"""What was served, shown and acted on becomes training rows: the bytes that were served, and no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.domain import Action, Domain
from features.facts import Forget
from features.ids import hash64
from features.schema import Impression, UserAction
from recommender.model import join, served_lists, served_rows
from recommender.model.served_lists import LogEntry, acted, newest_served, shown
from recommender.model.served_rows import labelled, stacked
from recommender.recommend import Ranked, Sample
from recommender.served import pack, unpack

WIDTH = 5
MIN = 60_000
HASH = "f00d"
DOMAIN = Domain(actions=(Action("view", grade=0), Action("click"), Action("buy", grade=3, horizon_min=60)))
LATER_MS = 10 * 60 * MIN  # an action of then closes every horizon before


def record(
    rec_id="r", *items, user="u", ts_ms=1_000, logged_ms=None, offset=0, seed=0, sample=0, features=HASH, **rest
):
    """One record of the log: `items` were shown, `sample` others were scored."""
    noise = np.random.default_rng(seed)
    matrix = noise.normal(size=(len(items), WIDTH)).astype(np.float32)
    drawn = Sample(
        [f"s{n}" for n in range(sample)],
        np.zeros(sample),
        noise.normal(size=(sample, WIDTH)).astype(np.float32),
        np.linspace(0, 0.1, sample),
        0.2,
    )
    ranked = Ranked(
        rec_id,
        list(items),
        np.zeros(len(items)),
        ["new"] * len(items),
        "full",
        None,
        "v",
        features,
        matrix,
        sample=drawn,
    )
    clocks = {"event_age_ms": 5, "backlog": False, **rest}
    return LogEntry(
        0, offset, ts_ms + 10 if logged_ms is None else logged_ms, pack(ranked, user_id=user, ts_ms=ts_ms, **clocks)
    )


def seen(impression_id, rec_id, *items, user="u", ts_ms=1_100):
    return Impression(impression_id, user, list(items), ts_ms, rec_id=rec_id)


def click(event_id, item, *, impression=None, user="u", ts_ms=1_200, logged_ms=None, name="click"):
    return logged_ms or ts_ms, UserAction(event_id, user, item, name, ts_ms, impression_id=impression)


def rows_of(served, impressions=(), actions=(), *, lists_max=100, rows_max=1_000, after_ms=0):
    log = [entry._replace(offset=offset) for offset, entry in enumerate(served)]
    lists = newest_served(log, features_hash=HASH, rows_max=rows_max, after_ms=after_ms)
    done = acted([*actions, click("end", "none", ts_ms=LATER_MS, name="view")], DOMAIN, actions_max=1_000)
    choice = labelled(lists, shown(lists, impressions), done, DOMAIN, lists_max=lists_max)
    return stacked(choice, log, columns=WIDTH)


def test_only_what_the_impression_shows_is_trained_on_with_its_place():
    served = record("r", "a", "b", "c", sample=4)
    rows = rows_of([served], [seen("1", "r", "c", "x", "a")], [click("e", "a", impression="1")])
    assert rows.matrix.tobytes() == unpack(served.value).rows[[0, 2]].tobytes()
    assert rows.items.tolist() == [hash64("a"), hash64("c")]
    assert rows.grades.tolist() == [1, 0]
    assert rows.positions.tolist() == [2, 0]
    assert (rows.query_ids, rows.ts_ms.tolist(), rows.users.tolist()) == (("r",), [1_000], [hash64("u")])


def test_a_list_that_no_impression_shows_was_not_shown_where_the_front_end_sends_them():
    rows = rows_of([record("r", "a"), record("q", "a")], [seen("1", "r", "a")], [click("e", "a", impression="1")])
    assert rows.query_ids == ("r",)
    assert rows.dropped == {served_rows.NOT_SHOWN: 1}


def test_without_impressions_each_record_was_shown_whole_and_without_its_sample():
    served = record("r", "a", "b", sample=9)
    rows = rows_of([served], [seen("1", None, "a", "z")], [click("e", "b")])
    assert rows.matrix.tobytes() == unpack(served.value).rows[:2].tobytes()
    assert rows.grades.tolist() == [0, 1]


def test_an_action_may_name_the_recommendation_itself():
    assert rows_of([record("r", "a", "b")], (), [click("e", "b", impression="r")]).grades.tolist() == [0, 1]


def test_two_impressions_of_one_recommendation_are_one_list():
    rows = rows_of(
        [record("r", "a", "b", "c")],
        [seen("1", "r", "a"), seen("2", "r", "b"), seen("2", "r", "b")],
        [click("e", "a", impression="1"), click("f", "b", impression="2", name="buy")],
    )
    assert (rows.groups.tolist(), rows.grades.tolist()) == ([2], [1, 3])


def test_an_action_from_before_the_record_is_no_label_by_either_clock():
    before_it_happened = click("e", "a", ts_ms=999, logged_ms=2_000)
    before_the_log = click("f", "b", ts_ms=1_000, logged_ms=1_009)
    in_the_same_millisecond = click("g", "c", ts_ms=1_000, logged_ms=1_010)
    after = click("h", "d", ts_ms=1_000, logged_ms=1_011)
    rows = rows_of(
        [record("r", "a", "b", "c", "d")], (), [before_it_happened, before_the_log, in_the_same_millisecond, after]
    )
    assert rows.grades.tolist() == [0, 0, 0, 1]
    assert rows.dropped == {join.NO_LIST: 3}


def test_a_late_impression_and_a_late_action_count():
    rows = rows_of(
        [record("r", "a", "b")],
        [seen("1", "r", "a", "b", ts_ms=50 * MIN)],
        [click("e", "b", impression="1", ts_ms=79 * MIN, logged_ms=9 * 60 * MIN)],
    )
    assert rows.grades.tolist() == [0, 1]


def test_a_list_whose_longest_horizon_is_open_waits():
    open_ = record("q", "a", ts_ms=LATER_MS - 60 * MIN)
    served = [record("r", "a"), open_]
    rows = rows_of(served, (), [click("e", "a"), click("f", "a", ts_ms=LATER_MS - 59 * MIN)])
    assert rows.query_ids == ("r",)
    assert rows.dropped == {join.WAITING: 1}


def test_a_repeat_after_a_crash_is_counted_once_and_the_first_record_holds():
    first, again = record("r", "a", "b", seed=1), record("r", "b", "a", seed=2, logged_ms=5_000)
    for served in ([first, again], [again, first]):
        rows = rows_of(served, [seen("1", "r", "b")], [click("e", "b", impression="1")])
        assert rows.matrix.tobytes() == unpack(first.value).rows[[1]].tobytes()
        assert rows.dropped == {join.REPEATED_LISTS: 1}


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        ({"event_age_ms": 60_001}, served_lists.BACKLOG),
        ({"backlog": True}, served_lists.BACKLOG),
        ({"features": "beef"}, served_lists.OTHER_FEATURES),
    ],
)
def test_what_teaches_nothing_is_left_out_and_counted(unfit, why):
    served = [record("r", "a"), record("q", "a", **unfit)]
    rows = rows_of(
        served,
        [seen("1", "r", "a"), seen("2", "q", "a")],
        [click("e", "a", impression="2"), click("f", "a", impression="1")],
    )
    assert rows.query_ids == ("r",)
    assert rows.dropped == {why: 1, join.NO_LIST: 1}


def test_records_that_cannot_be_read_are_counted():
    broken = [LogEntry(0, 0, 5, None), LogEntry(0, 0, 5, b""), LogEntry(0, 0, 5, b"\x93\x01")]
    rows = rows_of([*broken, record("r", "a")], (), [click("e", "a")])
    assert rows.query_ids == ("r",)
    assert rows.dropped == {served_lists.UNREADABLE: 3}


def test_the_lists_of_a_forgotten_user_are_not_trained_on_but_later_ones_are():
    served = [record("r", "a"), record("q", "a", ts_ms=9_000), record("v", "a", user="v")]
    done = [click("e", "a"), (5_000, Forget("u", 5_000)), click("f", "a", ts_ms=9_100), click("g", "a", user="v")]
    rows = rows_of(served, (), done)
    assert sorted(rows.query_ids) == ["q", "v"]
    assert rows.dropped == {served_rows.FORGOTTEN: 1, join.NO_LIST: 1}


def test_the_newest_are_kept_whatever_the_order_of_reading():
    served = [record(f"r{n}", "a", "b", ts_ms=n * 1_000, seed=n) for n in (3, 1, 2)]
    done = [click(f"e{n}", "b", ts_ms=n * 1_000 + 500) for n in (1, 2, 3)]
    rows = rows_of(served, (), done, rows_max=4)
    assert rows.query_ids == ("r2", "r3")
    assert rows.dropped[served_lists.OLDER] == 1
    assert rows_of(served, (), done, lists_max=1).query_ids == ("r3",)
    assert rows_of(served, (), done, lists_max=1).dropped == {served_rows.BEYOND: 2}
    assert rows_of(served, (), done, after_ms=2_000).query_ids == ("r3",)


def test_the_newest_actions_are_kept_by_the_brokers_clock():
    done = acted([click(str(n), "a", ts_ms=n) for n in (5, 2, 4, 1, 3)], DOMAIN, actions_max=3)
    assert done.actions.at.tolist() == [3, 4, 5]
    assert done.newest_ts_ms == 5


def test_a_record_that_is_gone_at_the_second_reading_is_counted():
    log = [record("r", "a", offset=0), record("q", "a", user="v", offset=1)]
    lists = newest_served(log, features_hash=HASH, rows_max=100)
    done = acted(
        [click("e", "a"), click("f", "a", user="v"), click("g", "z", ts_ms=LATER_MS, name="view")],
        DOMAIN,
        actions_max=9,
    )
    choice = labelled(lists, shown(lists, ()), done, DOMAIN, lists_max=9)
    rows = stacked(choice, log[1:], columns=WIDTH)
    assert rows.query_ids == ("q",)
    assert rows.dropped == {served_rows.GONE: 1}


def test_an_empty_log_has_no_rows():
    rows = rows_of([])
    assert (len(rows), rows.matrix.shape, rows.dropped) == (0, (0, WIDTH), {})


@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True), st.booleans()), max_size=8),
    st.data(),
)
@settings(max_examples=40)
def test_every_row_that_is_trained_on_is_byte_for_byte_the_row_that_was_served(lists, data):
    served = [record(f"r{n}", *items, user=f"u{n}", seed=n, sample=2) for n, (items, _) in enumerate(lists)]
    impressions, done = [], []
    for n, (items, named) in enumerate(lists):
        visible = data.draw(st.lists(st.sampled_from(items), min_size=1, unique=True))
        impressions += [seen(f"i{n}", f"r{n}", *visible)] if named else []
        done.append(
            click(f"e{n}", data.draw(st.sampled_from(items)), user=f"u{n}", impression=f"i{n}" if named else None)
        )
    rows = rows_of(served, impressions, done)
    raw = {unpack(entry.value).served.rec_id: unpack(entry.value) for entry in served}
    first = 0
    for query_id, size in zip(rows.query_ids, rows.groups.tolist(), strict=True):
        ids = [hash64(item) for item in raw[query_id].served.item_ids]
        for row in range(first, first + size):
            assert rows.matrix[row].tobytes() == raw[query_id].rows[ids.index(int(rows.items[row]))].tobytes()
        first += size
    assert first == len(rows.matrix) == len(rows.grades) == len(rows.items) == len(rows.positions)
