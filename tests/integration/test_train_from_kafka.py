"""What a worker served, a front end showed and users did, on real topics, becomes a ranker that this worker can serve."""

import json
import os
from itertools import count

import numpy as np
import pytest
from click.testing import CliRunner

from features.ids import hash64
from features.schema import IMPRESSIONS, REQUESTS, SERVED_FEATURES, USER_ACTIONS
from pipeline.cli import main
from pipeline.config import load
from pipeline.embedded import free_port
from pipeline.kafka.served_log import ServedLog, served_rows
from pipeline.offline import replayer
from recommender.model import join
from recommender.model.artefact import read_manifest
from recommender.model.served_rows import NOT_SHOWN
from recommender.served import unpack
from tests.integration.artefacts import write_version
from tests.integration.worlds import World, action, now_ms, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()
USERS, LISTS, VISIBLE = 12, 50, 4
HORIZON_MS = 1_200


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"t{os.getpid()}x{next(NAMES)}", free_port())
    text = made.config.read_text().replace("commit_interval_ms = 250", "commit_interval_ms = 60000")
    made.config.write_text(
        text.replace('name = "view"', 'name = "view"\nhorizon_min = 0.02').replace(
            "purchase = true", "purchase = true\nhorizon_min = 0.02\ngrade = 3"
        )
    )
    made.settings = load(made.config, {})
    yield made
    made.stop()


def ask(world):
    """Users ask for a list each; the answers by rec_id."""
    world.publish(
        REQUESTS,
        [
            (user, json.dumps({"request_id": f"q{n}", "user_id": user, "ts_ms": now_ms()}).encode())
            for n in range(LISTS)
            for user in [f"u{n % USERS}"]
        ],
    )
    wait(lambda: len(answered(world)) == LISTS, 60, world.logs)
    return answered(world)


def answered(world):
    return {each.rec_id: each for each in world.recommendations() if each.request_id}


def show_and_click(world, answers):
    """A front end shows the first few items of every other list; its user acts on the second, later buys it or not."""
    shown, told, done = {}, [], []
    for n, (rec_id, answer) in enumerate(sorted(answers.items())):
        if n % 2:
            continue
        visible, ts_ms = [item.item_id for item in answer.items[:VISIBLE]], now_ms()
        shown[rec_id] = visible
        for name in ("view", "buy")[: 1 + n % 3]:
            key, value = action(f"{name}{n}", answer.user_id, visible[1], name=name, ts_ms=ts_ms + 5)
            done.append((key, json.dumps({**json.loads(value), "impression_id": f"s{n}"}).encode()))
        record = {"impression_id": f"s{n}", "user_id": answer.user_id, "item_ids": visible, "ts_ms": ts_ms}
        told.append((answer.user_id, json.dumps({**record, "rec_id": rec_id}).encode()))
    world.publish(IMPRESSIONS, told)
    world.publish(USER_ACTIONS, [*done, done[0], action("end", "watch", "i1", ts_ms=now_ms() + 2 * HORIZON_MS)])
    return shown


def served(world):
    """The first record of each rec_id, and how many there are of it."""
    first, seen = {}, {}
    for message in sorted(world.messages(SERVED_FEATURES), key=lambda each: each.timestamp()[1]):
        record = unpack(message.value())
        first.setdefault(record.served.rec_id, record)
        seen[record.served.rec_id] = seen.get(record.served.rec_id, 0) + 1
    return first, seen


def learned(world, *, since_ms=0):
    with ServedLog(world.settings, since_ms=since_ms) as log:
        return served_rows(log, replayer(world.settings).catalog, lists_max=1_000)


def headrace(world, *args):
    return CliRunner().invoke(main, ["--config", str(world.config), *map(str, args)])


def test_a_ranker_learns_from_the_bytes_that_were_served_and_a_crash_changes_nothing_but_the_repeats(world):
    worker = world.start()
    world.publish(USER_ACTIONS, traffic(300, users=USERS))
    world.wait_until_answered()
    asked_ms = now_ms()
    shown = show_and_click(world, ask(world))
    world.wait_until_answered()
    rows = learned(world)
    raw, _ = served(world)
    assert set(rows.query_ids) == set(shown)
    assert rows.groups.tolist() == [VISIBLE] * len(shown)
    assert sorted(set(rows.grades.tolist())) == [0, 1, 3]
    assert np.count_nonzero(rows.grades) == len(shown)
    assert rows.positions.tolist() == [0, 1, 2, 3] * len(shown)
    for query, rec_id in enumerate(rows.query_ids):
        mine = slice(query * VISIBLE, (query + 1) * VISIBLE)
        assert rows.matrix[mine].tobytes() == raw[rec_id].rows[:VISIBLE].tobytes()
        assert rows.items[mine].tolist() == [hash64(item) for item in shown[rec_id]]
        assert (rows.grades[mine] > 0).tolist() == [False, True, False, False]
    assert rows.dropped[NOT_SHOWN] >= LISTS - len(shown)
    assert rows.dropped[join.REPEATED_ACTIONS] == 1
    assert join.REPEATED_LISTS not in rows.dropped

    since = learned(world, since_ms=asked_ms)
    assert (since.query_ids, since.matrix.tobytes()) == (rows.query_ids, rows.matrix.tobytes())
    assert since.dropped[NOT_SHOWN] < rows.dropped[NOT_SHOWN]

    worker.kill()
    worker.wait()
    world.start()
    wait(lambda: all(count > 1 for rec_id, count in served(world)[1].items() if rec_id in shown), 60, world.logs)
    again = learned(world)
    assert again.dropped[join.REPEATED_LISTS] >= len(shown)
    assert (again.query_ids, again.matrix.tobytes()) == (rows.query_ids, rows.matrix.tobytes())
    assert (again.grades.tolist(), again.items.tolist()) == (rows.grades.tolist(), rows.items.tolist())

    done = headrace(world, "train", "--from-kafka", "--version", "v1", "--search", 0, "--trees", 5, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["lists"], report["rows"], report["labelled"]) == (len(shown), len(rows.items), len(shown))
    assert report["dropped"][join.REPEATED_LISTS] == again.dropped[join.REPEATED_LISTS]
    for seed, version in enumerate(("old", "new")):
        write_version(world.settings, version, seed=seed)
    assert headrace(world, "models", "promote", "old").exit_code == 0
    judged = json.loads(headrace(world, "models", "promote", "new", "--from-kafka", "--json").stdout)
    assert judged["verdict"]["queries"] == len(shown)
    assert "at least" in judged["refused"][0]
    manifest = read_manifest(world.directory / "models" / "ranker" / "v1")
    assert manifest.features_hash == replayer(world.settings).catalog.fingerprint
    assert manifest.window.queries == len(shown)


def test_a_list_that_waits_and_an_empty_log_say_why_nothing_is_learned(world):
    assert "no list with a label" in headrace(world, "train", "--from-kafka").output
    assert "one of them" in headrace(world, "train").output
    assert "one of them" in headrace(world, "train", str(world.directory), "--from-kafka").output
    assert headrace(world, "train", "--from-kafka", "--since", "2200-01-01").exit_code != 0
