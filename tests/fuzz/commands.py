"""The command line under random arguments, with no server behind it: exit 0, 1 or 2, and one line, never a traceback."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import confluent_kafka
from click.testing import CliRunner

from pipeline.cli import COMMANDS, main

EXITS = (0, 1, 2)
NOT_RUN = ("demo", "worker")  # they start processes or never end; their arguments are read all the same
WORDS = (
    "", "-", "--", "0", "1", "-1", "1e999", "nan", "x", "..", "/", "\n", "é", "\udcff", "a" * 300, "--json",
    "--help", "--limit", "--out", "--rate", "--speedup", "--map", "--topic", "--from", "--to", "--reason", "--user",
    "--from-start", "--timeout", "--file", "--replication", "--force", "--seed", "--rec-id", "--write", "--model",
    "--version", "--init", "--monotone", "--search", "--leaves", "--learning-rate", "--trees", "--threads", "--since",
    "--from-kafka", "--questions", "--config", "--debug", "list", "show", "create", "check", "replay", "user", "item",
    "digest", "promote", "rollback", "shadow", "off", "rerank", "next-item", "--test", "--anew", "--clean", "--models",
    "items", "user_actions", "user_id=u", "user_id==u", "training", "features", "2020-01-01", "v1", "99999999999999999999",
    "SET", "EMPTY", "FILE", "CSV", "CONFIG", "GONE",
)  # fmt: skip
SEEDS = tuple(f"{name} {n}".encode() for n, name in enumerate(COMMANDS))


class _Away:
    """A Kafka client of a broker that does not answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._TRANSPORT))


@lru_cache(maxsize=1)
def _places() -> dict[str, str]:
    """Words that stand for paths: a small data set, an empty folder, files, a file that is not there."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-cli-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "set").mkdir()
    (folder / "empty").mkdir()
    action = '{"event_id":"e%d","user_id":"u%d","item_id":"i%d","action":"view","ts_ms":%d}'
    rows = "\n".join(action % (n, n % 5, n % 7, 1_760_000_000_000 + n * 1000) for n in range(60))
    (folder / "set" / "user_actions.jsonl").write_text(rows + "\n")
    (folder / "file.jsonl").write_text(rows + "\n{cut\n")
    (folder / "file.csv").write_text("user_id,item_id,ts_ms\nu,i,5\n")
    (folder / "worker.toml").write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n[[actions]]\nname = "view"\n')
    return {
        "SET": str(folder / "set"), "EMPTY": str(folder / "empty"), "FILE": str(folder / "file.jsonl"),
        "CSV": str(folder / "file.csv"), "CONFIG": str(folder / "worker.toml"), "GONE": str(folder / "gone"),
    }  # fmt: skip


def arguments(raw: bytes) -> list[str]:
    """A command and up to six words, by the bytes: readable ones are taken as they are, the others choose."""
    chance = random.Random(raw)
    named = raw.split(b" ")[0].decode("ascii", "ignore")
    command = named if named in COMMANDS else chance.choice(list(COMMANDS))
    words = [chance.choice(WORDS) for _ in range(chance.randrange(7))]
    if chance.random() < 0.3 and len(raw) > 1:
        words.append(raw.decode("utf-8", "surrogateescape").replace("\x00", ""))  # no shell can pass it
    head = ["--config", "CONFIG"] if chance.random() < 0.7 else []
    places = _places()
    return [places.get(word, word) for word in (*head, command, *words)]


def command_line(raw: bytes) -> None:
    """Runs one command line in a folder of its own."""
    words = arguments(raw)
    if any(name in words for name in NOT_RUN):
        words.append("--no-such-option")
    before = Path.cwd()
    with ExitStack() as stack:
        for name in ("Consumer", "Producer"):
            stack.enter_context(patch.object(confluent_kafka, name, _Away))
        stack.enter_context(patch("confluent_kafka.admin.AdminClient", _Away))
        for module in _kafka_users():
            for name in ("Consumer", "Producer", "AdminClient"):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, _Away))
        stack.enter_context(patch.dict(os.environ, {"HEADRACE_REDIS_TIMEOUT_MS": "50"}))
        os.chdir(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(os.chdir, before)
        done = CliRunner().invoke(main, words, prog_name="headrace", input="")
    assert done.exit_code in EXITS, (words, done.exit_code, done.output, done.exception)
    assert "Traceback" not in done.output, (words, done.output)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(words) from done.exception


@lru_cache(maxsize=1)
def _kafka_users() -> tuple[Any, ...]:
    """Every module of ours that holds a client class by name; all commands are imported for it."""
    import sys
    from importlib import import_module

    for name in COMMANDS:
        import_module(f"pipeline.cli.{name.replace('-', '_')}")
    return tuple(module for name, module in sys.modules.items() if name.startswith("pipeline."))
