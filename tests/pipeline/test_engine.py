"""A batch on the store thread, over the real state, view and path on the memory store."""

from dataclasses import replace

import msgspec
import pytest
from prometheus_client import REGISTRY

from features.catalog import catalog
from features.domain import Action, Domain
from features.ids import hash64
from features.schema import Reason, Recommendation, RecommendationRequest, UserAction
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part, StoreAway
from features.view import StateView
from pipeline.answers import Stamp, encoded, recommendation, served, without_answer
from pipeline.engine import Batch, Engine, OutOfTurn
from pipeline.kafka.slices import LogRecord
from recommender.candidates import SOURCES
from recommender.effort import POPULAR
from recommender.filters import filters
from recommender.reasons import Explained
from recommender.recommend import Recommender
from recommender.replay import Replayer, replay
from recommender.served import unpack

NOW = 1_700_000_000_000
DOMAIN = Domain(actions=(Action("view"), Action("buy", purchase=True, weight=5)))
PART = Part("user_actions", 0)
ALWAYS = {"answer_from": 0, "is_current": lambda batch: True}


class BrokenRecommender:
    """Fails for one user, as a bug would."""

    def __init__(self, path, user):
        self.path, self.user, self.catalog = path, user, path.catalog

    def looks_at_users(self, effort):
        return self.path.looks_at_users(effort)

    def recommend(self, queries, *, effort):
        if any(query.user_id == self.user for query in queries):
            raise ZeroDivisionError
        return self.path.recommend(queries, effort=effort)


@pytest.fixture
def engine():
    state = State(store := MemoryStore(), DOMAIN)
    view = StateView(store, DOMAIN, state.layout, freshness_ms=0)
    features = catalog(DOMAIN, sources=[source.name for source in SOURCES])
    quotas = {source.name: 1.0 for source in SOURCES}
    path = Recommender(
        view, features, SOURCES, filters([], domain=DOMAIN, layout=state.layout), quotas, 200, lambda: None
    )
    parts = (PART, Part("recommendation_requests", 0))
    for part in parts:
        state.resume(part, committed=None, log_start=0)
    kinds = {part.topic: part.topic for part in parts}
    actions = {action.name: action for action in DOMAIN.actions}
    return Engine(DOMAIN, state, view, path, kinds, dict.fromkeys(kinds, "0a1b2c3d4e5f6071"), actions, 20)


def action(offset, user, item, name="view"):
    value = f'{{"event_id":"e{offset}","user_id":"{user}","item_id":"{item}","action":"{name}","ts_ms":{NOW + offset}}}'
    return LogRecord(offset, NOW + offset, user.encode(), value.encode())


def batch(*records, follows=-1, part=PART):
    return Batch(part, follows, 1, list(records), records[-1].offset)


def traffic():
    """Twelve users who look at neighbouring items."""
    return [action(n, f"u{n % 12}", f"i{(n % 12 + n // 12) % 9}") for n in range(60)]


def test_every_trigger_has_an_answer_with_items_that_others_looked_at(engine):
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    answers = engine.answer(applied.questions, wall_ms=NOW)
    assert len(answers) == 12
    assert all(answer.item_ids for answer in answers)
    assert {answer.query_id for answer in answers} == {f"user_actions-0-{n}-0a1b" for n in range(48, 60)}


def test_a_batch_after_a_gap_is_out_of_turn(engine):
    with pytest.raises(OutOfTurn):
        engine.apply(batch(action(5, "u", "i"), follows=4), **ALWAYS)


def test_a_void_batch_changes_nothing(engine):
    assert engine.apply(batch(action(0, "u", "i")), answer_from=0, is_current=lambda batch: False) is None
    assert engine.state.position(PART) == 0


def test_poison_between_good_ones_takes_nothing_with_it(engine):
    applied = engine.apply(batch(action(0, "a", "i"), LogRecord(1, NOW, b"x", b"{"), action(2, "b", "j")), **ALWAYS)
    assert [refused.field for _, refused in applied.reading.refused] == ["$"]
    assert len(engine.answer(applied.questions, wall_ms=NOW)) == 2
    assert engine.state.position(PART) == 3


def test_given_items_come_back_exactly_scored_and_sorted(engine):
    engine.apply(batch(*traffic()), **ALWAYS)
    request = b'{"request_id":"r","user_id":"u1","ts_ms":1700000001000,"item_ids":["i3","never seen","i1"]}'
    part = Part("recommendation_requests", 0)
    applied = engine.apply(batch(LogRecord(0, NOW, b"u1", request), part=part), **ALWAYS)
    (answer,) = engine.answer(applied.questions, wall_ms=NOW)
    assert sorted(answer.item_ids) == ["i1", "i3", "never seen"]
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


def test_a_replay_breaks_ties_as_the_worker_does(engine):
    views = traffic()
    request = RecommendationRequest("r1", "u1", NOW + 99, item_ids=[f"unseen {n}" for n in range(12)])
    asked = LogRecord(0, NOW + 99, b"u1", msgspec.json.encode(request))
    part = Part("recommendation_requests", 0)
    live = []
    for each, of in [(view, PART) for view in views] + [(asked, part)]:
        applied = engine.apply(batch(each, part=of, follows=each.offset - 1), **ALWAYS)
        live += engine.answer(applied.questions, wall_ms=NOW)
    log = [("user_actions", msgspec.json.decode(view.value, type=UserAction)) for view in views]
    quotas = {source.name: 1.0 for source in SOURCES}
    again = replay([*log, (part.topic, request)], Replayer(DOMAIN, filters=[], quotas=quotas))
    assert [answer.item_ids for answer in live] == [answer.ranked.item_ids for answer in again]
    assert len(set(live[-1].scores)) == 1
    assert live[-1].query_id == "recommendation_requests-0-0-0a1b"


def test_a_bug_in_one_ranking_leaves_the_others_and_still_answers(engine):
    before = REGISTRY.get_sample_value("headrace_answer_failures_total")
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    answers = replace(engine, recommender=BrokenRecommender(engine.recommender, "u3")).answer(
        applied.questions, wall_ms=NOW
    )
    causes = {
        question.ask.record.user_id: answer.cause for question, answer in zip(applied.questions, answers, strict=True)
    }
    assert causes["u3"] == "internal error: ZeroDivisionError"
    assert causes["u4"] != causes["u3"]
    assert REGISTRY.get_sample_value("headrace_answer_failures_total") == before + 1


class Away:
    """A path whose store is away."""

    def __init__(self, path):
        self.catalog, self.looks_at_users = path.catalog, path.looks_at_users

    def recommend(self, queries, *, effort):
        raise StoreAway("connection lost")


def test_an_answer_that_meets_an_absent_store_has_the_state_doubt_it(engine, monkeypatch):
    questions = engine.apply(batch(*traffic()), **ALWAYS).questions
    doubts = []
    monkeypatch.setattr(engine.state, "doubt", lambda: doubts.append(1))
    with pytest.raises(StoreAway):
        replace(engine, recommender=Away(engine.recommender)).answer(questions, wall_ms=NOW)
    assert doubts == [1]


def test_a_record_that_goes_out_reads_back(engine):
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    answer = engine.answer(applied.questions, wall_ms=NOW)[0]
    ask = applied.questions[0].ask
    sent = recommendation(ask, answer, topic="out", stamp=Stamp(NOW + 500, NOW + 510, 9.87654))
    record = msgspec.json.decode(sent.value, type=Recommendation)
    assert (sent.topic, sent.key) == ("out", ask.record.user_id.encode())
    assert record.event_age_ms == NOW + 500 - ask.log_ts_ms
    assert record.latency_ms == 9.877
    assert [item.item_id for item in record.items] == answer.item_ids
    assert record.trigger.offset == ask.offset


def test_reasons_and_their_rest_go_out_with_the_items_they_explain(engine):
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    answer = engine.answer(applied.questions, wall_ms=NOW)[0]
    told = [Explained([Reason("trending now", 0.5)], float(score) - 0.5) for score in answer.scores]
    told[-1] = None
    sent = encoded(applied.questions[0].ask, replace(answer, explained=told), stamp=Stamp(NOW, NOW, 1.0))
    items = msgspec.json.decode(sent, type=Recommendation).items
    assert all(item.reasons[0].contribution + item.rest == item.score for item in items[:-1])
    assert (items[-1].reasons, items[-1].rest) == (None, None)
    assert b"rest" not in encoded(applied.questions[0].ask, answer, stamp=Stamp(NOW, NOW, 1.0))


@pytest.mark.parametrize(("late_ms", "backlog"), [(500, False), (61_000, True)])
def test_the_served_record_goes_out_beside_the_answer_and_says_what_came_late(engine, late_ms, backlog):
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    ask, answer = applied.questions[0].ask, engine.answer(applied.questions, wall_ms=NOW)[0]
    stamp = Stamp(ask.log_ts_ms + late_ms, NOW, 1.0)
    sent = served(ask, answer, topic="rows", stamp=stamp)
    record, scores, rows = unpack(sent.value)
    assert (sent.topic, sent.key) == ("rows", ask.record.user_id.encode())
    assert (record.rec_id, record.ts_ms) == (answer.query_id, ask.record.ts_ms)
    assert (record.event_age_ms, record.backlog, record.model_version) == (late_ms, backlog, "none")
    assert rows.tobytes() == answer.matrix.tobytes()
    assert scores.tolist() == answer.scores.tolist()


def test_a_popular_answer_has_no_rows_to_log_and_reads_no_log_of_a_user(engine, monkeypatch):
    applied = engine.apply(batch(*traffic()), **ALWAYS)
    looked = []
    history = engine.view.history
    monkeypatch.setattr(
        engine.view, "history", lambda blob, *, now_ms: looked.append(blob) or history(blob, now_ms=now_ms)
    )
    answers = engine.answer(applied.questions, wall_ms=NOW, effort=POPULAR)
    assert len(answers) == 12
    assert all(answer.item_ids and answer.level == "popular" for answer in answers)
    assert set(looked) == {b""}
    stamp = Stamp(NOW, NOW, 1.0)
    assert served(applied.questions[0].ask, answers[0], topic="rows", stamp=stamp) is None
    sent = msgspec.json.decode(encoded(applied.questions[0].ask, answers[0], stamp=stamp), type=Recommendation)
    assert (sent.level, sent.cause, sent.model.version) == ("popular", POPULAR.cause, "none")


def test_a_popular_answer_to_a_request_still_leaves_out_the_item_the_user_is_on(engine):
    engine.apply(batch(*traffic()), **ALWAYS)
    part = Part("recommendation_requests", 0)
    request = b'{"request_id":"r","user_id":"u1","ts_ms":%d}' % (NOW + 100)
    applied = engine.apply(batch(LogRecord(0, NOW, b"u1", request), part=part), **ALWAYS)
    (answer,) = engine.answer(applied.questions, wall_ms=NOW, effort=POPULAR)
    last = engine.view.history(applied.questions[0].user_log, now_ms=NOW + 100).items[-1]
    assert last not in {hash64(item_id) for item_id in answer.item_ids}
    assert answer.item_ids


def test_an_empty_answer_has_no_rows_to_log(engine):
    applied = engine.apply(batch(action(0, "u", "i")), **ALWAYS)
    (question,) = applied.questions
    empty = without_answer(question.ask, identity="0a1b", cause="a bug", features_hash="f")
    assert served(question.ask, empty, topic="rows", stamp=Stamp(NOW, NOW, 1.0)) is None
