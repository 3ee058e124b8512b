"""What `redis.url` may say, and that no refusal repeats a password."""

import re

import pytest

from features.store.redis_url import target


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://h", "redis://"),
        ("h:6379", "redis://"),
        ("redis://:secret@h:port", "port"),
        ("redis+cluster://a:1,b:secrets", "Port|port"),
        ("redis+cluster://", "host:port"),
        ("redis+cluster://a:1,,b:2", "host:port"),
        ("redis+cluster://a:1/3", "database"),
        ("redis+cluster://me:secret@a:1", "password_file"),
        ("redis://:secret/more@h:1/0", "%XX"),
        ("redis://me:secret#more@h:1/0", "%XX"),
        ("redis://me:secret[more@h:1/0", "%XX"),
        ("redis://h:1/0?password=secret", "no options"),
        ("redis://h:1/0#secret", "no options"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_without_its_password(url, word):
    with pytest.raises(ValueError, match=word) as refusal:
        target(url)
    assert not re.search(r"secret\b", str(refusal.value))


def test_a_url_cannot_switch_off_what_the_settings_say_of_certificates():
    with pytest.raises(ValueError, match="TLS have settings"):
        target("rediss://h:1/0?ssl_cert_reqs=none")


def test_a_socket_may_name_its_database():
    assert target("unix:///run/redis@1.sock?db=3").hosts == ()


def test_a_cluster_is_named_by_some_nodes_a_user_and_the_default_port():
    found = target("rediss+cluster://me@a,b:7001,[::1]:7002/0")
    assert found.hosts == (("a", 6379), ("b", 7001), ("::1", 7002))
    assert (found.tls, found.username, found.address) == (True, "me", "rediss+cluster://a,b:7001,[::1]:7002/0")


def test_a_single_server_may_have_its_user_in_the_url_and_the_address_is_without():
    found = target("redis://me:s%40crt@h:1/2")
    assert (found.hosts, found.tls, found.username, found.address) == ((), False, "me", "redis://h:1/2")
    assert target("unix:///run/redis.sock").hosts == ()
