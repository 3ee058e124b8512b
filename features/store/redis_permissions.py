"""What a Redis user of ours has to be allowed: the one list, from which deploy/redis/users.acl is made.

`headrace` is the workers' user (rebuild and `forget` too). `headrace-reader` is for people: `state show`, `state digest`
and `doctor`. `default`, whom a client without a login gets, is off. All keys are `{tag}:<app>:...`, so a user sees one
app's keys and nothing else, whoever shares the server. Neither may look at or change the server (CONFIG, DEBUG, KEYS,
FLUSHALL, ACL ...), and INFO is as much as the doctor needs. A test runs every store method under the first and compares
the list with the commands that scripts and store send.
"""

from __future__ import annotations

from features.store.redis_scripts import Script, run
from features.store.redis_wire import Wire

READS = ("GET", "HEXISTS", "HGET", "HGETALL", "HMGET", "MGET", "ZRANGE")
WRITES = (
    "APPEND", "DEL", "EXISTS", "EXPIRE", "GETRANGE", "HDEL", "HINCRBY", "HLEN", "HSET", "HSETNX", "SET", "SETRANGE", "TTL",
    "UNLINK", "ZADD", "ZCARD", "ZREM", "ZREMRANGEBYRANK",
)  # fmt: skip
KEYLESS = ("CLUSTER|SLOTS", "INFO", "SCAN")
SCRIPTED = ("EVALSHA", "SCRIPT|LOAD")

PERMISSIONS = Script("permissions.lua")


def users(app: str) -> str:
    """The ACL file for one app. Its users have no password yet, and so nobody gets in by them.

    >>> print(users("shop").splitlines()[-1])
    user headrace-reader on resetchannels %R~{*}:shop:* -@all +get +hexists +hget +hgetall +hmget +mget +zrange \
+cluster|slots +info +scan
    """
    reader, worker = (*READS, *KEYLESS), (*READS, *WRITES, *KEYLESS, *SCRIPTED)
    return "\n".join(
        (
            "user default off",
            f"user headrace on resetchannels ~{{*}}:{app}:* -@all {_allowed(worker)}",
            f"user headrace-reader on resetchannels %R~{{*}}:{app}:* -@all {_allowed(reader)}",
            "",
        )
    )


def lacking(wire: Wire, prefixes: tuple[str, ...]) -> list[str]:
    """The commands that a worker needs and this user may not run, asked of the owner of every shard."""
    calls = [(f"{prefix}hwm", (*READS, *WRITES)) for prefix in prefixes]
    return sorted({command.decode() for refused in run(wire, PERMISSIONS, calls) for command in refused})


def _allowed(commands: tuple[str, ...]) -> str:
    return " ".join(f"+{command.lower()}" for command in commands)
