"""The wire to Redis: commands sent at once over one steady connection a server, and their replies in order.

redis-py's client, pool and pipelines cost 45 us a command and 120 us a pipeline of 16, a third of a small micro-batch;
here its connection is used alone, and kept for good. Its retries are off: it would send a whole pipeline again after a
lost reply. A connection that broke is made anew at the next command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import redis

Command = tuple[Any, ...]  # name, then the key where it has one (EVALSHA: hash, 1, key)

MGET_MAX = 2_000
SCAN_COUNT = 5_000


class Wire(Protocol):
    """What the store needs of one Redis or of a cluster. Raises what redis-py raises; see `redis_replies.answering`."""

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands sent at once; where the server gave an error, it stands in the reply's place."""
        ...

    def mget(self, keys: Sequence[str]) -> list[bytes]:
        """The values of many keys, b"" for absent ones."""
        ...

    def load(self, script: str) -> None:
        """Makes a script known."""
        ...

    def scan(self, pattern: str) -> list[str]:
        """All keys like `pattern`, sorted."""
        ...

    def pages(self, pattern: str) -> Iterator[list[str]]:
        """The keys like `pattern`, some at a time; a key may come twice, other commands may come in between."""
        ...

    def facts(self) -> Mapping[str, Mapping[str, str]]:
        """What each server says of itself (INFO), by its address."""
        ...

    def close(self) -> None: ...


class Node:
    """`Wire` over one server and one connection. Not for use by two threads at once."""

    def __init__(self, connection: Any, address: str) -> None:
        self._connection = connection
        self.address = address

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        self.send(commands)
        return self.receive(len(commands))

    def send(self, commands: Iterable[Command]) -> None:
        """Sends commands; as many replies have to be received before the next are sent."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def receive(self, replies: int) -> list[Any]:
        """The next replies. What breaks off in the middle closes the connection: a late reply answers nobody else."""
        try:
            return [self._received() for _ in range(replies)]
        except BaseException:
            self.close()
            raise

    def _received(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.exceptions.ResponseError as error:
            return error

    def one(self, *command: Any) -> Any:
        """The reply to one command; raises what stands in its place."""
        (reply,) = self.exchange([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def mget(self, keys: Sequence[str]) -> list[bytes]:
        blobs: list[bytes] = []
        for start in range(0, len(keys), MGET_MAX):
            blobs += [blob or b"" for blob in self.one("MGET", *keys[start : start + MGET_MAX])]
        return blobs

    def load(self, script: str) -> None:
        self.one("SCRIPT", "LOAD", script)

    def scan(self, pattern: str) -> list[str]:
        return sorted(self.scanned(pattern))

    def scanned(self, pattern: str) -> set[str]:
        """The keys like `pattern` of this server."""
        return {key for page in self.pages(pattern) for key in page}

    def pages(self, pattern: str) -> Iterator[list[str]]:
        cursor = b"0"
        while True:
            cursor, keys = self.one("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            yield [key.decode() for key in keys]
            if cursor == b"0":
                return

    def facts(self) -> Mapping[str, Mapping[str, str]]:
        return {self.address: _info(self.one("INFO").decode())}

    def close(self) -> None:
        self._connection.disconnect()


def _info(text: str) -> dict[str, str]:
    """INFO's lines `name:value`, comments and blank lines left out."""
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
