"""What a Redis holds of a user: every key is looked at, its name and all that is in it, whatever its type."""

import redis

from features.ids import hash64
from features.store.redis_url import target


def connected(url):
    """A client of the server, or of all nodes of the cluster, that `url` names."""
    hosts = target(url).hosts
    return redis.RedisCluster(host=hosts[0][0], port=hosts[0][1]) if hosts else redis.Redis.from_url(url)


def patterns(user):
    """What would tell of a user: the hash as 8 bytes and as 16 hex digits, and the id, where it has 5 bytes or more: "u3"
    stands in every other packed time by chance.
    """
    hashes = hash64(user).to_bytes(8, "big"), f"{hash64(user):016x}".encode()
    return (user.encode(), *hashes) if len(user) >= 5 else hashes


def holding(client, user, *, of=""):
    """The kinds of keys (`s` of `{3}:app:1:s:...`) whose names or values tell of the user; `of`: only this app's."""
    wanted = patterns(user)
    found = set()
    for key in client.scan_iter(match=f"*:{of}:*" if of else "*", count=5_000):
        said = [key, *_values(client, key)]
        if any(pattern in each for pattern in wanted for each in said):
            found.add(key.split(b":")[3].decode() if key.count(b":") > 2 else key.decode())
    return found


def _values(client, key):
    kind = client.type(key)
    if kind == b"string":
        return [client.get(key) or b""]
    if kind == b"hash":
        return [each for pair in client.hgetall(key).items() for each in pair]
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    if kind == b"set":
        return list(client.smembers(key))
    if kind == b"list":
        return client.lrange(key, 0, -1)
    assert kind == b"none", f"a key of an unknown kind: {kind}"
    return []
