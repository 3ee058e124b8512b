"""The command line: one click group, each command in a file of its own that is imported only when it runs.

`headrace --help` must not pay for LightGBM or Faust, so the one-line helps stand here and not in the commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from pipeline.config import ConfigError, load
from pipeline.dataset import DataSetError

COMMANDS = {
    "demo": "Embedded broker and Redis, worker, traffic, live view: nothing else to install.",
    "worker": "One pipeline worker on the configured Kafka and Redis.",
    "publish": "A file, a data set folder or stdin into the topics.",
    "tail": "Follow the recommendations.",
    "topics": "Create or check the topics that deploy/topics.toml declares.",
    "forget": "Have the workers forget users, for good.",
    "dead-letters": "Look at what was refused, send it again after a fix.",
    "replay": "A log through the same code without Kafka and Redis.",
    "train": "A ranker with its manifest, from a replay.",
    "evaluate": "Ranking quality by published protocols, against simple rules.",
    "models": "The registry and the gate: list, show, promote, rollback, shadow.",
    "init": "Look at a sample, write a worker.toml for it.",
    "state": "What Redis knows of a user or an item; one digest of all of it.",
    "rebuild": "All state again from the topics or a folder, while workers answer on.",
    "doctor": "Broker, topics, Redis, model, lag, clock: what is wrong and the mend.",
}
EXIT_WRONG = 2


class Commands(click.Group):
    """Finds a command in `pipeline/cli/<name>.py` (its `command`) and turns expected errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports the command's module, and only that."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pipeline.cli.{cmd_name.replace('-', '_')}")
        return module.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The one-line helps, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; what an operator can mend is one line on stderr and exit 2, not a traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if ctx.params.get("debug") or not isinstance(error, _expected()):
                raise
            click.echo(f"headrace: {error}", err=True)
            ctx.exit(EXIT_WRONG)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="HEADRACE_CONFIG",
    help="The TOML file of settings; also HEADRACE_CONFIG. Absent: defaults.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="headrace")
@click.pass_context
def main(ctx: click.Context, *, config: Path | None, debug: bool) -> None:
    """Headrace: user events in from Kafka, ranked recommendations out."""
    _ = debug  # read from the context where an error is shown
    ctx.obj = config


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command's decorator: passes the `Settings` of --config and the environment as the keyword `settings`."""

    @click.pass_context
    def command(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        return ctx.invoke(function, *args, settings=load(ctx.find_root().obj, os.environ), **kwargs)

    return update_wrapper(command, function)


def _expected() -> tuple[type[Exception], ...]:
    """The errors that an operator can mend. Imported late: only a failing command pays."""
    port = import_module("features.store.port")
    kafka = (sys.modules["confluent_kafka"].KafkaException,) if "confluent_kafka" in sys.modules else ()
    return (
        ConfigError,
        DataSetError,
        port.StateForeign,
        port.StateLost,
        port.StateMoved,
        port.StoreAway,
        port.StoreRefused,
        OSError,  # a full disk, a folder that may not be read, a name too long: it names the file
        *kafka,
    )
