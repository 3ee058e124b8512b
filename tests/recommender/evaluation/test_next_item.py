import msgspec
import numpy as np
import pytest

from features.ids import hash64
from recommender.evaluation.next_item import CANDIDATES, Log, OwnPast, frozen, rolling
from recommender.evaluation.rerank import RANKED
from recommender.model.log_columns import read_columns
from recommender.model.plan import plan, positive
from recommender.replay import Replayer
from tests.recommender.evaluation.logs import DOMAIN, START_MS, ByColumn, walks


def opened(log, kind="next", **settings):
    columns = read_columns(log, DOMAIN)
    return Log(log, columns, plan(columns, DOMAIN, kind, **settings))


def setting(column="source_co_visited"):
    replayer = Replayer(DOMAIN, filters=())
    seen = []

    def fit(rows, held_out):
        seen.append((rows, held_out))
        return ByColumn(replayer.catalog, column)

    return replayer, fit, seen


def named(judgement):
    return {system.name: system for system in judgement.systems}


def test_frozen_only_the_sessions_own_events_are_known():
    replayer, fit, seen = setting()
    train = opened(walks(30))
    for _ in frozen(train, opened(walks(1, first_user=30)), replayer, fit=fit, questions_max=100).systems:
        pass
    learned = Replayer(DOMAIN, filters=())
    for entry in walks(30):
        learned.feed(*entry)
    assert replayer.digest() == learned.digest()
    assert len(seen) == 1


def test_every_event_of_a_session_but_the_first_is_predicted():
    replayer, fit, _ = setting()
    found = frozen(opened(walks(30)), opened(walks(3, 5, first_user=30)), replayer, fit=fit, questions_max=100)
    assert found.users.tolist() == [hash64(f"u{user}") for user in (30, 31, 32) for _ in range(4)]
    ranked = named(found)[RANKED].values
    assert ranked["hr@20"].mean() == 1.0
    assert ranked["mrr@20"].mean() > 0.4


def test_frozen_and_rolling_differ_only_by_what_happens_in_the_test():
    """Items that only test sessions touch can be found only when the state goes on."""
    train, later = walks(10), walks(12, first_user=10, items=100)
    replayer, fit, _ = setting()
    still = named(frozen(opened(train), opened(later), replayer, fit=fit, questions_max=100))[CANDIDATES]
    replayer, fit, _ = setting()
    border = len(opened(train).plan)
    on = named(rolling(opened([*train, *later]), replayer, border=border, fit=fit, questions_max=100))[CANDIDATES]
    assert len(still.values["named"]) == len(on.values["named"])
    assert still.values["named"].sum() < on.values["named"].sum()


def test_a_validation_log_reaches_the_fit_and_is_not_judged():
    replayer, fit, seen = setting()
    valid, test = opened(walks(2, first_user=40)), opened(walks(1, first_user=50))
    found = frozen(opened(walks(30)), test, replayer, fit=fit, questions_max=100, valid=valid)
    ((_, held_out),) = seen
    assert len(held_out) == 8
    assert len(found.users) == 4


def test_of_a_validation_log_only_the_newest_questions_are_held():
    replayer, fit, seen = setting()
    valid, test = opened(walks(4, first_user=40)), opened(walks(1, first_user=50))
    frozen(opened(walks(30)), test, replayer, fit=fit, questions_max=5, valid=valid)
    ((rows, held_out),) = seen
    assert (len(rows), len(held_out)) == (5, 5)


def test_the_item_just_acted_on_is_never_shown():
    replayer, fit, _ = setting()
    log = opened(walks(20))
    found = rolling(log, replayer, border=60, fit=fit, questions_max=100)
    current = {int(at): hash64(record.item_id) for at, (_, record) in enumerate(log.records)}
    for system in found.systems:
        for at, shown in zip(log.plan.at[60:].tolist(), system.shown, strict=True):
            assert current[at] not in shown.tolist()


def test_a_basket_is_asked_before_its_first_item_and_judged_by_all_of_them():
    replayer, fit, _ = setting("source_history")
    log = opened([entry for user in range(6) for entry in walks(1, 4, first_user=user)], "baskets")
    found = rolling(log, replayer, border=4, fit=fit, questions_max=100)
    assert set(found.systems[0].values) == {"hr@20", "recall@20", "ndcg@20", "named"}
    assert len(found.users) == 2
    popular = named(found)["popularity"].values["recall@20"]
    assert popular.tolist() == [0.75, 1.0]  # one of the first basket's four items was never bought before


def test_where_only_new_items_count_none_of_the_users_own_is_shown():
    replayer, fit, _ = setting()
    log = opened(walks(20, 10), new_to_user=True)  # the circle has eight items: the walk comes back to its first ones
    found = rolling(log, replayer, border=100, fit=fit, questions_max=200, new_to_user=True)
    yes, _ = positive(log.columns.actions, DOMAIN, None)
    past = OwnPast(yes)
    for question, shown in enumerate(named(found)[RANKED].shown, start=100):
        own = past.before(int(log.plan.users[question]), int(log.plan.at[question]) + 1)
        assert not np.isin(shown, own).any()


def test_a_log_without_a_session_to_test_is_an_error():
    replayer, fit, _ = setting()
    with pytest.raises(ValueError, match="no question to test"):
        rolling(opened(walks(1, 1)), replayer, border=0, fit=fit, questions_max=10)


def test_of_actions_at_one_moment_the_one_that_asks_is_the_one_left_out():
    """To and fro between two items in one millisecond: the log's order is that of hashes, not of what happened."""
    replayer, fit, _ = setting()
    log = [(topic, msgspec.structs.replace(record, ts_ms=START_MS)) for topic, record in walks(1, 8, items=2)]
    other = [
        (topic, msgspec.structs.replace(record, ts_ms=START_MS - 1)) for topic, record in walks(20, 8, first_user=1)
    ]
    opened_log = opened([*other, *log])
    border = len(opened(other).plan)
    found = rolling(opened_log, replayer, border=border, fit=fit, questions_max=10)
    assert named(found)[CANDIDATES].values["named"].tolist() == [1.0] * 7
