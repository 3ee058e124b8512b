"""What operators and retention do to topics: more partitions, deleted and created again, the log's start moved on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from random import Random

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from features.schema import USER_ACTIONS
from pipeline import child
from pipeline.agents import EXIT_BROKEN
from pipeline.config import Settings
from pipeline.kafka.log_identity import identities
from pipeline.kafka.topics import create, load_topics
from tests.chaos.faults import TICK_S, Fault
from tests.chaos.run import Result, Told, play, settle
from tests.chaos.scenarios import Scenario, scenario
from tests.chaos.scenarios.producers import MANY
from tests.chaos.sender import Sender
from tests.chaos.stand import PREFIX, Setup, Slot, Stand, StandBroken
from tests.chaos.traffic import Shape
from tests.chaos.truth import Truth
from tests.chaos.verdict import Verdict, answers_of, judge, unanswered
from tests.chaos.watch import Watch

ACTIONS = PREFIX + USER_ACTIONS
MORE = 7
PICKED_UP_S = 60.0  # a worker asks for the partitions every 15 s
REFUSED_S = 60.0
REBUILD_S = 600.0
FLUSH_S = 120.0
COMMITTED_S = 120.0
# A rebuild remembers of forgotten users what the topics no longer hold (their tombstones are carried over), a replay of what
# is left cannot: nobody is forgotten here. With `--seed 602 --events 60000` 4 events of such users were "lost".
NO_FORGETTING = Shape(forgets=0.0)


def _nothing(random: Random, events: int) -> list[Fault]:
    del random, events
    return []


def send(stand: Stand, sender: Sender, watch: Watch, *, share: float, result: Result, tell: Told) -> None:
    """The traffic up to `share` of it, into the log."""
    upto = int(result.events * share)
    while not sender.exhausted and sender.sent < upto:
        sender.pump(room=min(upto - sender.sent, stand.setup.backlog_max - (sender.sent - watch.applied)))
        watch.look()
        stand.keep()
        tell("playing", watch.applied, result.faults)
        time.sleep(TICK_S)
    _flush(sender)


def _send_rest(sender: Sender) -> None:
    """What is left of the traffic, with nobody there to apply it."""
    while not sender.exhausted:
        sender.pump(room=sys.maxsize)
    _flush(sender)


def _flush(sender: Sender) -> None:
    until_s = time.monotonic() + FLUSH_S
    while not sender.is_flushed:
        if time.monotonic() > until_s:
            raise StandBroken(f"the broker did not take all records within {FLUSH_S:.0f} s")
        sender.pump(room=0)
        time.sleep(TICK_S)


def refused(slot: Slot) -> float:
    """How long it took until the worker ended by itself: with 70, and `rebuild` in its last words."""
    began_s, before = time.monotonic(), slot.read_to
    if slot.process is None:
        raise StandBroken(f"{slot.name} is not there")
    try:
        code = slot.process.wait(REFUSED_S)
    except subprocess.TimeoutExpired:
        raise StandBroken(f"{slot.name} goes on\n{child.tail_of(slot.log, lines=25)}") from None
    slot.process = None
    words = slot.log.read_bytes()[before:].decode(errors="replace")
    if code != EXIT_BROKEN or "headrace rebuild" not in words:
        raise StandBroken(f"{slot.name} ended with {code}\n{words[-3000:]}")
    return time.monotonic() - began_s


def rebuilt(stand: Stand) -> None:
    """`headrace rebuild`, as an operator would."""
    words = [sys.executable, "-m", "pipeline", "--config", str(stand.directory / "worker.toml"), "rebuild", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=REBUILD_S, check=False, cwd=Path.cwd())
    (stand.directory / "rebuild.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise StandBroken(f"rebuild ended with {done.returncode}: {done.stderr[-2000:]}")


# --- more partitions


def _more(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    """The topic grows under way; how long until the new partitions are read counts as the recovery."""
    send(stand, sender, watch, share=0.3, result=result, tell=tell)
    stand.news()
    admin = stand.admin()  # an answer comes only as long as its client lives
    admin.create_partitions([NewPartitions(ACTIONS, MORE)])[ACTIONS].result(30)
    began_s, began = time.monotonic(), datetime.now().astimezone()
    watch.parts += [
        watch.parts[0]._replace(topic=ACTIONS, partition=each) for each in range(stand.setup.partitions, MORE)
    ]
    new = [f"partition={each} " for each in range(stand.setup.partitions, MORE)]
    lines: list[str] = []
    while not all(any("reading " in line and ACTIONS in line and each in line for line in lines) for each in new):
        if time.monotonic() - began_s > PICKED_UP_S:
            raise StandBroken(f"new partitions unread after {PICKED_UP_S:.0f} s\n{stand.last_words()}")
        send(stand, sender, watch, share=min(0.9, sender.sent / result.events + 0.002), result=result, tell=tell)
        lines += stand.news()
        time.sleep(0.1)
    watch.recoveries_s.append(time.monotonic() - began_s)
    stand.note("picked_up.json", {"raised": began, "lines": [line for line in lines if ACTIONS in line]})
    play(stand, sender, watch, plan, result, tell)
    result.faults += 1


# --- deleted and created again


def _recreated(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    """Under a running worker, and filled with more than before: what it would skip is a fifth of all records."""
    del plan
    send(stand, sender, watch, share=0.2, result=result, tell=tell)
    settle(stand, sender, watch)
    (slot,) = stand.slots
    slot.wanted = False
    _recreate(stand)
    for at in [at for at in sender.ends if at[0] == ACTIONS]:
        del sender.ends[at]
    result.faults += 1
    _send_rest(sender)
    watch.recoveries_s.append(refused(slot))
    stand.news()
    stand.start_worker(slot)  # it has been told, and again starts into a log that is not its own
    slot.wanted = False
    refused(slot)
    tell("rebuilding", watch.applied, result.faults)
    rebuilt(stand)
    stand.start_worker(slot)
    _await_commits(stand, sender)


def _await_commits(stand: Stand, sender: Sender) -> None:
    """Until the group has committed the new log's ends: the old log's commits lie beyond them, and say nothing."""
    name, until_s = log_identity(stand.direct), time.monotonic() + COMMITTED_S
    wanted = {(at[1], end, name) for at, end in sender.ends.items() if at[0] == ACTIONS}
    with closing(Consumer({"bootstrap.servers": stand.broker.bootstrap, "group.id": "chaos", "log_level": 0})) as group:
        parts = [TopicPartition(ACTIONS, partition) for partition, _, _ in wanted]
        while not wanted <= (found := {(at.partition, at.offset, at.metadata) for at in group.committed(parts, 10)}):
            if time.monotonic() > until_s:
                raise StandBroken(f"committed {found}, not {wanted}\n{stand.last_words()}")
            stand.keep()
            time.sleep(0.5)


def log_identity(settings: Settings) -> str:
    """Which log user_actions is now."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap, "log_level": 0})
    return identities(admin, [ACTIONS])[ACTIONS]


def _recreate(stand: Stand) -> None:
    admin = stand.admin()
    admin.delete_topics([ACTIONS])[ACTIONS].result(30)
    (declared,) = [each for each in load_topics(prefix=PREFIX) if each.name == ACTIONS]
    until_s = time.monotonic() + REFUSED_S
    while (said := create(admin, [declared])[ACTIONS]) != "created":  # a deletion takes its time
        if time.monotonic() > until_s:
            raise StandBroken(f"{ACTIONS} could not be created again: {said}")
        time.sleep(0.2)


def judge_new_log(settings: Settings, truth: Truth) -> Verdict:
    """As usual, but what was answered from the log before says nothing about this one."""
    end = log_identity(settings)[:4]
    answers = [
        each
        for each in answers_of(settings)
        if each.trigger is None or each.trigger.topic != ACTIONS or each.rec_id.endswith(end)
    ]
    return changed(judge(settings, truth), unanswered=unanswered(truth, answers))


# --- retention


def _retention(stand: Stand, sender: Sender, watch: Watch, plan: Sequence[Fault], result: Result, tell: Told) -> None:
    """The log's start overtakes a stopped worker."""
    del plan
    send(stand, sender, watch, share=0.4, result=result, tell=tell)
    settle(stand, sender, watch)
    (slot,) = stand.slots
    stand.stop_worker(slot)
    _send_rest(sender)
    random = Random(f"{result.seed}/retention")
    cuts = []
    for part, applied in watch.positions.items():
        if part.topic == ACTIONS:
            end = sender.ends[part]
            cuts.append(TopicPartition(*part, applied + 1 + random.randrange(max(1, (end - applied) // 2))))
    admin = stand.admin()
    for cut in admin.delete_records(cuts).values():
        cut.result(30)
    result.faults += 1
    for _ in range(2):  # again and again: nothing is skipped because somebody insists
        stand.start_worker(slot)
        slot.wanted = False
        watch.recoveries_s.append(refused(slot))
        stand.news()
    tell("rebuilding", watch.applied, result.faults)
    rebuilt(stand)
    stand.start_worker(slot)


scenario(
    Scenario(
        "more_partitions",
        "user_actions gets 7 partitions while two workers read 4: the recovery is the time until all are read",
        _nothing,
        Setup(workers=2, shape=MANY, producer={"topic.metadata.refresh.interval.ms": 1_000}, brokers=("apache",)),
        drive=_more,
    )
)
scenario(
    Scenario(
        "recreated_topic",
        "user_actions deleted and created again under a worker: refused, twice; then rebuild",
        _nothing,
        # The embedded broker keeps no metadata of a commit: what the group committed of the old log counts there.
        Setup(producer={"enable.idempotence": False}, brokers=("apache",), shape=NO_FORGETTING),
        drive=_recreated,
        judge=judge_new_log,
    )
)
scenario(
    Scenario(
        "retention",
        "the log's start overtakes a stopped worker: refused, twice; then rebuild, exact for what is left",
        _nothing,
        Setup(brokers=("apache",), shape=NO_FORGETTING),
        drive=_retention,
        whole_log=False,
    )
)
