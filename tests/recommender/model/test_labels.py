import numpy as np

from features.domain import Action, Domain
from features.ids import hash64
from features.schema import IMPRESSIONS, USER_ACTIONS, Impression, UserAction
from recommender.model.labels import LOST, training_rows
from recommender.model.log_columns import read_columns
from recommender.model.plan import LEFT, plan
from recommender.model.training import train
from recommender.model.training_settings import TrainingSettings
from recommender.replay import Replayer

START_MS = 1_700_000_000_000
DOMAIN = Domain(actions=(Action("view", grade=0), Action("click"), Action("buy", weight=3.0, grade=3)))
NEXT = Domain(actions=(Action("view"), Action("hide", weight=0, grade=0, negative=True)))


def shown(impression_id, *items, user="u", seconds=0):
    return IMPRESSIONS, Impression(impression_id, user, list(items), START_MS + seconds * 1000)


def act(event_id, item, action="click", *, user="u", seconds=1, impression=None, session=None):
    ts_ms = START_MS + seconds * 1000
    return USER_ACTIONS, UserAction(event_id, user, item, action, ts_ms, session_id=session, impression_id=impression)


def lists(*log):
    return training_rows(log, Replayer(DOMAIN), planned(log, DOMAIN, "lists"))


def nexts(log, replayer=None, **settings):
    return training_rows(log, replayer or Replayer(NEXT), planned(log, NEXT, "next"), **settings)


def planned(log, domain, kind, **settings):
    return plan(read_columns(log, domain), domain, kind, **settings)


def graded(rows):
    """{query: {item hash: grade}} of the labelled items."""
    ends = np.cumsum(rows.groups)
    return {
        query_id: {
            int(item): int(grade)
            for item, grade in zip(rows.items[end - size : end], rows.grades[end - size : end], strict=True)
            if grade
        }
        for query_id, size, end in zip(rows.query_ids, rows.groups, ends, strict=True)
    }


def test_a_list_is_labelled_by_the_best_grade_of_its_items():
    rows = lists(
        shown("m", "a", "b"), act("1", "a", impression="m"), act("2", "a", "buy", impression="m"),
        act("3", "b", "view", impression="m"),
    )  # fmt: skip
    assert graded(rows) == {"m": {hash64("a"): 3}}
    assert rows.groups.tolist() == [2]
    assert rows.ts_ms.tolist() == [START_MS]
    assert rows.users.tolist() == [hash64("u")]


def test_lists_without_a_label_are_no_questions():
    rows = lists(shown("m", "a"), act("1", "a", "view", impression="m"))
    assert len(rows) == 0
    assert rows.matrix.shape[1] > 0


def test_the_rows_of_a_list_are_built_before_it_counts_as_shown():
    rows = lists(shown("m", "a"), act("1", "a", impression="m"))
    names = Replayer(DOMAIN).catalog.names
    assert rows.matrix[0, names.index("item_impression_count_total")] == 0
    assert rows.matrix[0, names.index("item_click_count_total")] == 0


def test_a_repeated_impression_asks_once():
    rows = lists(shown("m", "a", "b"), shown("m", "a", "b"), act("1", "a", impression="m"))
    assert len(rows) == 1


def test_questions_that_are_not_asked_still_count_as_events():
    log = [
        shown("m1", "a"),
        act("1", "a", impression="m1"),
        shown("m2", "a", seconds=5),
        act("2", "a", impression="m2", seconds=6),
    ]
    asked = planned(log, DOMAIN, "lists")
    for part in (asked.newest(1), asked.after(START_MS)):
        rows = training_rows(log, Replayer(DOMAIN), part)
        assert rows.query_ids == ("m2",)
        assert rows.matrix[0, Replayer(DOMAIN).catalog.names.index("item_click_count_total")] == 1


def walks(users, items):
    """Every user views items 0, 1, 2 ... in order."""
    return [
        act(f"e{user}-{step}", f"i{step}", "view", user=f"u{user}", seconds=user * 100 + step)
        for user in range(users)
        for step in range(items)
    ]


def test_without_impressions_the_next_item_that_the_sources_found_is_the_label():
    rows = nexts(walks(6, 4))
    labels = graded(rows)
    assert labels["e5-0"] == {hash64("i1"): 1}
    assert labels["e5-2"] == {hash64("i3"): 1}
    assert "e5-3" not in labels
    assert all(len(items) == 1 for items in labels.values())
    assert (np.diff(rows.ts_ms) >= 0).all()


def test_a_next_item_that_nobody_found_is_counted_as_lost_never_injected():
    rows = nexts(walks(1, 4))
    assert len(rows) == 0
    assert rows.dropped == {LOST: 3, LEFT: 1}


def test_another_session_the_same_item_and_a_negative_action_are_no_next_item():
    before = [*walks(3, 3)]
    later = [
        act("a", "i0", "view", user="me", seconds=1000, session="s1"),
        act("b", "i0", "view", user="me", seconds=1001, session="s1"),
        act("c", "i1", "hide", user="me", seconds=1002, session="s1"),
        act("d", "i1", "view", user="me", seconds=1003, session="s2"),
        act("e", "i2", "view", user="me", seconds=1004, session="s2"),
    ]
    labels = graded(nexts([*before, *later]))
    assert {query: found for query, found in labels.items() if query in "abcde"} == {"d": {hash64("i2"): 1}}


def test_too_many_negatives_are_thinned_without_regard_to_their_rank():
    rows = nexts(walks(6, 8), negatives_max=2)
    assert rows.groups.max() <= 3
    assert len(graded(rows)) == len(rows)


def test_a_replayed_log_trains_a_ranker_that_serves(tmp_path):
    replayer = Replayer(NEXT)
    rows = nexts(walks(30, 6), replayer)
    trained = train(
        rows, replayer.catalog, directory=tmp_path, version="v1", settings=TrainingSettings(trees_max=10, search=0)
    )
    assert trained.manifest.metrics["mrr"] > 0.5
    assert trained.manifest.window.queries == len(rows)


def test_the_order_in_which_lists_were_shown_changes_no_row():
    random = np.random.default_rng(4)
    domain = Domain(actions=(Action("click"),), item_context=("price",))
    plain, turned = [], []
    for number in range(30):
        items = [f"i{item}" for item in random.permutation(12)[:6]]
        prices = random.uniform(1, 9, 6).round(2).tolist()
        order = random.permutation(6)
        for log, places in ((plain, range(6)), (turned, order)):
            record = Impression(
                f"m{number}",
                f"u{number % 4}",
                [items[place] for place in places],
                START_MS + number * 9000,
                item_context={"price": [prices[place] for place in places]},
            )
            chosen = act(f"e{number}", items[number % 6], user=f"u{number % 4}", seconds=number * 9 + 1)
            log += [(IMPRESSIONS, record), chosen]
    mine, theirs = (
        training_rows(log, Replayer(domain), planned(log, domain, "lists")).scattered() for log in (plain, turned)
    )
    assert np.array_equal(mine.matrix, theirs.matrix, equal_nan=True)
    assert np.array_equal(mine.grades, theirs.grades)
    assert mine.items.tolist() == theirs.items.tolist()
