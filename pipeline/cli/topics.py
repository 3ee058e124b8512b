"""`headrace topics create|check`: the broker's topics against deploy/topics.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from confluent_kafka.admin import AdminClient

from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.config import Settings
from pipeline.kafka.access import reach
from pipeline.kafka.clients import confluent
from pipeline.kafka.topics import DECLARED, check, create, load_topics

FILE = click.option("--file", "file", type=click.Path(path_type=Path), default=DECLARED, help="Default: topics.toml.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group("topics")
def command() -> None:
    """Create or check the topics that deploy/topics.toml declares."""


@command.command("create")
@FILE
@click.option("--replication", type=click.IntRange(1, 32), default=1, show_default=True)
@JSON
@with_settings
def create_missing(*, settings: Settings, file: Path, replication: int, as_json: bool) -> None:
    """Create the topics that are missing; existing ones stay as they are. Safe to repeat."""
    topics = load_topics(file, prefix=settings.kafka.topic_prefix)
    reach(settings.kafka)
    outcome = create(AdminClient(confluent(settings.kafka)), topics, replication=replication)
    if as_json:
        click.echo(printed(outcome))
    else:
        for name, said in outcome.items():
            click.echo(f"{name}: {said}")
    if set(outcome.values()) - {"created", "exists"}:
        sys.exit(1)


@command.command("check")
@FILE
@JSON
@with_settings
def compare(*, settings: Settings, file: Path, as_json: bool) -> None:
    """Compare the broker's topics with the declaration; exit 1 when one differs."""
    topics = load_topics(file, prefix=settings.kafka.topic_prefix)
    reach(settings.kafka)
    found = check(AdminClient(confluent(settings.kafka)), topics)
    if as_json:
        click.echo(printed(found))
    else:
        for name, lines in found.items():
            click.echo(f"{name}: {'; '.join(lines) if lines else 'as declared'}")
    if any(found.values()):
        sys.exit(1)
