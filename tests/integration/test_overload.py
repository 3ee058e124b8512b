"""A worker with less time than it needs: it says so in every answer, forgets nothing, and is whole again by itself."""

import json
import os
from itertools import count

import pytest
from click.testing import CliRunner

from features.schema import REQUESTS, SERVED_FEATURES
from pipeline.cli import main
from pipeline.embedded import free_port
from recommender.effort import CACHED, CASCADED, POPULAR
from recommender.served import unpack
from tests.integration.worlds import World, action, now_ms, traffic, wait

pytestmark = pytest.mark.services
NAMES = count()
FLOOD, ASKED = 1_500, 20


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"o{os.getpid()}x{next(NAMES)}", free_port())
    text = made.config.read_text().replace("deadline_ms = 86_400_000", "deadline_ms = 1_000\ncalm_ms = 300")
    made.config.write_text(text.replace("[recommend]\n", "[recommend]\nk = 5\nreasons = 3\n"))
    made.serve_model()
    yield made
    made.stop()


def requests(number):
    """Requests of two users, each with an id of its own."""
    return [
        (f"u{n % 2}", json.dumps({"request_id": f"r{n}", "user_id": f"u{n % 2}", "ts_ms": now_ms()}).encode())
        for n in range(number)
    ]


def test_a_flood_is_applied_first_answered_with_less_and_then_all_is_full_again(world):
    world.publish("user_actions", traffic(FLOOD, users=1_000))
    world.publish(REQUESTS, requests(ASKED))
    world.start()
    world.wait_until_answered(within_s=60)
    seen = []

    def is_full_again():
        """One trigger at a time: a quiet spell."""
        world.publish("user_actions", [action(f"quiet{now_ms()}", "u1", "i1")])
        world.wait_until_answered(within_s=60)
        seen[:] = sorted(world.recommendations(), key=lambda answer: answer.ts_ms)
        return seen[-1].level == "full" and seen[-1].cause is None

    wait(is_full_again, 90, world.logs)
    assert world.digest() == world.replayed_digest()
    assert {answer.request_id for answer in seen} >= {f"r{n}" for n in range(ASKED)}
    assert len({answer.rec_id for answer in seen}) == len(seen)

    popular = [answer for answer in seen if answer.cause == POPULAR.cause]
    hurried = [answer for answer in seen if {CASCADED.cause, CACHED.cause} & set((answer.cause or "").split("; "))]
    assert {answer.level for answer in popular} == {"popular"}
    assert all(answer.items and answer.model.version == "none" for answer in popular)
    assert {answer.level for answer in seen[-1:]} == {"full"}
    assert "headrace_overload_rungs 0.0" in world.metrics()
    assert 'headrace_efforts_total{effort="popular"}' in world.metrics()

    rows = {each.served.rec_id: each.served for each in (unpack(m.value()) for m in world.messages(SERVED_FEATURES))}
    assert not rows.keys() & {answer.rec_id for answer in popular}
    scored = [answer for answer in hurried if answer.model.version == "v1" and answer.level == "partial"]
    assert scored
    assert all(rows[answer.rec_id].cascade_trees > 0 for answer in scored)
    assert all(rows[answer.rec_id].backlog == (CACHED.cause in answer.cause.split("; ")) for answer in scored)
    assert "no reasons: busy" in scored[0].cause
    for answer, code in ((scored[-1], 0), (popular[0], 2)):
        again = CliRunner().invoke(main, ["--config", str(world.config), "replay", "--rec-id", answer.rec_id])
        assert again.exit_code == code, again.output
    assert "nothing was scored" in again.output
