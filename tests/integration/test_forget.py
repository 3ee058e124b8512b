"""The right to be forgotten, through the worker: no key of Redis holds what tells of the user, proven by a scan."""

import os
from itertools import count

import msgspec
import pytest
from click.testing import CliRunner

from features.ids import hash64
from features.user_log import HEADER, RECORD_BYTES
from pipeline.cli import main
from pipeline.embedded import free_port
from tests.integration.worlds import World, action, now_ms, traffic, wait
from tests.key_scan import holding
from tests.redis_servers import client_of

pytestmark = pytest.mark.services
NAMES = count()


@pytest.fixture
def world(servers, tmp_path):
    made = World(servers.bootstrap, servers.redis_url, tmp_path, f"f{os.getpid()}x{next(NAMES)}", free_port())
    yield made
    made.stop()


@pytest.fixture
def client(servers):
    made = client_of(servers.redis_url)
    yield made
    made.close()


def shown(impression, user, items, ts_ms):
    record = {"impression_id": impression, "user_id": user, "item_ids": items, "ts_ms": ts_ms}
    return user, msgspec.json.encode(record)


def counted(world, at_least):
    wait(lambda: sum(world.counts().values()) >= at_least, 30, world.logs)


def test_a_forgotten_user_leaves_no_key_and_comes_back_only_with_what_is_new(world, client):
    world.start()
    then = now_ms()
    old = [action(f"old{n}", "alice", f"i{n}", name="buy" if n % 3 == 0 else "view", ts_ms=then - n) for n in range(20)]
    seen = [shown("l1", "alice", ["i1", "i2"], then), shown("l2", "u3", ["i1"], then)]
    world.publish("user_actions", [*traffic(200), *old])
    world.publish("impressions", seen)
    counted(world, 222)
    assert holding(client, "alice", of=world.name) == {"u", "s"}
    rings = dict(world.opened().scan("i"))

    told = CliRunner().invoke(main, ["--config", str(world.config), "forget", "alice"])
    assert told.exit_code == 0, told.output
    wait(lambda: not holding(client, "alice", of=world.name), 30, world.logs)
    assert dict(world.opened().scan("i")) == rings

    world.publish("user_actions", old)
    world.publish("impressions", seen[:1])
    counted(world, 244)
    assert not holding(client, "alice", of=world.name)
    assert dict(world.opened().scan("i")) == rings

    world.publish("user_actions", [action("new", "alice", "i5")])
    counted(world, 245)
    (log,) = world.opened().read_users([hash64("alice")])
    assert len(log) == HEADER.size + RECORD_BYTES
    assert "alice" not in world.logs()
