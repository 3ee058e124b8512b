"""Models change under a running worker: swap and rollback under load, and versions damaged in every way."""

import json
import os
import shutil
import threading
import time
from hashlib import sha256
from itertools import count

import numpy as np
import pytest
from click.testing import CliRunner

from features.schema import SERVED_FEATURES
from pipeline import models
from pipeline.cli import main
from pipeline.embedded import free_port
from recommender.served import recompute, unpack
from tests.integration.artefacts import write_version
from tests.integration.worlds import World, now_ms, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()
SWAP_S = 60  # the promise is 2 s; this bound is for a machine with other things to do


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"m{os.getpid()}x{next(NAMES)}", free_port())
    made.config.write_text(made.config.read_text().replace("[model]\n", "[model]\npoll_ms = 100\n"))
    yield made
    made.stop()


def headrace(world, *words, code=0):
    done = CliRunner().invoke(main, ["--config", str(world.config), "models", *words, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def name(world, version, *, model="ranker"):
    """A raw record on model_control, past every check of the command line."""
    record = {"model": model, "version": version, "ts_ms": now_ms()}
    world.publish("model_control", [(model, json.dumps(record).encode())])


def serves(world, version):
    return f'headrace_model_serving{{role="serving",version="{version}"}} 1.0' in world.metrics()


def await_version(world, version):
    wait(lambda: serves(world, version), SWAP_S, lambda: f"{version} does not serve\n{world.logs()[-3000:]}")


class Load:
    """A steady load of triggers from a thread of its own."""

    def __init__(self, world):
        self._world, self._ending = world, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._ending.set()
        self._thread.join()

    def _run(self):
        for turn in count():
            if self._ending.wait(0.05):
                return
            self._world.publish("user_actions", traffic(5, seed=f"load{turn}-"))


def tail_ms(answers):
    """p50 and p99 from the log's time of the trigger to the answer."""
    spans = [answer.event_age_ms + answer.latency_ms for answer in answers]
    return np.percentile(spans, [50, 99]).round(1).tolist()


def test_a_swap_and_a_rollback_under_load_lose_nothing_and_mix_nothing(world):
    for seed, version in enumerate(("v1", "v2")):
        write_version(world.settings, version, seed=seed)
    assert headrace(world, "promote", "v1")["refused"] == []
    world.start()
    world.wait_for_log("reading", times=16)
    await_version(world, "v1")
    with Load(world):
        time.sleep(2)
        moments = [now_ms()]
        for words, version in ((("promote", "v2", "--force"), "v2"), (("rollback",), "v1")):
            assert headrace(world, *words)["version"] == version
            moments.append(now_ms())
            await_version(world, version)
            time.sleep(1)
            moments.append(now_ms())
    world.wait_until_answered()
    assert world.digest() == world.replayed_digest()

    answers = sorted(world.recommendations(), key=lambda answer: answer.ts_ms)
    assert {(answer.model.version, answer.level) for answer in answers if answer.items} <= {
        (version, level) for version in ("v1", "v2") for level in ("full", "popular")
    }
    before, during = [], []
    for answer in answers:
        (before if answer.ts_ms < moments[0] else during).append(answer)
    print(f"p50, p99 ms before {tail_ms(before)}, from the first command on {tail_ms(during)}")  # noqa: T201
    for version, named_ms in (("v2", moments[1]), ("v1", moments[3])):
        first_ms = min(a.ts_ms for a in answers if a.model.version == version and a.ts_ms >= named_ms - 2000)
        print(f"{version}: first answer {first_ms - named_ms} ms after its record was confirmed")  # noqa: T201

    # Every record is of one model, to the bit.
    open_model = models.opener(world.settings, timed=False)
    rankers = {version: open_model(models.folder(world.settings) / version) for version in ("v1", "v2")}
    published = {answer.rec_id: answer for answer in answers}
    seen = set()
    for message in world.messages(SERVED_FEATURES):
        unpacked = unpack(message.value())
        served = unpacked.served
        seen.add(served.model_version)
        assert np.array_equal(recompute(unpacked, rankers[served.model_version]), unpacked.scores)
        (other,) = set(rankers) - {served.model_version}
        assert not np.array_equal(recompute(unpacked, rankers[other]), unpacked.scores)
        answer = published[served.rec_id]
        if answer.model.version == served.model_version:  # a repeat may be of the other model
            assert [item.score for item in answer.items] == unpacked.scores[: served.shown].tolist()
    assert seen == {"v1", "v2"}


def one_digit_changed(raw):
    at = raw.index(b"leaf_value=") + len(b"leaf_value=-0.0")
    return raw[:at] + (b"7" if raw[at : at + 1] != b"7" else b"3") + raw[at + 1 :]


def without_a_tree(raw):
    return raw[: raw.index(b"Tree=1\n")] + raw[raw.index(b"Tree=2\n") :]


def swapped_names(raw):
    first, second = raw.split(b"feature_names=")[1].split(b" ", 2)[:2]
    return raw.replace(b"feature_names=%b %b" % (first, second), b"feature_names=%b %b" % (second, first))


FILES = {
    "cut-50": lambda raw: raw[: len(raw) // 2],
    "cut-97": lambda raw: raw[: len(raw) * 97 // 100],
    "cut-last-tree": lambda raw: raw[: raw.rindex(b"leaf_weight=")],
    "cut-end-of-trees": lambda raw: raw[: raw.index(b"end of trees")],
    "tree-removed": without_a_tree,
    "crlf": lambda raw: raw.replace(b"\n", b"\r\n"),
    "leaf-digit": one_digit_changed,
    "empty": lambda raw: b"",
    "html": lambda raw: b"<html><body>502 Bad Gateway</body></html>",
    "names-swapped": swapped_names,
    "zeros": lambda raw: bytes(len(raw)),
}


def edit(path, **fields):
    raw = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(json.dumps(json.loads(raw) | fields).encode())


def damaged(good, kind):
    """A copy of a good version beside it, damaged; its hash is true where only the structure is to tell."""
    version = good.with_name(kind)
    if kind == "a-file":
        version.write_bytes(b"model")
        return
    if kind == "symlink-loop":
        version.symlink_to(version)
        return
    shutil.copytree(good, version)
    edit(version, version=kind)
    model, manifest = version / "model.txt", version / "manifest.json"
    match kind:
        case "no-model":
            model.unlink()
        case "no-manifest":
            manifest.unlink()
        case "manifest-not-json":
            manifest.write_bytes(b"{")
        case "manifest-nested":
            manifest.write_bytes(b"[" * 100_000)
        case "other-features":
            edit(version, features_hash="0" * 16)
        case "other-name":
            edit(version, version="v1")
        case "a-pipe":
            model.unlink()
            os.mkfifo(model)
        case "model-is-a-folder":
            model.unlink()
            model.mkdir()
        case _:
            raw = FILES[kind.removesuffix("-signed")](model.read_bytes())
            model.write_bytes(raw)
            if kind.endswith("-signed"):
                edit(version, sha256=sha256(raw).hexdigest())


KINDS = [
    *FILES, *(f"{kind}-signed" for kind in FILES), "no-model", "no-manifest", "manifest-not-json", "manifest-nested",
    "other-features", "other-name", "a-pipe", "model-is-a-folder", "a-file", "symlink-loop",
]  # fmt: skip


def test_versions_damaged_in_every_way_are_refused_with_their_cause_while_the_good_one_serves_on(world):
    good = write_version(world.settings, "v1")
    for kind in KINDS:
        damaged(good, kind)
    name(world, "v1")
    worker = world.start()
    world.wait_for_log("reading", times=16)
    await_version(world, "v1")
    for kind in KINDS:
        name(world, kind)
        wait(
            lambda kind=kind: f"model refused: {kind}: " in world.logs(),
            SWAP_S,
            lambda kind=kind: f"{kind}\n{world.logs()}",
        )
    assert serves(world, "v1")
    assert f'headrace_model_refused_total{{role="serving"}} {len(KINDS)}.0' in world.metrics()
    assert 'headrace_model_missing{role="serving"} 1.0' in world.metrics()
    name(world, "absent")
    world.wait_for_log("model absent is not in")
    for version in ("../v1", "..", "/etc", "a/b", "", ".v1", "x" * 200):
        name(world, version)
    world.publish("model_control", [("ranker", b"{"), ("", b"{}"), ("ranker", b"\xff" * 9), ("other", b"[]" * 9)])
    wait(lambda: "headrace_control_refused_total 11.0" in world.metrics(), SWAP_S, world.logs)
    world.publish("user_actions", traffic(60))
    world.wait_until_answered()
    assert {answer.model.version for answer in world.recommendations()} == {"v1"}
    assert worker.poll() is None

    # What was refused is tried again when it is mended, without another word from the operator.
    name(world, "no-model")
    world.wait_for_log("model refused: no-model: ", times=2)
    shutil.copy(good / "model.txt", good.with_name("no-model") / "model.txt")
    await_version(world, "no-model")
    name(world, "none")
    await_version(world, "none")
    assert worker.poll() is None
