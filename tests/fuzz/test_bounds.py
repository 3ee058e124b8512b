"""Inputs that never end, in a process that may not grow: a clear error that names file and line, in bounded memory."""

import json
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pipeline.dataset import lines

MEMORY_BYTES_MAX = 400 << 20
DATA_BYTES_MAX = 1 << 30
TIMEOUT_S = 110
READ = """
import json, resource, sys
from pathlib import Path
from pipeline.config import ConfigError, load
from pipeline.dataset import DataSetError
from pipeline.initialise import initialise
from pipeline.publishing import rows

def said(how, path, entries):
    try:
        if how == "rows":
            return f"{sum(1 for _ in rows(Path(path), topic='user_actions', entries=tuple(entries)))} rows"
        if how == "init":
            return f"{len(initialise(Path(path)))} characters"
        return f"{bool(load(Path(path), {}))} settings"
    except (ConfigError, DataSetError) as error:
        return f"refused: {error}"

answers = [said(how, path, entries) for how, path, *entries in json.loads(sys.argv[1])]
print(json.dumps([answers, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
ROW = json.dumps({"event_id": "e", "user_id": "u", "item_id": "i", "action": "view", "ts_ms": 5}).encode() + b"\n"


def run(*asked, stdin=None):
    """What the readers say of (how, path, mappings ...), one after the other in one process that may not grow."""
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps([[how, str(path), *entries] for how, path, *entries in asked])],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX, DATA_BYTES_MAX)),
    )
    assert done.returncode == 0, done.stderr
    answers, peak = json.loads(done.stdout)
    assert peak < MEMORY_BYTES_MAX, answers
    return answers


def bomb(path, head, filler, times):
    """A gzip file of `head` and `filler` so many times: a flushed piece of deflate may stand as often as one likes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH))
        file.write((packer.compress(filler) + packer.flush(zlib.Z_FULL_FLUSH)) * times)


def test_gzip_files_that_unfold_to_ten_gigabytes_are_refused_by_file_and_line(tmp_path):
    asked = []
    for number, filler in enumerate((b"\0", b"x", b'"', b",", b'"' + b"x\n" * 500 + b'",', b"\n")):
        for suffix in ("jsonl", "csv"):
            path = tmp_path / f"actions-{number}.{suffix}.gz"
            head = ROW if suffix == "jsonl" else b"event_id,user_id\n"
            bomb(path, head, filler * ((1 << 20) // len(filler)), 10_000)
            assert path.stat().st_size < 100 << 20
            asked.append(("rows", path))
    asked = [each for each in asked if not each[1].name.startswith(("actions-4.jsonl", "actions-5.csv"))]  # sound
    for (_, path), said in zip(asked, run(*asked), strict=True):
        assert said.startswith("refused: "), (path, said)
        assert path.name in said
        blank = path.name.startswith("actions-5")
        assert ("blank lines in a row" if blank else "of more than") in said


def test_what_never_ends_or_is_no_file_is_refused_at_once(tmp_path):
    hole = tmp_path / "hole" / "user_actions.jsonl"
    hole.parent.mkdir()
    with hole.open("wb") as file:
        file.write(ROW)
        file.truncate(5 << 30)  # no disk is used
    odd = []
    for name in ("user_actions.jsonl", "user_actions.jsonl.gz", "clicks.csv", "worker.toml"):
        for kind in ("pipe", "device"):
            path = tmp_path / kind / name
            path.parent.mkdir(exist_ok=True)
            if kind == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to("/dev/zero")
            odd.append(("load" if name == "worker.toml" else "rows", path))
    with Path("/dev/zero").open("rb") as zeros:
        *said, plain, sample, stdin, folder = run(
            *odd, ("rows", hole), ("init", hole.parent), ("rows", "-"), ("load", tmp_path), stdin=zeros
        )
    assert all("not a file" in each for each in (*said, folder))
    assert all(":2: a line of more than" in each for each in (plain, sample))
    assert "stdin:1: a line of more than" in stdin


def test_deep_nesting_huge_numbers_and_odd_bytes_pass_as_rows_and_are_refused_as_settings(tmp_path):
    path = tmp_path / "user_actions.jsonl"
    odd = [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"ts_ms": ' + b"9" * 100_000 + b"}",
        b'{"ts_ms": NaN}',
        b'{"user_id": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe\x00",
        ROW.strip() + b"\r",
    ]
    path.write_bytes(b"\n".join(odd))
    settings = []
    for number, text in enumerate(("a = " + "[" * 100_000, "a = " + "9" * 100_000, "#" * (5 << 20))):
        settings.append(("load", tmp_path / f"{number}.toml"))
        settings[-1][1].write_text(text)
    plain, renamed, *refused = run(("rows", path), ("rows", path, "value=v", "attributes.x=y"), *settings)
    assert plain == renamed == f"{len(odd)} rows"
    assert [said.partition(".toml: ")[0] for said in refused] == [f"refused: {tmp_path}/{n}" for n in range(3)]


@pytest.mark.parametrize("left", [b"", ROW * 3])
def test_a_file_that_shrinks_while_it_is_read_ends(tmp_path, left):
    path = tmp_path / "user_actions.jsonl"
    path.write_bytes(ROW * 100_000)
    found = lines(path)
    assert next(found)[0] == 1
    path.write_bytes(left)
    assert sum(1 for _ in found) < 100_000
