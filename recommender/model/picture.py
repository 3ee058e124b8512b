"""The picture beside a model: how NDCG@10 grew with the trees, and which columns the ranker leans on.

Drawn by matplotlib (extra `train`), imported only here and only when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from recommender.model.boosting import Round
from recommender.model.manifest import Importance

PICTURE_FILE = "report.png"
BARS_MAX = 20
MISSING = f"no {PICTURE_FILE}: matplotlib is not installed, pip install 'headrace[train]' brings it"

INK, FAINT, LEARNED, HELD_OUT = "#333333", "#dddddd", "#9db8cf", "#1f5f99"


def can_draw() -> bool:
    """Whether the extra `train` is installed."""
    return find_spec("matplotlib") is not None


def report_png(
    rounds: Sequence[Round], importances: Sequence[Importance], *, trees: int, lists: int, title: str
) -> bytes:
    """A PNG of two panels. rounds: of the chosen setting; trees: where it stopped; lists: how many were held out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    curve, columns = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    figure.suptitle(title, color=INK, fontsize=11)
    _curve(curve, rounds, trees, lists)
    _bars(columns, importances)
    png = BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _curve(axes: Any, rounds: Sequence[Round], trees: int, lists: int) -> None:
    numbers = [found.tree for found in rounds]
    chosen = min((found for found in rounds if found.tree >= trees), default=rounds[-1])
    held_out = f"held out, {lists} newest lists: {chosen.validation:.3f} at {chosen.tree} trees"
    axes.plot(numbers, [found.train for found in rounds], color=LEARNED, label="learned from")
    axes.plot(numbers, [found.validation for found in rounds], color=HELD_OUT, label=held_out)
    axes.axvline(chosen.tree, color=INK, linewidth=0.8, linestyle=":")
    axes.plot([chosen.tree], [chosen.validation], "o", color=HELD_OUT, markersize=5)
    axes.set_xlabel("trees")
    axes.set_ylabel("NDCG@10")
    # above the panel: wherever it stood inside, some curve would run through it
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    _plain(axes, grid="y")


def _bars(axes: Any, importances: Sequence[Importance]) -> None:
    total = sum(column.gain for column in importances) or 1.0
    bars = importances[:BARS_MAX]
    places = list(range(len(bars)))
    axes.barh(places, [100 * bar.gain / total for bar in bars], color=HELD_OUT, height=0.7)
    axes.set_yticks(places, [bar.feature for bar in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"% of all gain: the first {len(bars)} of {len(importances)} columns used")
    _plain(axes, grid="x")


def _plain(axes: Any, *, grid: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis=grid, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
