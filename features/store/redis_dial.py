"""Connections to Redis: who we are, whom we trust, one server or a cluster. Nothing connects before the first command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.store.redis_cluster import Cluster
from features.store.redis_url import SINGLE, Host, target
from features.store.redis_wire import Node, Wire


@dataclass(frozen=True, slots=True)
class Login:
    """An ACL user and its password; for TLS the authority that signed the servers' certificates ("": the system's), and
    a certificate of our own where the servers ask for one. What a url says of user and password goes before.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


NOBODY = Login()


def dial(url: str, *, timeout_s: float, login: Login = NOBODY) -> Wire:
    """The wire to what `url` names. Raises `ValueError` for a url that cannot be read."""
    named = target(url)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # replies as the store takes them
        "driver_info": None,  # saves two commands a connection
        "username": named.username or login.username or None,
        "password": login.password or None,
    }
    if named.tls:
        options |= _tls(login)
    if url.partition("://")[0] in SINGLE:
        return Node(redis.ConnectionPool.from_url(url, **options).make_connection(), named.address)
    kind = redis.SSLConnection if named.tls else redis.Connection

    def connect(host: Host) -> Node:
        return Node(kind(host=host[0], port=host[1], **options), f"{host[0]}:{host[1]}")

    return Cluster(named.hosts, connect)


def _tls(login: Login) -> dict[str, Any]:
    """The server's certificate has to be signed by the authority and to carry the name or address that we called."""
    own = {"ssl_certfile": login.cert_file, "ssl_keyfile": login.key_file or login.cert_file} if login.cert_file else {}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": login.ca_file or None, **own}
