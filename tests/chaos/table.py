"""The final table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.chaos.run import Result


def table(results: Sequence[Result]) -> Table:
    """One row a run; they share broker and Redis."""
    servers = {f"{each.broker} broker, {each.redis} Redis" for each in results}
    drawn = Table(title=f"chaos: {'; '.join(sorted(servers))}")
    heads = ("scenario", "seed", "events", "faults", "lost", "twice", "unanswered", "digest", "recovery p50/max s",
             "starts", "s", "")  # fmt: skip
    for head in heads:
        drawn.add_column(head, justify="left" if head in ("scenario", "") else "right", no_wrap=True)
    for each in results:
        drawn.add_row(*_row(each), style="" if each.clean else "red")
    return drawn


def _row(each: Result) -> list[str]:
    head = [each.scenario, str(each.seed), str(each.records or each.events), str(each.faults)]
    end = [str(each.starts), f"{each.seconds:.0f}"]
    if each.error:
        return [*head, *["-"] * 5, *end, "no verdict"]
    recovery = "-" if each.recovery_p50_s is None else f"{each.recovery_p50_s:.1f} / {each.recovery_max_s:.1f}"
    digest = "equal" if each.digest_equal else "DIFFERS"
    counts = [str(each.lost), str(each.doubled), str(each.unanswered), digest]
    return [*head, *counts, recovery, *end, "clean" if each.clean else "NOT CLEAN"]
