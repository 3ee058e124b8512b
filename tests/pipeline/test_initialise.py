import json

import pytest

from pipeline.dataset import DataSetError
from pipeline.initialise import initialise, settings_of


def action(n, **fields):
    return {"event_id": f"e{n}", "user_id": f"u{n % 7}", "item_id": f"i{n % 50}", "action": "view", "ts_ms": n} | fields


@pytest.fixture
def made(tmp_path):
    """Settings that `init` writes for the given rows per topic."""

    def make(**topics):
        for topic, rows in topics.items():
            (tmp_path / f"{topic}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return settings_of(initialise(tmp_path))

    return make


def named(entries):
    return {entry.name: entry for entry in entries}


def test_a_rarer_action_weighs_more_and_a_purchase_most(made):
    kinds = ["view"] * 16 + ["cart"] * 4 + ["purchase"] * 2
    actions = named(made(user_actions=[action(n, action=kinds[n % 22]) for n in range(2200)]).actions)
    assert actions["view"].weight == 1.0
    assert actions["cart"].weight == 2.0
    assert actions["purchase"].weight == 5.0
    assert [name for name, seen in actions.items() if seen.purchase] == ["purchase"]
    assert {name: seen.horizon_min for name, seen in actions.items()} == {"view": 30, "cart": 30, "purchase": 10_080}


def test_actions_against_an_item_have_no_weight_no_label_and_no_answer(made):
    rows = [action(n, **({"action": "cancel"}, {"action": "odd", "value": -1}, {})[n % 3]) for n in range(300)]
    actions = named(made(user_actions=rows).actions)
    for name in ("cancel", "odd"):
        against = actions[name]
        assert (against.negative, against.weight, against.grade, against.trigger) == (True, 0, 0, False)
    assert not actions["view"].negative


def test_labels_are_the_actions_that_answer_impressions(made):
    rows = [action(n, **({"action": "click", "impression_id": "x"} if n % 2 else {})) for n in range(100)]
    actions = named(made(user_actions=rows).actions)
    assert actions["click"].grade > 0
    assert actions["view"].grade == 0


def test_without_impressions_every_action_is_a_label(made):
    actions = made(user_actions=[action(n, action=("view", "like")[n % 2]) for n in range(100)]).actions
    assert all(seen.grade > 0 for seen in actions)


def test_items_keep_windows_of_at_most_seven_actions_labels_first(made):
    rows = [action(n, action=f"a{n % 12}") for n in range(2400)] + [
        action(2400 + n, action="click", impression_id="x") for n in range(5)
    ]
    rows = [row | {"ts_ms": n} for n, row in enumerate(reversed(rows))]
    counted = [seen.name for seen in made(user_actions=rows).actions if seen.counted]
    assert len(counted) == 7
    assert "click" in counted


def test_the_bought_filter_is_on_only_where_purchases_hardly_repeat(made):
    once = [action(n, action="purchase", user_id=f"u{n}") for n in range(100)]
    assert "bought" in made(user_actions=once).recommend.filters
    again = [action(n, action="purchase", user_id=f"u{n % 10}", item_id="i") for n in range(100)]
    assert "bought" not in made(user_actions=again).recommend.filters


def test_attributes_take_their_kind_from_their_values_and_free_text_is_left_out(made):
    items = [
        {
            "item_id": f"i{n}",
            "ts_ms": 0,
            "attributes": {"price": n, "brand": f"b{n % 5}", "tags": [f"t{n % 9}"], "title": f"thing {n}"},
        }
        for n in range(100)
    ]
    settings = made(items=items, user_actions=[action(n) for n in range(100)])
    attributes = named(settings.attributes)
    assert {name: seen.kind for name, seen in attributes.items()} == {
        "price": "number",
        "brand": "category",
        "tags": "set",
    }
    assert attributes["brand"].candidates
    assert not attributes["price"].candidates


def test_context_is_read_from_impressions(made):
    shown = [
        {
            "impression_id": f"s{n}",
            "user_id": "u",
            "item_ids": ["a"],
            "ts_ms": n,
            "context": {"device": "mobile", "age": n},
            "item_context": {"price": [1]},
        }
        for n in range(100)
    ]
    settings = made(impressions=shown, user_actions=[action(n) for n in range(100)])
    assert {seen.name: seen.kind for seen in settings.context} == {"device": "category", "age": "number"}
    assert settings.item_context == ("price",)


def test_the_last_fifth_is_not_looked_at(made):
    rows = [action(n, action="late" if n >= 80 else "view") for n in range(100)]
    assert [seen.name for seen in made(user_actions=rows).actions] == ["view"]


def test_a_log_of_one_moment_is_read_whole(made):
    assert made(user_actions=[action(n, ts_ms=5) for n in range(10)]).actions


def test_broken_lines_are_passed_over(made, tmp_path):
    rows = [action(n) for n in range(50)] + [{"ts_ms": 3}, {"event_id": 1}]
    assert made(user_actions=rows).actions


def test_nothing_to_learn_from_is_an_error(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"item_id":"a","ts_ms":1}\n')
    with pytest.raises(DataSetError, match="no user action"):
        initialise(tmp_path)


def test_a_time_that_no_computer_holds_is_a_broken_line(tmp_path):
    sound = '{"event_id":"e","user_id":"u","item_id":"i","action":"view","ts_ms":5}\n'
    (tmp_path / "user_actions.jsonl").write_text(sound + sound.replace(":5}", f":{10**19}}}"))
    assert 'name = "view"' in initialise(tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "\x7f", 'q"\\', "\x00", "\r", "\u2028", "]", "#"])
def test_what_is_written_loads_whatever_things_are_called(tmp_path, name):
    actions = [
        {"event_id": f"e{n}", "user_id": "u", "item_id": "i", "action": act, "ts_ms": n}
        for n, act in enumerate([name] * 20 + ["impression"])
    ]
    texts = [{"item_id": f"i{n}", "ts_ms": n, "attributes": {name: "x" * 100 + str(n)}} for n in range(80)]
    items = [*texts, {"item_id": "j", "ts_ms": 3, "attributes": {f"n{name}": 5.0}}]
    shown = [
        {"impression_id": f"s{n}", "user_id": "u", "item_ids": ["i"], "ts_ms": n, "context": {name: "v"},
         "item_context": {name: [1]}}
        for n in range(10)
    ]  # fmt: skip
    for topic, rows in (("user_actions", actions), ("items", items), ("impressions", shown)):
        (tmp_path / f"{topic}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = settings_of(initialise(tmp_path))
    assert [action.name for action in settings.actions] == [name]
    assert settings.domain.item_context == (name,)
