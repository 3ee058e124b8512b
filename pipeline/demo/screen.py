"""What the demo shows: one picture of the pipeline for a terminal, one line of it elsewhere. Pure: a frame in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from features.schema import Recommendation
from pipeline.demo.ledger import Latency, Totals

TITLE_CHARS = 34
ITEMS_SHOWN = 3
BAR_CELLS = 24
LEVEL_STYLES = {"full": "green", "partial": "yellow", "popular": "red"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment of the demo."""

    traffic: str
    phase: str
    elapsed_s: float
    totals: Totals
    latency: Latency
    events_per_s: float
    recommendations_per_s: float
    applied: int
    dead_lettered: int
    worker_pid: int | None
    restarts: int
    model: str
    hit_rates: Mapping[str, tuple[float | None, int]] = field(default_factory=dict)  # kind: (rate, lists)
    newest: Sequence[Recommendation] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def lag(self) -> int:
        """Records published and not yet applied."""
        return max(0, self.totals.published - self.applied)


def picture(frame: Frame) -> RenderableType:
    """The live view."""
    head = Table.grid(padding=(0, 3))
    for _ in range(4):
        head.add_column()
    totals, latency = frame.totals, frame.latency
    head.add_row(
        _fact("events/s", f"{frame.events_per_s:,.0f}"),
        _fact("recommendations/s", f"{frame.recommendations_per_s:,.0f}"),
        _fact("p50", _ms(latency.p50)),
        _fact("p99", _ms(latency.p99)),
    )
    head.add_row(
        _fact("published", f"{totals.published:,}"),
        _fact("lag", f"{frame.lag:,}"),
        _fact("unanswered", f"{totals.unanswered:,}"),
        _fact("dead letters", f"{frame.dead_lettered:,}"),
    )
    head.add_row(
        _fact("worker", f"pid {frame.worker_pid or '-'}"),
        _fact("restarts", str(frame.restarts)),
        _fact("repeats", str(totals.repeats)),
        _fact("model", frame.model),
    )
    body: list[RenderableType] = [head, Text(), _levels(totals.levels)]
    if frame.hit_rates:
        body.append(_hits(frame.hit_rates))
    if frame.trouble:
        body.append(Text(frame.trouble, style="bold red"))
    title = f"headrace demo · {frame.traffic} · {frame.phase} · {frame.elapsed_s:.0f} s"
    return Group(Panel(Group(*body), title=title, title_align="left"), _newest(frame))


def line(frame: Frame) -> str:
    """The same in one plain line."""
    totals = frame.totals
    levels = " ".join(f"{name}={count}" for name, count in sorted(totals.levels.items())) or "-"
    parts = [
        f"{frame.elapsed_s:5.0f} s {frame.phase}",
        f"{frame.events_per_s:.0f} events/s",
        f"{frame.recommendations_per_s:.0f} recommendations/s",
        f"p50 {_ms(frame.latency.p50)} p99 {_ms(frame.latency.p99)}",
        f"lag {frame.lag}",
        f"unanswered {totals.unanswered}",
        f"dead letters {frame.dead_lettered}",
        f"levels {levels}",
        *(f"hit rate {kind} {_share(rate)} of {lists}" for kind, (rate, lists) in frame.hit_rates.items()),
        f"worker {frame.worker_pid or '-'} restarts {frame.restarts}",
    ]
    return " | ".join(parts) + (f" | {frame.trouble}" if frame.trouble else "")


def _newest(frame: Frame) -> RenderableType:
    table = Table(expand=True, title="newest recommendations", title_justify="left", title_style="bold")
    table.add_column("user", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("best items (source)", ratio=1, no_wrap=True, overflow="ellipsis")
    for answer in reversed(frame.newest):
        items = Text(" · ").join(_item(frame.titles, item.item_id, item.source) for item in answer.items[:ITEMS_SHOWN])
        table.add_row(answer.user_id[:16], _level(answer.level), items)
    return table


def _item(titles: Mapping[str, str], item_id: str, source: str) -> Text:
    title = titles.get(item_id, item_id)
    short = title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…"
    return Text.assemble(short, (f" ({source})", "dim"))


def _levels(levels: Mapping[str, int]) -> Text:
    total = sum(levels.values())
    text = Text("levels ", style="dim")
    for name in LEVEL_STYLES:
        share = levels.get(name, 0) / total if total else 0.0
        text.append("█" * round(share * BAR_CELLS), style=LEVEL_STYLES[name])
        text.append(f" {name} {share:.0%}  ")
    return text


def _hits(rates: Mapping[str, tuple[float | None, int]]) -> Text:
    text = Text("hit rate ", style="dim")
    for kind, (rate, lists) in rates.items():
        text.append(f"{kind} ")
        text.append(_share(rate), style="bold")
        text.append(f" of {lists:,} lists   ", style="dim")
    return text


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, "bold"))


def _level(level: str) -> Text:
    return Text(level, style=LEVEL_STYLES.get(level, ""))


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
