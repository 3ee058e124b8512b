"""What happens to models under a running worker: promoted to and fro between kills, written on a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from pipeline import models
from pipeline.config import Settings
from pipeline.model_control import name_version
from recommender.model.artefact import ModelRefused
from tests.chaos.faults import Fault, fault
from tests.chaos.run import Result, Told, play, settle
from tests.chaos.scenarios import Scenario, points, scenario
from tests.chaos.scenarios.topics import send
from tests.chaos.scenarios.workers import kills
from tests.chaos.sender import Sender
from tests.chaos.stand import Setup, Stand, StandBroken
from tests.chaos.truth import Truth
from tests.chaos.verdict import Difference, Verdict, answers_of, judge
from tests.chaos.watch import Watch
from tests.integration.artefacts import write_version

FIRST, SECOND, THIRD = "v1", "v2", "v3"
NONE = "none"
DISK = "1m"
LEFT_BYTES = 16_384  # less than a version needs
LOADED_S = 60.0
CALM_RECORDS, CALM_AT_ONCE, CALM_S = 300, 5, 0.2


@fault
def promote(stand: Stand, *, version: str) -> None:
    """Another version serves from now on."""
    name_version(stand.direct.kafka, stand.settings.model.name, version, ts_ms=time.time_ns() // 1_000_000)


def _await_line(stand: Stand, *words: str) -> None:
    """Until a worker has said a line with all these words, since the last look at their logs."""
    until_s, lines = time.monotonic() + LOADED_S, list[str]()
    while not any(all(word in line for word in words) for line in lines):
        if time.monotonic() > until_s:
            raise StandBroken(f"no line with {words} within {LOADED_S:.0f} s\n{stand.last_words()}")
        time.sleep(0.1)
        lines += stand.news()


def _swaps(random: Random, events: int) -> list[Fault]:
    """To and fro, more often than the workers die."""
    named = [
        Fault("promote", after, {"version": (SECOND, FIRST)[number % 2]})
        for number, after in enumerate(points(random, events, max(6, events // 2_500)))
    ]
    return sorted([*named, *kills(random, events)], key=lambda fault: fault.after)


def _swap(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    for seed, version in enumerate((FIRST, SECOND)):
        write_version(stand.settings, version, seed=seed)
    promote(stand, version=FIRST)
    _await_line(stand, "another model", FIRST)
    play(stand, sender, watch, plan, result, tell)


def judge_versions(settings: Settings, truth: Truth) -> Verdict:
    """As usual, and both versions have answered, and none but them."""
    found = judge(settings, truth)
    seen = Counter(answer.model.version for answer in answers_of(settings))
    strange = set(seen) - {FIRST, SECOND, THIRD, NONE}
    found.views["versions"] = Difference(
        len({FIRST, SECOND} - set(seen)), sum(seen[version] for version in strange), [str(dict(seen))]
    )
    return found


def _full(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    """A version that does not fit is not there; one that a careless copy left half is refused; the mend is taken up."""
    del plan
    folder = models.folder(stand.settings)
    _mount(stand, folder)
    write_version(stand.settings, FIRST, seed=1)
    promote(stand, version=FIRST)
    _await_line(stand, "another model", FIRST)
    send(stand, sender, watch, share=0.3, result=result, tell=tell)
    filler = folder / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - LEFT_BYTES))
    _cannot_write(stand, folder)
    result.faults += 1
    with suppress(OSError):  # the copy stops half way
        shutil.copytree(folder / FIRST, folder / THIRD)
    promote(stand, version=THIRD)
    _await_line(stand, "refused", THIRD)
    result.faults += 1
    send(stand, sender, watch, share=0.6, result=result, tell=tell)
    filler.unlink()
    shutil.rmtree(folder / THIRD)
    write_version(stand.settings, THIRD, seed=3)
    _await_line(stand, "another model", THIRD)
    write_version(stand.settings, SECOND, seed=2)
    promote(stand, version=SECOND)
    _await_line(stand, "another model", SECOND)
    send(stand, sender, watch, share=1 - CALM_RECORDS / result.events, result=result, tell=tell)
    settle(stand, sender, watch)
    while not sender.exhausted:  # a flood's answers are `popular`: the last version's are those of a calm
        sender.pump(room=CALM_AT_ONCE)
        time.sleep(CALM_S)


def _cannot_write(stand: Stand, folder: Path) -> None:
    """A writer that runs out of room says so and leaves nothing that looks like a version."""
    try:
        write_version(stand.settings, SECOND, seed=2)
    except (OSError, ModelRefused):
        if (folder / SECOND).exists():
            raise StandBroken(f"{SECOND} is there, though it did not fit") from None
    else:
        raise StandBroken("the disk is not full")


def _mount(stand: Stand, folder: Path) -> None:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    stand.on_close(lambda: subprocess.run(["umount", "--lazy", str(folder)], check=False) and None)


def _no_mount() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "only root can mount a disk of 1 MB"


scenario(
    Scenario(
        "model_swap",
        "two versions promoted to and fro between kills: each answer is one version's",
        _swaps,
        drive=_swap,
        judge=judge_versions,
    )
)
scenario(
    Scenario(
        "disk_full",
        "no room for a model: half a version is refused with its cause, answers go on, the mend is taken up",
        lambda random, events: [],
        Setup(lacks=_no_mount),
        drive=_full,
        judge=judge_versions,
    )
)
