"""The path over real state in memory: a small log is replayed, then questions are asked."""

from copy import copy

import msgspec
import numpy as np
import pytest

from features.domain import Action, Attribute, Domain
from features.ids import hash64
from features.schema import ITEMS, USER_ACTIONS, Item, UserAction
from features.store.port import StoreAway
from recommender import recommend
from recommender.candidates import SOURCES
from recommender.effort import CACHED, CASCADED, FULL, PLAIN, POPULAR, RUNGS
from recommender.model.served_lists import LogEntry, acted, newest_served, shown
from recommender.model.served_rows import labelled, stacked
from recommender.replay import Replayer
from recommender.served import pack, unpack

MINUTE_MS = 60_000
START_MS = 1_700_000_000_000
DOMAIN = Domain(
    actions=(Action("view"), Action("buy", weight=3.0, purchase=True, grade=2)),
    attributes=(Attribute("genre", "set", candidates=True), Attribute("price", "number")),
)


class ByPrice:
    """Scores the `price` column: a ranker whose order is plain to see."""

    version = "v7"
    features_hash = "f"
    cascade_trees = 0

    def __init__(self, names):
        self._column = names.index("price")

    def score(self, matrix, *, shown=0):
        return matrix[:, self._column].astype(np.float64)

    def hurried(self, share):
        hurried = copy(self)
        hurried.cascade_trees = int(100 * share)
        return hurried


def shop(**settings):
    """Twelve items with price = number; users 1 to 6 walk over neighbouring items; item 11 is withdrawn."""
    replayer = Replayer(DOMAIN, **settings)
    for item in range(12):
        attributes = {"genre": ["even" if item % 2 == 0 else "odd"], "price": float(item)}
        replayer.feed(ITEMS, Item(f"i{item}", START_MS, available=item != 11, attributes=attributes))
    events = [(user, (user + step) % 12, step) for step in range(6) for user in range(1, 7)]
    for number, (user, item, step) in enumerate(events):
        replayer.feed(
            USER_ACTIONS, UserAction(f"e{number}", f"u{user}", f"i{item}", "view", START_MS + step * MINUTE_MS)
        )
    replayer.settle()
    return replayer


NOW_MS = START_MS + 10 * MINUTE_MS


@pytest.fixture(scope="module")
def replayer():
    return shop()


def with_ranker(**settings):
    replayer = shop(**settings)
    replayer.recommender.ranker_of = lambda: ByPrice(replayer.catalog.names)
    return replayer


def ask_at(replayer, effort, user="u1", **given):
    (answer,) = replayer.recommender.recommend([replayer.query("q1", user, NOW_MS, **given)], effort=effort)
    return answer


def ask(replayer, user="u1", **given):
    return replayer.recommender.recommend([replayer.query("q1", user, NOW_MS, **given)])[0]


def test_without_a_model_the_sources_rank_and_the_level_says_so(replayer):
    answer = ask(replayer)
    assert (answer.level, answer.cause, answer.model_version) == ("partial", "no model", "none")
    assert len(answer.item_ids) > 3
    assert (np.diff(answer.scores) <= 0).all()


def test_with_a_model_its_scores_rank():
    answer = ask(with_ranker())
    assert (answer.level, answer.cause, answer.model_version) == ("full", None, "v7")
    assert answer.item_ids == sorted(answer.item_ids, key=lambda item_id: -int(item_id[1:]))
    assert answer.scores.tolist() == [float(item_id[1:]) for item_id in answer.item_ids]


def test_the_rows_that_were_scored_come_with_the_answer():
    replayer = with_ranker()
    answer = ask(replayer, k=3)
    assert answer.matrix.shape == (3, len(replayer.catalog.names))
    assert answer.matrix.dtype == np.float32
    assert ByPrice(replayer.catalog.names).score(answer.matrix).tolist() == answer.scores.tolist()
    assert answer.features_hash == replayer.catalog.fingerprint


def test_an_unavailable_item_is_never_found_while_the_filter_holds():
    assert "i11" not in ask(shop(), user="u5", k=20).item_ids
    assert "i11" in ask(shop(filters=()), user="u5", k=20).item_ids


def test_the_item_just_acted_on_is_never_found(replayer):
    assert "i6" not in ask(replayer, user="u1", k=20).item_ids
    assert "i5" in ask(replayer, user="u1", k=20).item_ids


def test_a_given_list_comes_back_whole_sorted_and_unfiltered():
    replayer = with_ranker()
    given = ["i3", "i11", "nobody-knows", "i3", "i6"]
    answer = ask(replayer, given=given, k=len(given))
    assert sorted(answer.item_ids) == sorted(given)
    assert answer.item_ids[:4] == ["i11", "i6", "i3", "i3"]
    assert set(answer.sources) == {"given"}
    assert answer.level == "full"
    assert ask(replayer, given=given, k=2).item_ids == ["i11", "i6"]


def test_a_source_gives_a_given_item_the_score_that_a_found_one_has(replayer):
    recommender = replayer.recommender
    query = replayer.query("q1", "u1", NOW_MS)
    found = recommender.rows([query])[0].candidates
    ids = recommender.view.ids(found.items)
    asked = recommender.rows([replayer.query("q1", "u1", NOW_MS, given=ids)])[0].candidates
    for name in (source.name for source in SOURCES):
        assert np.array_equal(found.scores[name], asked.scores[name]), name


def test_a_new_user_gets_what_is_popular(replayer):
    answer = ask(replayer, user="nobody")
    assert answer.level == "popular"
    assert answer.cause == "no model; nothing known of the user"
    assert set(answer.sources) <= {"trending", "new"}
    assert answer.item_ids


class Broken:
    name = "broken"

    def __init__(self, error):
        self._error = error

    def find(self, queries, view):
        raise self._error


def test_a_source_that_fails_is_left_out_and_named():
    answer = ask(shop(sources=(Broken(ZeroDivisionError()), *SOURCES)))
    assert answer.level == "partial"
    assert answer.cause == "broken failed: ZeroDivisionError; no model"
    assert not answer.is_whole
    assert answer.item_ids


def test_a_store_that_is_away_is_not_a_failing_source():
    with pytest.raises(StoreAway):
        ask(shop(sources=(Broken(StoreAway("timeout")), *SOURCES)))


def test_nothing_at_all_is_an_answer_too():
    answer = ask(Replayer(DOMAIN), user="nobody")
    assert (answer.item_ids, answer.level) == ([], "popular")


def test_a_micro_batch_answers_each_query_as_if_it_were_alone(replayer):
    queries = [replayer.query(f"q{user}", f"u{user}", NOW_MS) for user in range(1, 7)]
    queries.append(replayer.query("given", "u2", NOW_MS, given=["i4", "i5"]))
    together = replayer.recommender.recommend(queries)
    for query, answer in zip(queries, together, strict=True):
        alone = replayer.recommender.recommend([query])[0]
        assert alone.item_ids == answer.item_ids
        assert np.array_equal(alone.matrix, answer.matrix, equal_nan=True)


def test_an_item_whose_id_nobody_knows_is_not_shown(replayer, monkeypatch):
    hidden = hash64(ask(replayer).item_ids[0])
    view = replayer.recommender.view
    ids = view.ids
    monkeypatch.setattr(
        view,
        "ids",
        lambda hashes: [None if key == hidden else i for key, i in zip(hashes.tolist(), ids(hashes), strict=True)],
    )
    answer = ask(replayer, k=3)
    assert len(answer.item_ids) == len(answer.scores) == 3
    assert None not in answer.item_ids


def test_equal_questions_get_equal_answers_and_the_order_of_ties_is_the_questions_own():
    class Flat(ByPrice):
        def score(self, matrix, *, shown=0):
            return np.zeros(len(matrix))

    replayer = shop()
    replayer.recommender.ranker_of = lambda: Flat(replayer.catalog.names)
    given = [f"i{number}" for number in range(10)]
    orders = [
        replayer.recommender.recommend([replayer.query(query_id, "u1", NOW_MS, given=items)])[0].item_ids
        for query_id, items in (("a", given), ("a", given[::-1]), ("b", given))
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_ranker_is_one_object_for_the_whole_micro_batch():
    replayer = shop()
    served = iter([ByPrice(replayer.catalog.names), None])
    replayer.recommender.ranker_of = lambda: next(served)
    queries = [replayer.query(f"q{user}", f"u{user}", NOW_MS) for user in range(1, 5)]
    assert {answer.model_version for answer in replayer.recommender.recommend(queries)} == {"v7"}


class Spy(ByPrice):
    """Keeps the bytes of every row it was handed."""

    def __init__(self, names):
        super().__init__(names)
        self.matrices = []

    def score(self, matrix, *, shown=0):
        self.matrices.append(matrix.copy())
        return super().score(matrix)


def spied(**settings):
    replayer = shop(**settings)
    spy = Spy(replayer.catalog.names)
    replayer.recommender.ranker_of = lambda: spy
    replayer.recommender.sample_rate = 1.0
    return replayer, spy


@pytest.mark.parametrize("given", [None, [f"i{n}" for n in (3, 11, 7, 0, 3)] + ["nobody-knows"]])
def test_the_bytes_that_were_scored_are_the_bytes_on_record_for_every_row(given):
    replayer, spy = spied()
    answer = ask(replayer, k=3, **({"given": given} if given else {}))
    served, scores, logged = unpack(pack(answer, user_id="u1", ts_ms=NOW_MS, event_age_ms=0, backlog=False))
    (scored,) = spy.matrices
    price = replayer.catalog.names.index("price")
    assert sorted(row.tobytes() for row in logged) == sorted(row.tobytes() for row in scored)
    assert scores.tobytes() == logged[:, price].astype(np.float64).tobytes()
    assert served.item_ids[: served.shown] == answer.item_ids
    assert (served.shown, served.sample_rate) == (3, 1.0)
    if given:
        assert sorted(served.item_ids) == sorted(given)


def test_the_bytes_that_were_scored_are_the_bytes_trained_on_for_every_row():
    replayer, spy = spied()
    questions = [replayer.query(f"q{n}", f"u{n}", NOW_MS + n, k=20) for n in range(1, 7)]
    questions.append(replayer.query("given", "u1", NOW_MS + 7, given=["i3", "i9", "nobody-knows"], k=3))
    log, actions = [], []
    for offset, query in enumerate(questions):
        (answer,) = replayer.recommender.recommend([query])
        raw = pack(answer, user_id=query.user_id, ts_ms=query.now_ms, event_age_ms=0, backlog=False)
        log.append(LogEntry(0, offset, query.now_ms, raw))
        chosen = UserAction(f"a{offset}", query.user_id, answer.item_ids[-1], "view", query.now_ms + 1000)
        actions.append((chosen.ts_ms, msgspec.structs.replace(chosen, impression_id=answer.query_id)))
    actions.append((NOW_MS * 2, UserAction("end", "nobody", "i1", "view", NOW_MS * 2)))
    lists = newest_served(log, features_hash=replayer.catalog.fingerprint, rows_max=1000)
    choice = labelled(lists, shown(lists, ()), acted(actions, DOMAIN, actions_max=100), DOMAIN, lists_max=100)
    trained = stacked(choice, log, columns=len(replayer.catalog.names))
    assert trained.query_ids == tuple(query.query_id for query in questions)
    assert sum(trained.groups) == sum(len(matrix) for matrix in spy.matrices)
    for at, scored in enumerate(spy.matrices):
        learnt = trained.slice(at, at + 1).matrix
        assert sorted(row.tobytes() for row in learnt) == sorted(row.tobytes() for row in scored)


def test_the_sample_is_the_same_when_the_question_is_asked_again_and_holds_nothing_shown():
    replayer, _ = spied()
    replayer.recommender.sample_rate = 0.5
    one, again = ask(replayer, k=2), ask(replayer, k=2)
    assert one.sample.item_ids == again.sample.item_ids
    assert one.sample.item_ids
    assert not set(one.sample.item_ids) & set(one.item_ids)
    assert ask(with_ranker(), k=2).sample.item_ids == []


class Explained(ByPrice):
    """Says that the price is the whole score."""

    factor = 1.0

    def contributions(self, matrix):
        parts = np.zeros((len(matrix), matrix.shape[1] + 1))
        parts[:, self._column] = matrix[:, self._column] * self.factor
        return parts


def with_reasons(ranker_kind=Explained, **rest):
    replayer = shop()
    made = ranker_kind(replayer.catalog.names)
    for name, value in rest.items():
        setattr(made, name, value)
    replayer.recommender.ranker_of = lambda: made
    replayer.recommender.reasons = 2
    return replayer


def test_each_shown_item_carries_its_reasons_and_they_add_up_to_its_score():
    answer = ask(with_reasons(), k=3)
    assert answer.cause is None
    for item_id, score, explained in zip(answer.item_ids, answer.scores, answer.explained, strict=True):
        assert [reason.text for reason in explained.reasons] == [f"its price is {item_id[1:]}"]
        assert explained.reasons[0].contribution + explained.rest == score


def test_of_a_long_list_only_the_head_is_explained(monkeypatch):
    monkeypatch.setattr(recommend, "EXPLAINED_MAX", 2)
    answer = ask(with_reasons(), k=3)
    assert (answer.level, answer.cause) == ("full", None)
    assert [each is None for each in answer.explained] == [False, False, True]


def test_reasons_that_do_not_add_up_are_left_out_and_the_cause_says_so():
    answer = ask(with_reasons(factor=0.9), k=3)
    assert (answer.level, answer.cause) == ("full", "no reasons: contributions that do not add up")
    assert answer.explained == [None] * 3
    assert len(answer.item_ids) == 3


def test_reasons_that_fail_leave_the_answer_whole():
    answer = ask(with_reasons(ByPrice), k=3)
    assert (answer.level, answer.cause, answer.explained) == ("full", "no reasons: AttributeError", ())
    assert answer.item_ids == ask(with_ranker(), k=3).item_ids


def test_at_plain_effort_there_are_no_reasons_and_no_look_of_the_shadow():
    replayer = with_reasons()
    replayer.recommender.shadow_of = replayer.recommender.ranker_of
    (answer,) = replayer.recommender.recommend([replayer.query("q1", "u1", NOW_MS)], effort=PLAIN)
    assert (answer.level, answer.cause) == ("full", "no reasons: busy")
    assert (answer.explained, answer.shadow) == ((), None)


def test_a_shadow_or_reasons_are_no_part_of_the_level_but_a_ranking_in_a_hurry_is():
    replayer = with_ranker()
    levels = {effort.name: ask_at(replayer, effort) for effort in RUNGS}
    assert {name: (answer.level, answer.cause) for name, answer in levels.items()} == {
        "full": ("full", None),
        "plain": ("full", None),
        "cascaded": ("partial", "overload: harder cascade"),
        "cached": ("partial", "overload: harder cascade, cached features, no session_neighbours"),
        "popular": ("popular", "overload: popular items only"),
    }


def test_a_hurried_answer_scores_fewer_candidates_by_a_hurried_model():
    replayer = with_ranker(candidates_max=9)
    replayer.recommender.sample_rate = 1.0
    full, hurried = (ask_at(replayer, effort, k=2) for effort in (FULL, CASCADED))
    assert (full.cascade_trees, hurried.cascade_trees) == (0, 25)
    assert len(hurried.sample.item_ids) < len(full.sample.item_ids)
    assert hurried.scores.tolist() == [float(item_id[1:]) for item_id in hurried.item_ids]


def test_a_source_that_an_effort_leaves_out_is_not_asked_and_the_others_propose_in_its_place(monkeypatch):
    replayer = with_ranker()
    asked = []
    for source in SOURCES:
        find = type(source).find
        spied = lambda self, *args, find=find: asked.append(self.name) or find(self, *args)  # noqa: E731
        monkeypatch.setattr(type(source), "find", spied)
    answer = ask_at(replayer, CACHED, k=3)
    assert CACHED.without <= {source.name for source in SOURCES}
    assert asked == [source.name for source in SOURCES if source.name not in CACHED.without]
    assert len(answer.item_ids) == 3
    assert not set(answer.sources) & CACHED.without
    assert not answer.is_whole
    assert ask_at(replayer, CASCADED).is_whole


def test_a_popular_answer_is_what_everybody_gets_but_for_the_item_the_user_is_on():
    replayer = with_ranker()
    one, other = (ask_at(replayer, POPULAR, user=user, k=20) for user in ("u1", "u2"))
    assert (one.model_version, one.matrix.size, one.sample.item_ids) == ("none", 0, [])
    assert set(one.sources) <= {"trending", "new"}
    assert set(one.item_ids) ^ set(other.item_ids) == {"i6", "i7"}  # each one's last
    assert "i11" not in one.item_ids
    assert (np.diff(one.scores) <= 0).all()
    shared = [item_id for item_id in one.item_ids if item_id in other.item_ids]
    assert shared == [item_id for item_id in other.item_ids if item_id in one.item_ids]


def test_a_popular_answer_obeys_what_the_user_bought():
    replayer = shop(filters=("available", "bought"))
    replayer.feed(USER_ACTIONS, UserAction("b", "u1", "i2", "buy", START_MS + 7 * MINUTE_MS))
    replayer.settle()
    bought, free = (ask_at(replayer, POPULAR, user=user, k=20) for user in ("u1", "u2"))
    assert "i2" not in bought.item_ids
    assert "i2" in free.item_ids


def test_a_given_list_comes_back_whole_at_every_effort():
    replayer = with_ranker()
    given = ["i3", "i11", "nobody-knows", "i3", "i6"]
    for effort in RUNGS:
        answer = ask_at(replayer, effort, given=given, k=len(given))
        assert sorted(answer.item_ids) == sorted(given), effort.name
        assert set(answer.sources) == {"given"}
    popular = ask_at(replayer, POPULAR, given=given, k=len(given))
    assert dict(zip(popular.item_ids, popular.scores, strict=True))["nobody-knows"] == 0
    assert (np.diff(popular.scores) <= 0).all()
    assert popular.scores[0] > 0


def test_a_popular_answer_names_a_source_that_failed():
    class BrokenNew(Broken):
        name = "new"

    answer = ask_at(shop(sources=(SOURCES[4], BrokenNew(KeyError()))), POPULAR)
    assert answer.cause == "new failed: KeyError; overload: popular items only"
    assert answer.item_ids


def test_no_effort_leaves_a_question_without_an_answer_where_nothing_is_known():
    for effort in RUNGS:
        answer = ask_at(Replayer(DOMAIN), effort, user="nobody")
        assert (answer.item_ids, answer.level) == ([], "popular")


def test_where_the_sources_rank_nothing_is_said_of_reasons():
    replayer = shop()
    replayer.recommender.reasons = 2
    assert ask(replayer).cause == "no model"


class Reversed(ByPrice):
    """The shadow that likes the cheap."""

    version = "v8"

    def score(self, matrix, *, shown=0):
        return -super().score(matrix)


class Failing(ByPrice):
    version = "v9"

    def score(self, matrix, *, shown=0):
        raise MemoryError


def with_shadow(kind):
    replayer = with_ranker()
    shadow = kind(replayer.catalog.names)
    replayer.recommender.shadow_of = lambda: shadow
    return replayer


def test_a_shadow_scores_the_same_rows_and_shows_nothing():
    plain = ask(with_ranker(), k=2)
    same, other = ask(with_shadow(ByPrice), k=2), ask(with_shadow(Reversed), k=2)
    assert plain.shadow is None
    assert (same.shadow.version, same.shadow.overlap, same.shadow.correlation) == ("v7", 1.0, pytest.approx(1))
    assert (other.shadow.version, other.shadow.overlap, other.shadow.correlation) == ("v8", 0.0, pytest.approx(-1))
    assert other.item_ids == plain.item_ids
    assert other.scores.tolist() == plain.scores.tolist()
    assert other.model_version == "v7"


def test_a_shadow_that_fails_never_harms_the_answer():
    answer = ask(with_shadow(Failing), k=2)
    assert answer.shadow.failure == "MemoryError"
    assert (answer.level, answer.item_ids) == ("full", ask(with_ranker(), k=2).item_ids)


def test_a_shadow_looks_where_no_model_serves_too():
    replayer = with_shadow(ByPrice)
    replayer.recommender.ranker_of = lambda: None
    assert ask(replayer, k=2).shadow.version == "v7"
