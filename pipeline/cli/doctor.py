"""`headrace doctor`: what is wrong, and the mend."""

from __future__ import annotations

import sys

import click

from pipeline.cli import with_settings
from pipeline.cli.escaping import printed
from pipeline.config import Settings
from pipeline.doctor import examine


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_settings
def command(*, settings: Settings, as_json: bool) -> None:
    """Look at broker, topics, log identity, Redis, state, model, lag and clock. Exit 1 when something is wrong.

    It only reads, so it is safe beside a running worker.
    """
    found = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            mend = f" -> {finding.mend}" if finding.mend else ""
            click.echo(f"{finding.status:<5}  {finding.check}: {finding.seen}{mend}")
    wrong = any(finding.status == "wrong" for finding in found)
    if as_json:
        findings = [finding._asdict() for finding in found]
        click.echo(printed({"ok": not wrong, "findings": findings}))
    if wrong:
        sys.exit(1)
