import gzip
import json

import msgspec
import pytest
from click.testing import CliRunner

from features.schema import USER_ACTIONS, UserAction
from pipeline import dataset
from pipeline.cli import main
from recommender.model.labels import LOST
from tests.recommender.evaluation.logs import shown_lists, walks


def write(directory, log):
    directory.mkdir(exist_ok=True)
    dataset.write(directory, [(topic, msgspec.json.encode(record)) for topic, record in log])


@pytest.fixture
def lists(tmp_path):
    write(tmp_path / "lists", shown_lists(200))
    return str(tmp_path / "lists")


@pytest.fixture
def sessions(tmp_path):
    write(tmp_path / "sessions", walks(120, 6))
    return str(tmp_path / "sessions")


def evaluate(*arguments):
    return CliRunner().invoke(main, ["evaluate", *arguments])


def report(*arguments):
    found = evaluate(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def system(found, name):
    return next(each for each in found["systems"] if each["name"] == name)


def test_rerank_reports_the_ranker_and_its_lead_over_every_rule(lists):
    found = report("rerank", lists)
    assert found["queries"] == 40
    assert found["facts"]["trained on"] == 160
    assert found["facts"]["trees"] > 0
    assert found["facts"]["num_leaves"] == 15
    ranked = found["systems"][0]
    assert ranked["name"] == "Headrace"
    assert ranked["metrics"]["mrr"]["mean"] > system(found, "random")["metrics"]["mrr"]["mean"]
    assert system(found, "random")["differences"]["mrr"]["low"] > 0
    assert {"coverage", "novelty_bits", "exposure_gini"} <= set(ranked)


def test_the_report_tells_what_was_left_out_and_what_could_not_be_read(tmp_path):
    write(tmp_path / "lists", [each for each in shown_lists(200) if getattr(each[1], "event_id", "") != "e7"])
    with gzip.open(tmp_path / "lists" / "user_actions.jsonl.gz", "ab") as stream:
        stream.write(b'{"event_id": "x"}\n')
    facts = report("rerank", str(tmp_path / "lists"), "--search", "0")["facts"]
    assert facts["left out"] == ["1 lists without a label"]
    assert [told[:2] for told in facts["refused records"]] == ["1 "]


def test_questions_whose_answer_no_source_found_are_not_told_as_learned(tmp_path):
    """Users that nobody follows: what they go on to is new to the world each time."""
    write(tmp_path / "log", [*walks(60, 4), *walks(20, 4, first_user=60, items=1000), *walks(20, 4, first_user=80)])
    facts = report("next-item", str(tmp_path / "log"), "--search", "0")["facts"]
    lost = [int(told.split()[0]) for told in facts["left out"] if told.endswith(LOST)]
    assert lost
    assert facts["trained on"] == 240 - lost[0]


@pytest.mark.parametrize(("protocol", "log"), [("rerank", shown_lists(60)), ("next-item", walks(40, 5))])
def test_a_late_record_is_no_reason_not_to_learn(tmp_path, protocol, log):
    """A record in the middle of the log is of an hour before."""
    place = len(log) // 2
    topic, record = log[place]
    late = [*log[:place], (topic, msgspec.structs.replace(record, ts_ms=record.ts_ms - 3_600_000)), *log[place + 1 :]]
    write(tmp_path / "late", late)
    assert report(protocol, str(tmp_path / "late"), "--search", "0")["queries"] > 0


def test_the_settings_know_nothing_of_a_test_part_that_begins_early(tmp_path):
    """Only the first half of the lists is clicked, so the test begins at 40 % of the time; a new action comes at 60 %."""
    log = shown_lists(200)
    clicked, shown_alone = log[:200], log[200::2]
    odd = [(USER_ACTIONS, UserAction(f"x{n}", "u1", "i1", "odd", shown_alone[n][1].ts_ms)) for n in range(100)]
    write(tmp_path / "log", [*clicked, *(each for pair in zip(shown_alone, odd, strict=True) for each in pair)])
    facts = report("rerank", str(tmp_path / "log"), "--search", "0")["facts"]
    assert facts["refused records"] == ["100 action: unknown action 'odd'"]


def test_a_given_model_is_named_and_nothing_is_said_to_be_trained(lists, tmp_path):
    """It learned from the first 100 of the same 200 lists."""
    write(tmp_path / "older", shown_lists(100))
    models = tmp_path / "models"
    trained = CliRunner().invoke(main, ["train", str(tmp_path / "older"), "--out", str(models), "--version", "v1"])
    assert trained.exit_code == 0, trained.output
    facts = report("rerank", lists, "--model", str(models / "ranker" / "v1"))["facts"]
    assert facts["model"] == "v1"
    assert "trained on" not in facts


def test_the_table_names_every_system(lists):
    found = evaluate("rerank", lists, "--search", "0")
    assert found.exit_code == 0, found.output
    assert "position not used" in found.stdout
    for name in ("Headrace", "random", "as shown", "popularity", "smoothed CTR", "touched last first"):
        assert name in found.stdout


def test_one_folder_is_parted_by_time_for_the_next_item(sessions):
    found = report("next-item", sessions)
    assert found["facts"]["state"] == "rolling"
    assert found["queries"] == 120
    assert found["systems"][0]["metrics"]["hr@20"]["mean"] == 1.0


def test_sessions_of_another_folder_are_predicted_from_their_second_event_on(sessions, tmp_path):
    write(tmp_path / "later", walks(10, 6, first_user=500))
    for extra, state in (((), "frozen"), (("--rolling",), "rolling")):
        found = report("next-item", sessions, "--test", str(tmp_path / "later"), *extra)
        assert found["queries"] == 50
        assert found["facts"]["state"] == state


def test_frozen_what_a_user_knows_from_the_training_log_is_not_asked_for_as_new(sessions, tmp_path):
    """Users 0 to 9 walk their five steps of eight items again: six items of the first log, at most one is new."""
    again = [(topic, msgspec.structs.replace(each, event_id=f"x{each.event_id}")) for topic, each in walks(10, 5)]
    write(tmp_path / "again", [*again, *walks(1, 6, first_user=500)])
    found = report("next-item", sessions, "--test", str(tmp_path / "again"), "--new-to-user", "--search", "0")
    assert found["queries"] == 5  # those of the user who is new


def test_a_basket_has_figures_of_its_own(sessions):
    assert set(report("next-item", sessions, "--basket")["systems"][0]["metrics"]) == {
        "hr@20", "recall@20", "ndcg@20", "named",
    }  # fmt: skip


def test_a_model_that_has_seen_the_test_part_is_refused(lists, tmp_path):
    trained = CliRunner().invoke(main, ["train", lists, "--out", str(tmp_path / "models"), "--version", "v1", "--json"])
    assert trained.exit_code == 0, trained.output
    found = evaluate("rerank", lists, "--model", str(tmp_path / "models" / "ranker" / "v1"))
    assert found.exit_code == 2
    assert "the test begins at" in found.output


def test_a_validation_log_without_a_question_is_said_in_one_line(sessions, tmp_path):
    write(tmp_path / "later", walks(10, 6, first_user=500))
    write(tmp_path / "valid", walks(5, 1, first_user=600))
    found = evaluate(
        "next-item", sessions, "--test", str(tmp_path / "later"), "--valid", str(tmp_path / "valid"), "--search", "0"
    )
    assert found.exit_code == 2
    assert "no list with a label among those that should choose" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--basket", "--new-to-user"), "one at a time"),
        (("--rolling",), "go with --test"),
        (("--test", ".", "--valid", ".", "--rolling"), "--valid and --rolling: one at a time"),
        (("--without-attribute", "price"), "no attribute named 'price'"),
    ],
)
def test_what_does_not_go_together_is_said(sessions, arguments, said):
    found = evaluate("next-item", sessions, *arguments)
    assert found.exit_code == 2
    assert said in found.output


def test_too_little_to_judge_is_said_in_one_line(tmp_path):
    write(tmp_path, walks(2, 2))
    for protocol in ("rerank", "next-item"):
        found = evaluate(protocol, str(tmp_path))
        assert found.exit_code == 2
        assert found.output.count("\n") == 1
