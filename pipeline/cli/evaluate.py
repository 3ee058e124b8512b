"""`headrace evaluate rerank DIR` and `evaluate next-item TRAIN`: ranking quality by published protocols."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pipeline.cli import with_settings
from pipeline.cli.progress import bar
from pipeline.config import Settings
from pipeline.evaluating import Options, next_item_folder, rerank_folder
from pipeline.offline import QUESTIONS_MAX
from pipeline.tables import print_report
from recommender.evaluation.report import Report

if TYPE_CHECKING:
    from pipeline.lockstep import Comparison

EXIT_DIFFERS = 1
FOLDER = click.Path(path_type=Path, file_okay=False)


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What both protocols take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The report as one JSON object."),
        click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Of the training."),
        click.option(
            "--search", type=click.IntRange(0, 64), help="Settings to try on validation; default: [training]."
        ),
        click.option(
            "--questions",
            type=click.IntRange(min=20),
            default=QUESTIONS_MAX,
            show_default=True,
            help="Newest to learn.",
        ),
        click.option("--model", type=FOLDER, help="Judge this version; refused where it has seen the test part."),
        click.option(
            "--without-attribute", "attributes", multiple=True, help="Leave an item attribute out; repeat it."
        ),
    ):
        function = option(function)
    return function


@click.group("evaluate")
def command() -> None:
    """Ranking quality, through the code that serves: the last 20 % by time, against simple rules.

    Without --config the folder's own worker.toml holds, else what `init` would write for it.
    """


@command.command("rerank")
@click.argument("directory", type=FOLDER)
@click.option("--use-position", is_flag=True, help="The place shown is a feature; without it no figure knows it.")
@click.option("--through-kafka", is_flag=True, help="Ask a worker over real topics too; exit 1 where it differs.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=100, show_default=True, help="With --through-kafka: lists to ask."
)
@click.option(
    "--servers",
    type=click.Choice(["embedded", "configured"]),
    default="embedded",
    show_default=True,
    help="With --through-kafka: whose Kafka and Redis; topics and keys of its own, taken away at the end.",
)
@options
@with_settings
def rerank(
    *,
    settings: Settings,
    directory: Path,
    use_position: bool,
    through_kafka: bool,
    sample: int,
    servers: str,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Order the lists that were shown in DIR again: NDCG@10 and MRR of the items acted on."""
    if through_kafka and use_position:
        raise click.UsageError("--through-kafka: a request does not say where its items were shown, no --use-position")
    asked = _options(settings, use_position=use_position, **chosen)
    if not through_kafka:
        with bar() as say:
            report, _, _ = rerank_folder(directory, settings, asked, say=say)
        _print(report, as_json=as_json)
        return
    from pipeline.lockstep import LockStep

    theirs = (settings.kafka, settings.redis) if servers == "configured" else None
    with bar() as say, LockStep(sample=sample, servers=theirs, say=say) as steps:
        report, _, _ = rerank_folder(directory, settings, asked, say=say, companion=steps)
    _print(report, as_json=as_json, compared=steps.comparison)
    if not steps.comparison.all_equal:
        sys.exit(EXIT_DIFFERS)


@command.command("next-item")
@click.argument("train", type=FOLDER)
@click.option("--test", type=FOLDER, help="Its sessions are predicted; absent: the last 20 % of TRAIN, rolling.")
@click.option("--valid", type=FOLDER, help="Chooses the settings; absent: the last part of TRAIN.")
@click.option("--rolling", "roll", is_flag=True, help="With --test: all state goes on, not the session's alone.")
@click.option("--basket", is_flag=True, help="Predict a whole session's items before its first.")
@click.option("--new-to-user", is_flag=True, help="Only items that the user never acted on before.")
@click.option("--without-item", "items", multiple=True, help="An item that is no answer (postage ...); repeat it.")
@options
@with_settings
def next_item(
    *,
    settings: Settings,
    train: Path,
    test: Path | None,
    valid: Path | None,
    roll: bool,
    basket: bool,
    new_to_user: bool,
    items: tuple[str, ...],
    as_json: bool,
    **chosen: Any,
) -> None:
    """What users act on next in TRAIN's sessions: HR@20 and MRR@20; with --basket HR, recall and NDCG@20."""
    if basket and new_to_user:
        raise click.UsageError("--basket and --new-to-user: one at a time")
    if (valid or roll) and not test:
        raise click.UsageError("--valid and --rolling go with --test")
    if valid and roll:
        raise click.UsageError("--valid and --rolling: one at a time; a rolling state is validated by the end of TRAIN")
    with bar() as say:
        report = next_item_folder(
            train,
            settings,
            _options(settings, without_items=items, **chosen),
            say=say,
            test=test,
            valid=valid,
            roll=roll,
            kind="baskets" if basket else "next",
            new_to_user=new_to_user,
        )
    _print(report, as_json=as_json)


def _options(
    settings: Settings,
    *,
    questions: int,
    threads: int,
    search: int | None,
    model: Path | None,
    attributes: tuple[str, ...],
    use_position: bool = False,
    without_items: tuple[str, ...] = (),
) -> Options:
    training = msgspec.structs.replace(settings.training, threads=threads)
    if search is not None:
        training = msgspec.structs.replace(training, search=search)
    return Options(training, questions, use_position, model, without_items, attributes)


def _print(report: Report, *, as_json: bool, compared: Comparison | None = None) -> None:
    if as_json:
        beside = {} if compared is None else {"through_kafka": compared}
        click.echo(msgspec.json.encode({**msgspec.structs.asdict(report), **beside}).decode())
        return
    print_report(report)
    if compared is not None:
        click.echo("\n".join([compared.summary(), *compared.differences]))
