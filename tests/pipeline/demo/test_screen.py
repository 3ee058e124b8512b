"""The view: shows the figures it is given, survives the absence of each, never breaks on strange titles."""

import io

from rich.console import Console

from features.schema import ModelRef, Recommendation, RecommendedItem
from pipeline.demo.ledger import Latency, Totals
from pipeline.demo.screen import Frame, line, picture

EMPTY = Totals(0, 0, 0, 0, 0, 0, 0, {})


def frame(**changes):
    values = {
        "traffic": "simulated shop",
        "phase": "live",
        "elapsed_s": 12.0,
        "totals": Totals(1234, 0, 1000, 990, 950, 3, 0, {"full": 900, "partial": 50}),
        "latency": Latency(4.25, 18.0, 900),
        "events_per_s": 199.6,
        "recommendations_per_s": 150.2,
        "applied": 1200,
        "dead_lettered": 7,
        "worker_pid": 4711,
        "restarts": 2,
        "model": "v1",
        "hit_rates": {"recommended": (0.512, 400), "trending": (None, 0)},
        "newest": [
            Recommendation(
                rec_id="r",
                user_id="u00001",
                ts_ms=0,
                items=[RecommendedItem("p00001", 1.0, "co_visited"), RecommendedItem("[bold]x[/nonsense]", 0.5, "new")],
                model=ModelRef("v1", ""),
                level="full",
                event_age_ms=1,
                latency_ms=1.0,
            )
        ],
        "titles": {"p00001": "Alder vintage kettle 1"},
    }
    return Frame(**(values | changes))


def text(shown, width=140):
    console = Console(file=io.StringIO(), width=width)
    console.print(picture(shown))
    return console.file.getvalue()


def test_every_figure_is_on_the_screen():
    seen = text(frame())
    for figure in ("200", "150", "4.2 ms", "18.0 ms", "1,234", "34", "pid 4711", "full 95%", "51.2%", "v1"):
        assert figure in seen
    assert "Alder vintage kettle 1 (co_visited)" in seen


def test_an_item_without_a_title_shows_its_id_and_no_markup_is_obeyed():
    assert "[bold]x[/nonsense] (new)" in text(frame())


def test_before_the_first_event_there_are_dashes_and_no_division_by_zero():
    empty = frame(totals=EMPTY, latency=Latency(None, None, 0), newest=[], worker_pid=None, applied=0, hit_rates={})
    assert "p50 -" in text(empty)
    assert "levels -" in line(empty)


def test_trouble_is_named():
    assert "Redis is away" in text(frame(trouble="Redis is away"))
    assert line(frame(trouble="Redis is away")).endswith("Redis is away")


def test_the_plain_line_is_one_line_with_the_same_figures():
    plain = line(frame())
    assert "\n" not in plain
    for figure in ("200 events/s", "p50 4.2 ms", "lag 34", "dead letters 7", "recommended 51.2% of 400", "restarts 2"):
        assert figure in plain


def test_a_narrow_terminal_still_shows_it():
    assert "p99" in text(frame(), width=60)
