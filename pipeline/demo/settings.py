"""The demo's worker.toml: what the events mean (the shop's, or `init`'s guess), and where the embedded servers are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from pipeline.config import Kafka, Redis, Settings, Worker

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


def placed(
    settings: Settings, *, bootstrap: str, redis_url: str, models: Path, data_dir: Path, metrics_port: int
) -> Settings:
    """`settings` with their own idea of what the events mean, and the worker on the embedded servers."""
    return replace(
        settings,
        kafka=Kafka(bootstrap=bootstrap, fetch_wait_ms=FETCH_WAIT_MS),
        redis=Redis(url=redis_url),
        model=replace(settings.model, directory=str(models)),
        worker=Worker(data_dir=str(data_dir), web_port=0, metrics_port=metrics_port, log_format="console"),
    )


def toml(settings: Settings) -> str:
    """Settings as a TOML file that `pipeline.config.load` reads back to the same.

    >>> print(toml(Settings(item_context=("price",))).split("[kafka]")[0].strip())
    actions = []
    attributes = []
    context = []
    item_context = ["price"]
    session_gap_min = 30
    user_retention_days = 90
    item_retention_days = 90
    """
    tree = msgspec.to_builtins(settings)
    plain = [f"{name} = {_value(value)}" for name, value in tree.items() if not _is_table(value)]
    return "\n".join(plain + [line for name, value in tree.items() for line in _tables(name, value)]) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, (list, tuple)) and any(isinstance(each, dict) for each in value)
    )


def _tables(name: str, value: Any) -> Iterator[str]:
    if not _is_table(value):
        return
    head, tables = (f"[{name}]", [value]) if isinstance(value, dict) else (f"[[{name}]]", value)
    for table in tables:
        yield f"\n{head}"
        yield from (f"{key} = {_value(each)}" for key, each in table.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's scalars are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
