"""What `redis.url` may say: one server by redis://, rediss:// or unix://, a cluster by redis+cluster://host:port,...

Of a cluster some nodes are named; the others, and who owns which slot, they tell themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

SINGLE = ("redis", "rediss", "unix")
CLUSTER = ("redis+cluster", "rediss+cluster")
PORT = 6379
SPLITTING = set("/?#[]")  # a client would take the part of a password before it for the port, and say so

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: `hosts` of a cluster, else none (redis-py reads the urls of single servers). No secret is printed."""

    address: str  # without user and password: for messages
    hosts: tuple[Host, ...] = ()
    tls: bool = False
    username: str = ""


def target(url: str) -> Target:
    """What a url names. Raises `ValueError`, without repeating a password, for one that cannot be read.

    >>> target("redis+cluster://a:7000,b:7001").hosts
    (('a', 7000), ('b', 7001))
    >>> target("rediss://:secret@cache:6380/0").address
    'rediss://cache:6380/0'
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in (*SINGLE, *CLUSTER):
        raise ValueError(f"it begins with none of {', '.join(f'{each}://' for each in (*SINGLE, *CLUSTER))}")
    login, _, place = rest.rpartition("@")
    username, colon, _ = login.partition(":")
    address = f"{scheme}://{place}"
    if scheme != "unix" and SPLITTING & set(login):
        raise ValueError("in a user or password, what splits a url is written %XX; better: redis.password_file")
    if not re.fullmatch(r"[^?#]*(\?db=\d{1,4})?", place):
        raise ValueError("it takes no options but ?db=N: passwords and TLS have settings of their own")
    if scheme in SINGLE:
        _ = urlsplit(f"//{place}").port
        return Target(address, (), scheme == "rediss", unquote(username))
    named, slash, path = place.partition("/")
    if slash and path not in ("", "0"):
        raise ValueError(f"a cluster has no database {path!r}")
    if colon:
        raise ValueError("a cluster's password comes from redis.password_file")
    return Target(address, tuple(map(_host, named.split(","))), scheme == "rediss+cluster", unquote(username))


def _host(text: str) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host:port")
    return parts.hostname, parts.port or PORT
