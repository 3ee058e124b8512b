"""What keeps a client out is said in one line that names the setting; tests/integration/test_kafka_security.py has the rest."""

import socket

import pytest
from cryptography.hazmat.primitives import serialization

from pipeline.config import ConfigError, Kafka
from pipeline.kafka.access import admit, reach, refusal
from pipeline.kafka.clients import confluent, faust_credentials
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def test_where_nobody_listens_a_command_is_told_so_and_a_worker_may_wait():
    settings = Kafka(bootstrap="127.0.0.1:1")
    found = refusal(settings, within_s=1.0)
    assert "127.0.0.1:1" in found.said
    assert "Connection refused" in found.said
    assert not found.is_ours
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1.*Connection refused"):
        reach(settings)
    admit(settings)


def test_who_listens_and_says_nothing_is_asked_no_longer_than_told():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        found = refusal(Kafka(bootstrap=f"{host}:{port}"), within_s=1.0)
    assert f"no answer from {host}:{port} within 1 s" in found.said
    assert not found.is_ours


@pytest.mark.parametrize("client", [confluent, faust_credentials])
def test_files_that_cannot_be_read_are_named_with_their_setting(client, tmp_path, authority):
    def settings(**files):
        return Kafka(security_protocol="SSL", **{name: str(file) for name, file in files.items()})

    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match=r"kafka\.ssl_ca_file .*absent: No such file"):
        client(settings(ssl_ca_file=tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"kafka\.ssl_ca_file .*empty: no certificate"):
        client(settings(ssl_ca_file=tmp_path / "empty"))
    mine = authority.identity("a.invalid", name="mine")
    with pytest.raises(ConfigError, match=r"kafka\.ssl_key_file .*absent: No such file"):
        client(settings(ssl_certificate_file=mine.certificate, ssl_key_file=tmp_path / "absent"))
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(mine.key.read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError, match=r"kafka\.ssl_key_file is encrypted"):
        client(settings(ssl_certificate_file=mine.certificate, ssl_key_file=locked))
    assert client(settings(ssl_ca_file=authority.file, ssl_certificate_file=mine.both))
