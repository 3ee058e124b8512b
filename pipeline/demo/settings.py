"""The demo's worker.toml: what the events mean (the shop's, or `init`'s guess), and where the embedded servers are."""

from __future__ import annotations

import json
from pathlib import Path

SHOP = """\
# The simulated shop's events.

[recommend]
filters = ["available", "bought"]

[[actions]]
name = "view"
weight = 1.0
grade = 0

[[actions]]
name = "click"
weight = 1.0
grade = 1

[[actions]]
name = "cart"
weight = 2.0
grade = 2

[[actions]]
name = "purchase"
weight = 4.0
grade = 3
purchase = true

[[attributes]]
name = "category"
kind = "category"
candidates = true

[[attributes]]
name = "brand"
kind = "category"
candidates = true

[[attributes]]
name = "tags"
kind = "set"
candidates = true

[[attributes]]
name = "price"
kind = "number"

[[context]]
name = "device"
kind = "category"
"""

FETCH_WAIT_MS = 10  # the embedded broker sits out the whole wait, so it would add itself to every latency


def worker_toml(
    meaning: str, *, bootstrap: str, redis_url: str, models: Path, data_dir: Path, metrics_port: int
) -> str:
    """`meaning` (actions, attributes, context as TOML) with the tables that place the worker on the embedded servers.

    >>> from pathlib import Path
    >>> text = worker_toml("", bootstrap="h:1", redis_url="unix:///r", models=Path("m"), data_dir=Path("v"), metrics_port=1)
    >>> text.splitlines()[1:3]
    ['[kafka]', 'bootstrap = "h:1"']
    """
    placed: dict[str, dict[str, str | int]] = {
        "kafka": {"bootstrap": bootstrap, "fetch_wait_ms": FETCH_WAIT_MS},
        "redis": {"url": redis_url},
        "model": {"directory": str(models)},
        "worker": {"data_dir": str(data_dir), "web_port": 0, "metrics_port": metrics_port, "log_format": "console"},
    }
    lines = [meaning.rstrip("\n")]
    for table, keys in placed.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines)
