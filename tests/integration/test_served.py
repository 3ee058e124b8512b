"""What goes out with a recommendation and beside it, by a real worker with a model: reasons, rows, and the way back."""

import json
import os
from itertools import count

import pytest
from click.testing import CliRunner

from features.schema import SERVED_FEATURES
from pipeline.cli import main
from pipeline.embedded import free_port
from recommender.model.artefact import read_manifest
from recommender.served import unpack
from tests.integration.artefacts import write_version
from tests.integration.worlds import World, now_ms, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"s{os.getpid()}x{next(NAMES)}", free_port())
    yield made
    made.stop()


def headrace(world, *args):
    return CliRunner().invoke(main, ["--config", str(world.config), *map(str, args)])


def configure(world, section, **settings):
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    world.config.write_text(world.config.read_text().replace(f"[{section}]\n", f"[{section}]\n{lines}"))


def name_model(world, name, version):
    record = {"model": name, "version": version, "ts_ms": now_ms()}
    world.publish("model_control", [(name, json.dumps(record).encode())])


def recheck(world, rec_id, code=0):
    done = headrace(world, "replay", "--rec-id", rec_id, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)["records"]


def test_an_explained_recommendation_is_recomputed_to_the_bit_from_its_served_rows(world):
    configure(world, "recommend", k=5, reasons=3, served_sample=0.5)
    configure(world, "model", cascade_trees=2, cascade_keep=8, poll_ms=100)
    trees = read_manifest(write_version(world.settings, "v1")).num_trees
    world.start()
    world.publish("user_actions", traffic(60))
    world.wait_until_answered()
    name_model(world, "ranker", "v1")
    name_model(world, "ranker.shadow", "v1")
    explained = []

    def is_scored():
        world.publish("user_actions", traffic(10, seed=f"m{now_ms()}-"))
        explained[:] = [each for each in world.recommendations() if each.model.version == "v1" and each.level == "full"]
        return explained and 'headrace_shadow_overlap_count{version="v1"}' in world.metrics()

    wait(is_scored, 60, world.logs)
    world.wait_until_answered()
    for answer in explained:
        assert answer.cause is None
        for item in answer.items:
            assert len(item.reasons) == 3
            assert sum(reason.contribution for reason in item.reasons) + item.rest == pytest.approx(
                item.score, rel=1e-6
            )
            assert not any("_" in reason.text for reason in item.reasons)

    chosen = explained[-1]
    (record,) = recheck(world, chosen.rec_id)
    assert (record["equal"], record["is_published"], record["model_version"]) == (True, True, "v1")
    assert record["cascade_trees"] == (2 if trees > 2 else 0)
    shown = [item for item in record["items"] if item["shown"]]
    assert [item["item_id"] for item in shown] == [item.item_id for item in chosen.items]
    assert all(item["logged"] == item["recomputed"] == item["published"] for item in shown)
    assert len(record["items"]) > len(shown)

    answers = world.recommendations()
    served = [unpack(message.value()) for message in world.messages(SERVED_FEATURES)]
    assert {each.served.rec_id for each in served} == {answer.rec_id for answer in answers if answer.items}
    assert not any(each.served.backlog for each in served)

    by_sources = next(answer for answer in answers if answer.model.version == "none" and answer.items)
    told = headrace(world, "replay", "--rec-id", by_sources.rec_id)
    assert told.exit_code == 0
    assert "nothing to recompute" in told.output

    (world.directory / "models" / "ranker" / "v1").rename(world.directory / "models" / "ranker" / "v0")
    missing = headrace(world, "replay", "--rec-id", chosen.rec_id)
    assert missing.exit_code == 2
    assert "no version 'v1'" in missing.output
    unknown = headrace(world, "replay", "--rec-id", "user_actions-0-999999-0000")
    assert unknown.exit_code == 2
    assert "older than the topic keeps" in unknown.output
