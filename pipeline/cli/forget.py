"""`headrace forget USER...`: a null record for each user on `user_actions`."""

from __future__ import annotations

import sys

import click

from features.schema import USER_ACTIONS, Refused, check_id
from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.config import Settings
from pipeline.kafka.access import reach
from pipeline.kafka.delivery import Delivery


@click.command("forget")
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
@with_settings
def command(*, settings: Settings, users: tuple[str, ...], as_json: bool) -> None:
    """Have the workers forget users: all that the state knows of them goes within seconds, for good.

    What they did up to now never counts again, also when it is sent again; what they do later counts. Counts of items,
    which name nobody, stay. The topics keep what they hold until its retention is over. Exit 1 when not all were
    delivered; to send it again is safe.
    """
    for user in users:
        try:
            check_id("USER", user)
        except Refused as error:
            raise click.UsageError(f"{user!r}: {error}") from error
    topic = settings.kafka.topic_prefix + USER_ACTIONS
    reach(settings.kafka, [topic])
    with Delivery(settings.kafka, linger_ms=0) as delivery:
        for user in users:
            delivery.send(topic, topic, key=user.encode(), value=None)
    report = {"users": len(users), "delivered": delivery.delivered, "failed": delivery.failed}
    if as_json:
        click.echo(printed(report))
    else:
        click.echo(
            f"{delivery.delivered} of {len(users)} will be forgotten; what the topics hold goes by their retention"
        )
        for reason, times in delivery.books[topic].reasons.items():
            click.echo(f"  {times:>7}  {reason}")
    if delivery.failed:
        sys.exit(1)
