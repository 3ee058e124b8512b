"""`headrace state show user|item ID`, `headrace state digest`: what Redis knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from features.digest import digest
from features.schema import INPUT_TOPICS
from features.store.port import FeatureStore, Layout
from features.view import StateView
from pipeline.app import open_store
from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.config import ConfigError, Settings, require_actions
from pipeline.state_facts import item_facts, marks, user_facts

NEWEST_SHOWN = 20
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group("state")
def command() -> None:
    """What Redis knows of a user or an item; one digest of all of it."""


@command.command("show")
@click.argument("kind", type=click.Choice(("user", "item")))
@click.argument("name", metavar="ID")
@click.option("--now", "now_ms", type=click.IntRange(min=0), help="Epoch ms to look at it from; default: its newest.")
@JSON
@with_settings
def show(*, settings: Settings, kind: str, name: str, now_ms: int | None, as_json: bool) -> None:
    """Show the user's log, or the item's record, counts and neighbours. Exit 1 where the state has nothing."""
    with _opened(settings) as (store, layout):
        view = StateView(store, settings.domain, layout, freshness_ms=0)
        found = (user_facts if kind == "user" else item_facts)(store, view, name, now_ms=now_ms)
    if found is None:
        click.echo(f"{kind} {name}: the state has nothing", err=True)
        sys.exit(1)
    if as_json:
        click.echo(printed(found))
        return
    for line in _user_lines(found) if kind == "user" else _item_lines(found):
        click.echo(line)


@command.command("digest")
@JSON
@with_settings
def whole(*, settings: Settings, as_json: bool) -> None:
    """One hash of the exact state, equal to that of `headrace replay` on the same log. Take it while nothing is applied."""
    topics = [settings.kafka.topic_prefix + topic for topic in INPUT_TOPICS]
    with _opened(settings) as (store, layout):
        found: dict[str, Any] = {
            "digest": digest(store, layout, settings.domain),
            "hwm": marks(store, topics),
            "counts": store.counts(),
        }
    if as_json:
        click.echo(printed(found))
        return
    click.echo(f"digest {found['digest']}")
    for name in ("hwm", "counts"):
        click.echo(f"{name} " + " ".join(f"{key}={value}" for key, value in found[name].items()))


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[FeatureStore, Layout]]:
    require_actions(settings)
    store = open_store(settings)
    try:
        if not store.begun():  # opening fixes the columns of an empty state: never by accident
            raise ConfigError(f"no state yet under redis.app {settings.redis.app!r}: a worker begins it")
        yield store, store.open(settings.domain)
    finally:
        store.close()


def _time(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def _user_lines(found: Mapping[str, Any]) -> Iterator[str]:
    actions = found["actions"]
    yield f"user {found['user_id']} at {_time(found['now_ms'])} UTC"
    yield f"{len(actions)} actions, {found['impressions']} impressions, {found['bytes']} bytes; the newest:"
    for seen in actions[-NEWEST_SHOWN:]:
        mark = "*" if seen["open"] else " "
        yield f"  {_time(seen['ts_ms'])}  session {seen['session']:>3}{mark}  {seen['action']:<20}  {seen['item_id']}"
    if found["bought"]:
        yield "bought: " + ", ".join(found["bought"])


def _item_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"item {found['item_id']} at {_time(found['now_ms'])} UTC, touched by {found['sessions']} of the newest 64 sessions"
    record = found["record"]
    if record is None:
        yield "no record in the catalogue"
    else:
        word = "gone" if record["gone"] else "available" if record["available"] else "not available"
        yield f"{word}, as of {record['ts_ms']}: {printed(record['attributes'])}"
    for column, counts in found["counts"].items():
        decayed = found["decayed"][column]
        yield f"  {column:<20}" + "".join(f"  {name} {value:g}" for name, value in {**counts, **decayed}.items())
    if found["goes_with"]:
        yield "goes with: " + ", ".join(f"{item} {weight:g}" for item, weight in found["goes_with"].items())
