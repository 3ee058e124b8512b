"""Apache Kafka behind SASL_SSL and client certificates, a user with no more than its rights, and what refusals say."""

import os
import subprocess
import traceback
import uuid

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from redis import Redis

from pipeline.agents import EXIT_BROKEN
from pipeline.apache_kafka import ApacheKafka
from pipeline.cli import main
from pipeline.embedded import EmbeddedError, embedded, free_port
from pipeline.java import ROOT
from tests.certificates import Authority
from tests.conftest import unavailable
from tests.integration.worlds import World, action, traffic, wait

pytestmark = [pytest.mark.services, pytest.mark.apache]

PASSWORDS = {role: f"{role}-{uuid.uuid4().hex}" for role in ("worker", "producer", "consumer", "operator", "nobody")}
REDIS_PASSWORD = f"redis-{uuid.uuid4().hex}"
MECHANISMS = {"SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256}
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
NAME = "secured"


class Secured:
    """The broker, its authority and how to come in."""

    def __init__(self, directory):
        self.directory, self.authority = directory, Authority(directory / "authority")
        server = self.authority.identity("localhost", name="broker")
        self.client = self.authority.identity("worker.invalid", name="worker")
        self.kafka = ApacheKafka(
            directory / "kafka",
            secured=("SASL_SSL", "SSL"),
            properties={
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(server.both),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority.file),
                "listener.name.ssl.ssl.client.auth": "required",
                "ssl.principal.mapping.rules": r"RULE:^.*CN=([^,]+).*$/$1/",
                "sasl.enabled.mechanisms": ",".join(MECHANISMS),
                **{f"listener.name.sasl_ssl.{name.lower()}.sasl.jaas.config": SCRAM for name in MECHANISMS},
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",  # whoever comes by the plain listener: the test itself
            },
        )
        self.admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})
        for user, password in PASSWORDS.items():
            for mechanism in MECHANISMS.values():
                info = ScramCredentialInfo(mechanism, 4096)
                change = UserScramCredentialUpsertion(user, info, password.encode())
                self.admin.alter_user_scram_credentials([change])[user].result(10)
        for role in ("worker", "producer", "consumer", "operator"):
            self.grant(role, role)

    def grant(self, role, user):
        """What deploy/kafka/acls.sh has Kafka's own tool do."""
        said = subprocess.run(
            [ROOT / "deploy" / "kafka" / "acls.sh", role, user],
            env={"PATH": os.environ["PATH"], "KAFKA_ACLS": "echo", "BOOTSTRAP": "b:1", "PREFIX": f"{NAME}.", "GROUP": NAME},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for line in said.stdout.splitlines():
            pairs = list(zip(line.split(), line.split()[1:], strict=False))
            given = {word: [value for name, value in pairs if name == word] for word, _ in pairs}
            assert given["--allow-principal"] == [f"User:{user}"]
            kinds = (("--topic", ResourceType.TOPIC), ("--group", ResourceType.GROUP))
            pattern = ResourcePatternType[given.get("--resource-pattern-type", ["literal"])[0].upper()]
            bindings = [
                AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
                for word, kind in kinds
                for name in given.get(word, ())
                for operation in [
                    {"Read": AclOperation.READ, "Write": AclOperation.WRITE, "Create": AclOperation.CREATE,
                     "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS}[asked] for asked in given["--operation"]
                ]
            ]  # fmt: skip
            for done in self.admin.create_acls(bindings).values():
                done.result(10)

    def revoke(self, name, operation, *, kind=ResourceType.TOPIC):
        """Takes a right of the worker's away."""
        pattern, allow = ResourcePatternType.MATCH, AclPermissionType.ALLOW
        given = AclBindingFilter(kind, name, pattern, "User:worker", None, operation, allow)
        assert len(self.admin.delete_acls([given])[given].result(10)) == 1

    def environ(self, role, **changed):
        """The settings of one who comes in by SASL_SSL, as HEADRACE_KAFKA_ variables."""
        kafka = {
            "bootstrap": self.kafka.address("SASL_SSL"),
            "group": NAME,
            "topic_prefix": f"{NAME}.",
            "security_protocol": "SASL_SSL",
            "sasl_username": role,
            "sasl_password": PASSWORDS[role],
            "ssl_ca_file": str(self.authority.file),
        } | changed
        return {f"HEADRACE_KAFKA_{key.upper()}": value for key, value in kafka.items()}


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    try:
        started = Secured(tmp_path_factory.mktemp("secured"))
    except EmbeddedError as error:
        unavailable(f"no Apache Kafka: {error}")
    yield started
    started.kafka.stop()


@pytest.fixture(scope="module")
def world(secured, tmp_path_factory):
    """Topics below NAME, a Redis with a password, and a worker.toml that holds no secret."""
    with embedded(tmp_path_factory.mktemp("redis"), broker=False) as servers:
        with Redis.from_url(servers.redis_url) as client:
            client.config_set("requirepass", REDIS_PASSWORD)
        made = World(secured.kafka.bootstrap, servers.redis_url, tmp_path_factory.mktemp("w"), NAME, free_port())
        yield made
        made.stop()


@pytest.fixture
def headrace(world):
    """Runs a command; everything that all of them said is kept in `headrace.said`."""

    def run(environ, *words, **kwargs):
        done = CliRunner().invoke(main, ["--config", str(world.config), *words], env=environ, **kwargs)
        run.said += done.output + "".join(traceback.format_exception(*done.exc_info))
        return done

    run.said = ""
    return run


def test_users_with_no_more_than_their_rights_do_all_their_work_over_sasl_ssl_and_no_secret_is_told(
    secured, world, headrace, tmp_path, monkeypatch
):
    secret_file = tmp_path / "redis-password"
    secret_file.write_text(REDIS_PASSWORD + "\n")
    redis = {"HEADRACE_REDIS_PASSWORD_FILE": str(secret_file), "HEADRACE_WORKER_LOG_LEVEL": "debug"}
    kafka_file = tmp_path / "kafka-password"
    kafka_file.write_text(PASSWORDS["worker"])
    for name, value in (secured.environ("worker") | redis).items():
        monkeypatch.setenv(name, value)
    worker = world.start()
    world.wait_for_log("reading", times=16, within_s=60)
    lines = b"\n".join(value for _, value in [*traffic(100), action("last", "u", "i1")])
    done = headrace(secured.environ("producer"), "publish", "-", "--json", input=lines)
    assert done.exit_code == 0, done.output
    wait(lambda: world.recommendations(), 60, world.logs)
    tailed = headrace(secured.environ("consumer"), "tail", "--from-start", "--limit", "1", "--json", "--timeout", "30")
    assert (tailed.exit_code, tailed.output.count('"rec_id"')) == (0, 1), tailed.output
    assert "as declared" in headrace(secured.environ("operator"), "topics", "check").output
    by_256 = secured.environ("worker", sasl_mechanism="SCRAM-SHA-256", sasl_password="") | redis
    by_256["HEADRACE_KAFKA_SASL_PASSWORD_FILE"] = str(kafka_file)
    examined = headrace(by_256, "doctor")
    assert "ok     rights:" in examined.output, examined.output
    assert "ok     lag:" in examined.output
    by_certificate = {
        "bootstrap": secured.kafka.address("SSL"),
        "security_protocol": "SSL",
        "ssl_certificate_file": str(secured.client.certificate),
        "ssl_key_file": str(secured.client.key),
    }
    assert "ok     rights:" in headrace(secured.environ("worker", **by_certificate) | redis, "doctor").output
    assert worker.poll() is None
    assert "cannot be read" not in world.logs()

    # A right is taken away and given back: it waits with a cause, and goes on.
    secured.revoke(f"{NAME}.user_actions", AclOperation.READ)
    wait(lambda: "not allowed for this user" in world.logs(), 60, world.logs)
    secured.grant("worker", "worker")
    world.publish("user_actions", traffic(20, seed="again"))
    world.wait_until_answered()
    assert worker.poll() is None

    # Without the right to the group it ends in words; started again with it, it goes on.
    secured.revoke(NAME, AclOperation.READ, kind=ResourceType.GROUP)
    world.publish("user_actions", traffic(20, seed="no-group"))
    assert worker.wait(60) == EXIT_BROKEN
    assert f"GroupAuthorizationFailedError: {NAME}: not allowed for this user" in world.logs()
    secured.grant("worker", "worker")
    worker = world.start()
    world.wait_until_answered()
    assert worker.poll() is None

    # Error paths: Redis forgets the password, the broker the user; whatever is said, no secret is in it.
    with Redis.from_url(world.redis_url, password=REDIS_PASSWORD) as client:
        client.config_set("requirepass", "another")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait(lambda: "does not know this user or password" in world.logs(), 60, world.logs)
        assert headrace(secured.environ("worker") | redis, "doctor").exit_code == 1
        headrace(secured.environ("worker") | redis, "--debug", "state", "digest")
        client.config_set("requirepass", REDIS_PASSWORD)
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0"
    headrace(secured.environ("worker") | {"HEADRACE_REDIS_URL": url}, "doctor")
    headrace(secured.environ("worker") | {"HEADRACE_REDIS_URL": url}, "--debug", "state", "digest")
    said = headrace.said + world.logs()
    assert "[debug" in said
    for secret in (*PASSWORDS.values(), REDIS_PASSWORD):
        assert secret not in said


WORKER, DOCTOR, CHECK = ("worker",), ("doctor",), ("topics", "check")
PUBLISH, TAIL = ("publish", "-"), ("tail", "--timeout", "5")


def refusals(secured):
    """What is set wrong: the settings, what the one line must name, and who is to say it."""
    stranger = Authority(secured.directory / "stranger")
    port = secured.kafka.address("SASL_SSL").rpartition(":")[2]
    worker = secured.environ
    named = "refuses the user 'worker' by SCRAM-SHA-512"
    return {
        "password": (worker("worker", sasl_password="guessed"), named, [WORKER, DOCTOR, PUBLISH, TAIL, CHECK]),
        "authority": (worker("worker", ssl_ca_file=str(stranger.file)), "is not trusted", [WORKER, DOCTOR, TAIL]),
        "host": (worker("worker", bootstrap=f"127.0.0.1:{port}"), "not valid for '127.0.0.1'", [WORKER, PUBLISH]),
        # a worker waits for a broker that does not answer
        "protocol": (worker("worker", security_protocol="PLAINTEXT"), "security_protocol PLAINTEXT", [CHECK]),
        "rights": (worker("nobody"), "deploy/kafka/acls.sh", [WORKER, DOCTOR, PUBLISH, TAIL, CHECK]),
        "no file": (worker("worker", ssl_ca_file="/no/such/file"), "kafka.ssl_ca_file /no/such/file", [WORKER, TAIL]),
    }


def test_who_is_refused_is_told_in_one_line_by_every_command(secured, world, headrace):
    for kind, (environ, named, commands) in refusals(secured).items():
        for words in commands:
            done = headrace(environ, *words, input=action("e", "u", "i")[1])
            assert done.exit_code in (1, 2), (kind, words, done.output)
            assert "Traceback" not in done.output, (kind, words, done.output)
            telling = [line for line in done.output.splitlines() if named in line]
            assert telling, (kind, words, done.output)
    assert PASSWORDS["worker"] not in headrace.said
    assert PASSWORDS["nobody"] not in headrace.said
