import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.domain import Action, Domain
from features.ids import hash64
from features.schema import USER_ACTIONS, UserAction
from recommender.model.log_columns import read_columns
from recommender.model.plan import LEFT, REPEATED, plan, sessions

START_MS = 1_700_000_000_000
DOMAIN = Domain(actions=(Action("view"), Action("buy", grade=3), Action("hide", weight=0, grade=0, negative=True)))


def act(event_id, item, action="view", *, user="u", minutes=0, session=None):
    ts_ms = START_MS + minutes * 60_000
    return USER_ACTIONS, UserAction(event_id, user, item, action, ts_ms, session_id=session)


def planned(log, kind, **settings):
    return plan(read_columns(log, DOMAIN), DOMAIN, kind, **settings)


def answers(asked):
    """Per question: (ordinal of its record, {item hash: grade})."""
    found = []
    for question, at in enumerate(asked.at.tolist()):
        items, grades = asked.answer(question)
        found.append((at, dict(zip(items.tolist(), grades.tolist(), strict=True))))
    return found


def test_the_answer_to_an_action_is_the_next_item_of_its_session():
    log = [act("1", "a"), act("2", "b", "buy", minutes=1), act("3", "c", minutes=90)]
    asked = planned(log, "next")
    assert answers(asked) == [(0, {hash64("b"): 3})]
    assert asked.dropped == {LEFT: 2}


def test_the_same_item_again_is_no_question_since_it_is_no_candidate():
    log = [act("1", "a"), act("2", "a", minutes=1), act("3", "b", minutes=2)]
    assert answers(planned(log, "next")) == [(1, {hash64("b"): 1})]


def test_a_session_id_parts_sessions_whatever_the_time_between():
    log = [act("1", "a", session="s"), act("2", "b", session="t"), act("3", "c", session="s", minutes=600)]
    assert answers(planned(log, "next")) == [(0, {hash64("c"): 1})]


def test_what_the_user_knows_is_no_answer_where_only_new_items_count():
    log = [act("1", "a"), act("2", "b", minutes=1), act("3", "a", minutes=2), act("4", "c", minutes=3)]
    assert [at for at, _ in answers(planned(log, "next", new_to_user=True))] == [0, 2]


def test_a_basket_is_all_distinct_items_of_a_session_asked_at_its_first_action():
    log = [
        act("1", "x", user="v"), act("2", "a"), act("3", "b", "buy"), act("4", "a", "buy"), act("5", "c", "hide"),
        act("6", "a", minutes=300),
    ]  # fmt: skip
    assert answers(planned(log, "baskets")) == [
        (0, {hash64("x"): 1}),
        (1, {hash64("a"): 3, hash64("b"): 3}),
        (5, {hash64("a"): 1}),
    ]


def test_items_that_are_no_goods_are_nobodys_answer():
    log = [act("1", "POST"), act("2", "a"), act("3", "POST", minutes=1)]
    without = np.array([hash64("POST")], np.uint64)
    assert answers(planned(log, "baskets", without=without)) == [(1, {hash64("a"): 1})]
    assert answers(planned(log, "next", without=without)) == []


def test_a_repeated_event_counts_once():
    log = [act("1", "a"), act("2", "b"), act("1", "a"), act("2", "b")]
    asked = planned(log, "next")
    assert answers(asked) == [(0, {hash64("b"): 1})]
    assert asked.dropped[REPEATED] == 2


def test_two_users_may_number_their_events_alike():
    log = [act("1", "a"), act("2", "b"), act("1", "c", user="v"), act("2", "d", user="v")]
    asked = planned(log, "next")
    assert answers(asked) == [(0, {hash64("b"): 1}), (2, {hash64("d"): 1})]
    assert REPEATED not in asked.dropped


def test_what_the_user_knows_from_an_earlier_log_is_no_answer_where_only_new_items_count():
    earlier = read_columns([act("0", "b"), act("9", "c", user="v")], DOMAIN)
    log = [act("1", "a"), act("2", "b", minutes=1), act("3", "c", minutes=2)]
    assert answers(planned(log, "next", new_to_user=True, known=earlier)) == [(1, {hash64("c"): 1})]


def test_after_a_time_stand_only_newer_questions_even_where_a_record_is_late():
    log = [act(str(n), "ab"[n % 2], minutes=minutes) for n, minutes in enumerate([0, 1, 5, 2, 6, 7])]
    asked = planned(log, "next")
    newer = asked.after(START_MS + 2 * 60_000)
    assert newer.ts_ms.tolist() == [START_MS + 6 * 60_000]
    assert len(asked.after(0)) == len(asked)


@given(st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("abc"), st.integers(0, 50)), max_size=30))
def test_every_action_but_repeats_and_last_ones_is_a_question_about_what_came_next(steps):
    minutes, log = 0, []
    for number, (user, item, pause) in enumerate(steps):
        minutes += pause
        log.append(act(f"e{number}", item, user=user, minutes=minutes))
    expected = []
    for at, (_, record) in enumerate(log):
        later = next((r for _, r in log[at + 1 :] if r.user_id == record.user_id), None)
        if later and later.ts_ms - record.ts_ms <= DOMAIN.session_gap_ms and later.item_id != record.item_id:
            expected.append((at, {hash64(later.item_id): 1}))
    assert answers(planned(log, "next")) == expected


def test_sessions_of_different_users_are_different_however_close():
    log = [act("1", "a"), act("2", "a", user="v")]
    found = sessions(read_columns(log, DOMAIN).actions, gap_ms=1)
    assert len(set(found.tolist())) == 2
