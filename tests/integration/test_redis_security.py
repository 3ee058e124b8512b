"""A worker over TLS as the deployed Redis user; what it says when it is not let in: one clear word, and it ends."""

import os

import pytest
from click.testing import CliRunner

from pipeline import rebuild
from pipeline.cli import main
from pipeline.embedded import EmbeddedError, free_port
from tests.conftest import unavailable
from tests.integration.worlds import World, traffic
from tests.redis_servers import PASSWORD, Tls, find_redis7

pytestmark = pytest.mark.services


@pytest.fixture
def name():
    return f"tls{os.getpid()}"


@pytest.fixture
def tls(tmp_path, name):
    try:
        server = Tls(tmp_path / "redis", find_redis7(), name, mutual=True)
    except EmbeddedError as error:
        unavailable(str(error))
    yield server
    server.stop()


def said(world, *words):
    return CliRunner().invoke(main, ["--config", str(world.config), *words])


def test_a_worker_runs_as_the_deployed_user_over_tls_and_stops_with_a_clear_word_when_it_is_refused(
    broker, tls, name, tmp_path, monkeypatch
):
    monkeypatch.setattr(rebuild, "GRACE_S", 1.5)  # a worker's heartbeat is 0.3 s here
    settings = {
        "USERNAME": "headrace",
        "PASSWORD": PASSWORD,
        "SSL_CA_FILE": tls.ca_file,
        "SSL_CERTIFICATE_FILE": tls.identity["cert_file"],
        "SSL_KEY_FILE": tls.identity["key_file"],
    }
    for setting, value in settings.items():
        monkeypatch.setenv(f"HEADRACE_REDIS_{setting}", value)
    world = World(broker, tls.url, tmp_path, name, free_port())
    try:
        worker = world.start()
        world.wait_for_log("reading", times=16)
        world.publish("user_actions", traffic(100))
        world.wait_until_answered()
        assert world.replayed_digest() in said(world, "state", "digest").output
        examined = said(world, "doctor").output
        assert "ok     redis:" in examined
        assert "ok     permissions:" in examined
        assert PASSWORD not in examined + world.logs()
        rebuilt = said(world, "rebuild")
        assert rebuilt.exit_code == 0, rebuilt.output
        assert world.replayed_digest() in rebuilt.output
        world.wait_for_log("moved to another generation")

        with tls.nodes[0].client() as admin:  # a running worker
            admin.execute_command("ACL", "SETUSER", "headrace", "-hget", "-hmget")
        assert worker.wait(60)
        assert "lacks a permission" in world.logs()
        assert "may not HGET, HMGET" in said(world, "doctor").output

        monkeypatch.setenv("HEADRACE_REDIS_PASSWORD", "guessed")
        assert world.start().wait(60)
        assert "does not know this user or password" in world.logs()
        refused = said(world, "state", "digest")
        assert (refused.exit_code, refused.output.count("\n")) == (2, 1), refused.output

        monkeypatch.setenv("HEADRACE_REDIS_SSL_CA_FILE", tls.identity["cert_file"])
        assert world.start().wait(60)
        assert "certificate is not trusted" in world.logs()
    finally:
        world.stop()
