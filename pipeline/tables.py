"""An evaluation's report as a table for people: 120 columns, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from recommender.evaluation.intervals import Estimate
from recommender.evaluation.report import Fact, Report, System

WIDTH = 120
_TITLE_FACTS = ("protocol", "data", "position")


def print_report(report: Report) -> None:
    """The table to stdout; as wide in a pipe as on a screen, so that no number is ever cut."""
    Console(width=WIDTH, highlight=False).print(report_table(report))


def report_table(report: Report) -> RenderableType:
    """Title, one row a system, and what the columns mean."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), leading=1)
    metrics = list(report.systems[0].metrics)
    table.add_column("system", overflow="fold")
    for name in (*(f"{name} " for name in metrics), "cover", "bits", "Gini"):
        table.add_column(name, justify="right", no_wrap=True)
    for system in report.systems:
        table.add_row(*_row(system, metrics))
    others = [f"{name}: {_told(value)}" for name, value in report.facts.items() if name not in _TITLE_FACTS]
    parts: list[RenderableType] = [Text(_title(report), style="bold"), Text("; ".join(others)), "", table]
    return Group(*parts, "", Text(_legend(report.systems), style="dim"))


def number(value: float, *, sign: bool = False) -> str:
    """Three decimals, no zero before the point.

    >>> number(0.6093), number(-0.0141, sign=True), number(0.5, sign=True), number(1.0), number(-0.0001)
    ('.609', '-.014', '+.500', '1.000', '.000')
    """
    text = f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def _title(report: Report) -> str:
    facts = report.facts
    parts = [str(facts[name]) for name in ("protocol", "data") if name in facts]
    parts.append(f"{report.queries} queries of {report.users} users")
    if "position" in facts:
        parts.append("position used" if facts["position"] else "position not used")
    return ", ".join(parts)


def _told(value: Fact) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _row(system: System, metrics: Sequence[str]) -> list[Text]:
    cells = [Text(system.name)]
    for name in metrics:
        cell = Text(f"{_triple(system.metrics[name])} ")
        if name in system.differences:
            cell.append("\n").append_text(_lead(system.differences[name]))
        cells.append(cell)
    bits = "-" if system.novelty_bits is None else f"{system.novelty_bits:.2f}"
    return [*cells, Text(number(system.coverage)), Text(bits), Text(number(system.exposure_gini))]


def _lead(difference: Estimate) -> Text:
    """The first system minus this one, with a star where the interval does not hold 0."""
    if not difference.clear_of_zero:
        return Text(f"{_triple(difference, sign=True)} ")
    return Text(f"{_triple(difference, sign=True)}*", style="green" if difference.mean > 0 else "red")


def _triple(estimate: Estimate, *, sign: bool = False) -> str:
    """Mean, low, high, each five wide."""
    ends = ("-" if end is None else number(end, sign=sign) for end in (estimate.low, estimate.high))
    return " ".join(f"{each:>5}" for each in (number(estimate.mean, sign=sign), *ends))


def _legend(systems: Sequence[System]) -> str:
    return (
        "Figures: mean, then low and high end of its 95 % interval (bootstrap by user).\n"
        f"Second line: {systems[0].name} minus this system on the same queries; * where that interval does not hold 0.\n"
        "cover: share of the catalogue that is shown; bits: novelty, mean -log2 of an item's share of the training events;\n"
        "Gini: how unevenly items are shown, 0 all alike, 1 one item alone."
    )
