import re
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from pipeline.tables import WIDTH, print_report, report_table
from recommender.evaluation.intervals import Estimate
from recommender.evaluation.report import Report, System

SURE, WORSE, UNSURE = Estimate(0.0141, 0.0102, 0.0184), Estimate(-0.1, -0.12, -0.08), Estimate(0.01, -0.01, 0.02)
LONG_NAMES = ["Headrace", "last item + decayed popularity", "own history, newest first", "session_neighbours alone"]


def system(name, difference, *, metrics=("ndcg@10", "mrr"), mean=0.6093):
    figures = {metric: Estimate(mean, mean - 0.0121, mean + 0.0119) for metric in metrics}
    leads = dict.fromkeys(metrics, difference) if difference else {}
    return System(name, figures, leads, 0.25, 7.015, 0.5)


def report(*systems, **facts):
    facts = {"protocol": "rerank", "data": "hotels", "position": False, **facts}
    return Report(facts, 1344, 1200, [system("Headrace", None), *systems])


def text_of(found, **console):
    out = StringIO()
    Console(file=out, width=WIDTH, highlight=False, **console).print(report_table(found))
    return out.getvalue()


def test_the_title_names_protocol_data_queries_users_and_whether_the_position_is_used():
    assert text_of(report()).splitlines()[0] == "rerank, hotels, 1344 queries of 1200 users, position not used"
    assert text_of(report(position=True)).splitlines()[0].endswith("position used")


def test_further_facts_stand_below_the_title():
    assert "trained on: 5377; rolling: yes" in text_of(report(**{"trained on": 5377, "rolling": True}))


def test_a_system_has_its_figures_with_the_interval_and_what_it_shows():
    line = next(line for line in text_of(report()).splitlines() if line.startswith("Headrace"))
    assert line.split() == ["Headrace", *[".609", ".597", ".621"] * 2, ".250", "7.01", ".500"]


@pytest.mark.parametrize(
    ("difference", "told"),
    [(SURE, "+.014 +.010 +.018*"), (WORSE, "-.100 -.120 -.080*"), (UNSURE, "+.010 -.010 +.020 ")],
)
def test_a_difference_is_marked_where_its_interval_is_clear_of_zero(difference, told):
    assert text_of(report(system("popularity", difference))).count(told) == 2


def test_an_interval_that_nobody_knows_is_a_dash():
    assert re.search(r"\+\.300 +- +- ", text_of(report(system("popularity", Estimate(0.3)))))


def test_four_metrics_and_long_names_fit_and_no_number_is_cut():
    metrics = ("hr@20", "recall@20", "ndcg@20", "named")
    rows = [system(name, WORSE, metrics=metrics, mean=1.0) for name in LONG_NAMES]
    text = text_of(Report({"protocol": "next basket", "data": "shop"}, 9, 9, rows))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    assert len(re.findall(r"1\.000  \.988 1\.012", text)) == 4 * len(rows)
    assert len(re.findall(r"-\.100 -\.120 -\.080\*", text)) == 4 * len(rows)
    assert {word for name in LONG_NAMES for word in name.split()} <= set(text.split())


def test_without_colour_the_text_is_the_same():
    found = report(system("popularity", SURE))
    coloured = text_of(found, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text_of(found)


def test_in_a_pipe_the_table_is_as_wide_as_on_a_screen(capsys):
    print_report(report(system("touched last first, then as shown", SURE)))
    assert "touched last first, then as shown" in capsys.readouterr().out


def test_a_report_out_of_json_has_the_same_table():
    found = report(system("popularity", SURE), weights=[])
    assert text_of(msgspec.json.decode(msgspec.json.encode(found), type=Report)) == text_of(found)
