"""`headrace doctor` on the embedded servers: healthy, and sick in every way that can be staged."""

import json
import uuid

import pytest
import redis as redis_client
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from features.facts import Fact
from features.schema import UserAction
from features.state import State
from features.store.layout import prefixes
from features.store.port import Part
from features.store.redis import RedisStore
from pipeline.cli import main
from pipeline.config import load
from pipeline.kafka.delivery import Delivery
from pipeline.kafka.log_identity import identities
from pipeline.model_control import name_version
from tests.integration.artefacts import write_version

pytestmark = pytest.mark.services


@pytest.fixture
def settings(broker, redis, tmp_path):
    """Settings of this test's own names, with topics created and three actions in the log."""
    name = f"t{uuid.uuid4().hex[:8]}"
    (tmp_path / "worker.toml").write_text(
        f"""
[[actions]]
name = "view"
[kafka]
bootstrap = "{broker}"
topic_prefix = "{name}."
group = "{name}"
[redis]
url = "{redis}"
app = "{name}"
[model]
directory = "{tmp_path / "models"}"
"""
    )
    found = load(tmp_path / "worker.toml", {})
    assert CliRunner().invoke(main, ["--config", str(tmp_path / "worker.toml"), "topics", "create"]).exit_code == 0
    return found


@pytest.fixture
def doctor(settings, tmp_path):
    """Its findings by check, and the exit code."""

    def examine(**environ):
        result = CliRunner().invoke(
            main, ["--config", str(tmp_path / "worker.toml"), "doctor", "--json"], env=environ, catch_exceptions=False
        )
        report = json.loads(result.stdout)
        assert report["ok"] == (result.exit_code == 0)
        worst = {}
        for finding in sorted(report["findings"], key=lambda seen: ("ok", "note", "wrong").index(seen["status"])):
            worst[finding["check"]] = finding
        return worst, result.exit_code

    return examine


def fill(settings, records=3):
    """Three actions in the log, applied to the state."""
    topic = f"{settings.kafka.topic_prefix}user_actions"
    with Delivery(settings.kafka) as delivery:
        for _ in range(records):
            delivery.send("log", topic, key=b"u", value=b"{}")
    store = RedisStore(settings.redis.url, app=settings.redis.app)
    state = State(store, settings.domain)
    store.bind_log(topic, identities(AdminClient({"bootstrap.servers": settings.kafka.bootstrap}), [topic])[topic])
    part = Part(topic, 0)
    state.resume(part, committed=None, log_start=0)
    state.apply(part, [Fact(0, UserAction("e", "u", "i", "view", 1_600_000_000_000))], last=0)
    return store


def test_a_healthy_deployment_is_ok(settings, doctor):
    fill(settings).close()
    found, exit_code = doctor()
    assert exit_code == 0, found
    for check in ("configuration", "broker", "redis", "permissions", "state", "log identity", "lag", "clock"):
        assert found[check]["status"] == "ok", found[check]
    assert found["model"]["status"] == "note"
    assert "headrace train" in found["model"]["mend"]


def test_looking_changes_nothing(settings, doctor):
    doctor()
    client = redis_client.Redis.from_url(settings.redis.url)
    assert not client.keys(f"*:{settings.redis.app}:*")
    client.close()


def test_missing_topics_are_wrong_and_the_mend_is_named(doctor):
    found, exit_code = doctor(HEADRACE_KAFKA_TOPIC_PREFIX="absent.")
    assert exit_code == 1
    assert found["topics"]["status"] == "wrong"
    assert "headrace topics create" in found["topics"]["mend"]


def test_servers_that_do_not_answer_are_wrong_and_the_rest_is_still_examined(doctor, tmp_path):
    found, exit_code = doctor(
        HEADRACE_KAFKA_BOOTSTRAP="127.0.0.1:1", HEADRACE_REDIS_URL=f"unix://{tmp_path}/absent.sock"
    )
    assert exit_code == 1
    assert {found[check]["status"] for check in ("broker", "topics", "redis", "state", "clock")} == {"wrong"}
    assert found["configuration"]["status"] == "ok"


def test_an_evicting_redis_is_wrong(settings, doctor):
    client = redis_client.Redis.from_url(settings.redis.url)
    try:
        client.config_set("maxmemory-policy", "allkeys-lru")
        found, exit_code = doctor()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert exit_code == 1
    assert "noeviction" in found["redis"]["mend"]


def test_a_state_of_other_columns_is_wrong(settings, doctor):
    fill(settings).close()
    client = redis_client.Redis.from_url(settings.redis.url)
    client.hset(f"{{0}}:{settings.redis.app}:meta", "columns:1", '["impression","click"]')
    client.close()
    found, exit_code = doctor()
    assert exit_code == 1
    assert found["state"]["status"] == "wrong"
    assert "columns" in found["state"]["seen"]


def test_a_state_that_holds_half_a_script_is_wrong(settings, doctor):
    fill(settings).close()
    with redis_client.Redis.from_url(settings.redis.url) as client:
        client.hincrby(f"{prefixes(settings.redis.app, 1, settings.redis.shards)[0]}hwm", "begun", 1)
    found, exit_code = doctor()
    assert exit_code == 1
    assert found["state"]["seen"] == "1 shards hold half a script: they count too much"
    assert "headrace rebuild" in found["state"]["mend"]


def test_before_the_first_worker_there_is_no_state_yet_and_nothing_is_wrong(doctor):
    found, exit_code = doctor()
    assert exit_code == 0
    assert found["state"]["status"] == "note"
    assert "no state yet" in found["state"]["seen"]


@pytest.mark.parametrize(
    ("field", "named"),
    [("format:1", "format:1"), ("shards:1", "shards:1"), ("columns:1", "columns:1"), ("action:1:1", "action codes")],
)
def test_a_meta_that_lost_fields_is_wrong_in_plain_words(settings, doctor, field, named):
    fill(settings).close()
    with redis_client.Redis.from_url(settings.redis.url) as client:
        client.hdel(f"{{0}}:{settings.redis.app}:meta", field)
    found, exit_code = doctor()
    assert exit_code == 1
    assert f"meta incomplete, without {named}" in found["state"]["seen"]


def test_rebuilds_at_work_dead_ones_and_what_they_left_are_told(settings, doctor):
    store = fill(settings)
    generations = store.generations()
    generations.claim("me:1:x", instead_of=1, building=2, told="5 of 9 records")
    RedisStore(settings.redis.url, app=settings.redis.app, generation=2).open(settings.domain)
    told = "a rebuild fills generation 2 (me:1:x): 5 of 9 records"
    assert doctor()[0]["state"] | {"mend": ""} == {"check": "state", "status": "note", "seen": told, "mend": ""}
    generations.let_go("me:1:x")
    found, exit_code = doctor()
    assert "a rebuild died while it filled generation 2" in found["state"]["seen"]
    assert "`headrace rebuild` goes on" in found["state"]["mend"]
    hwm = f"{prefixes(settings.redis.app, 2, settings.redis.shards)[0]}hwm"
    with redis_client.Redis.from_url(settings.redis.url) as client:
        client.hincrby(hwm, "begun", 1)
        found, exit_code = doctor()
        client.hdel(hwm, "begun")
    assert (exit_code, found["state"]["mend"]) == (1, "`headrace rebuild --anew`")
    generations.claim("me:1:x", instead_of=1, building=2, before=2)
    generations.flip("me:1:x", instead_of=1, building=2)
    store.close()
    found, exit_code = doctor()
    assert exit_code == 0
    assert "generation 1 serves no more" in found["state"]["seen"]


def test_a_state_of_another_log_is_wrong(settings, doctor):
    fill(settings).close()
    client = redis_client.Redis.from_url(settings.redis.url)
    client.hset(
        f"{{0}}:{settings.redis.app}:meta", f"log:1:{settings.kafka.topic_prefix}user_actions", "0123456789abcdef"
    )
    client.close()
    found, exit_code = doctor()
    assert exit_code == 1
    assert found["log identity"]["status"] == "wrong"
    assert "headrace rebuild" in found["log identity"]["mend"]


def test_a_state_far_beyond_the_log_is_wrong(settings, doctor):
    store = fill(settings)
    state = State(store, settings.domain)
    part = Part(f"{settings.kafka.topic_prefix}user_actions", 0)
    state.resume(part, committed=None, log_start=0)
    state.apply(part, [], last=50_000)
    store.close()
    found, exit_code = doctor()
    assert exit_code == 1
    assert found["lag"]["status"] == "wrong"
    assert "the log ends at" in found["lag"]["seen"]


def test_a_named_model_that_cannot_be_read_is_wrong_and_one_that_nobody_named_is_not_looked_at(
    settings, doctor, tmp_path
):
    (tmp_path / "models" / "ranker" / "v1").mkdir(parents=True)
    assert doctor()[0]["model"]["status"] == "note"
    name_version(settings.kafka, "ranker", "v1", ts_ms=1)
    found, exit_code = doctor()
    assert exit_code == 1
    assert "serving: v1 is refused: manifest.json" in found["model"]["seen"]
    assert "headrace models" in found["model"]["mend"]


def test_a_named_model_and_a_shadow_that_load_are_ok(settings, doctor):
    write_version(settings, "v1")
    for model in ("ranker", "ranker.shadow"):
        name_version(settings.kafka, model, "v1", ts_ms=1)
    found, exit_code = doctor()
    assert exit_code == 0, found
    assert found["model"]["status"] == "ok"


def test_no_actions_configured_is_wrong(broker, redis):
    environ = {"HEADRACE_KAFKA_BOOTSTRAP": broker, "HEADRACE_REDIS_URL": redis}
    result = CliRunner().invoke(main, ["doctor"], env=environ)
    assert result.exit_code == 1
    assert "wrong  configuration: no actions" in result.stdout
