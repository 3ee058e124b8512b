"""Closes connections of the consumer's client that owe an answer and bring no byte: half-open ones.

A connection whose other end is gone without a FIN (a firewall forgot it, a machine lost power) takes requests and never
answers. The client waits `request_timeout_ms` for each request as a whole, and that one must be long: a fetch of 50 MB
over a slow line needs its minutes, a join waits for the slowest member. So 90 s passed after the network was back until
a worker read on (measured), and the watchdog ended it first. What counts here is silence: bytes that come in keep a
connection alive however slowly they come.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason

from pipeline.logs import get_logger

log = get_logger(__name__)

LOOK_S = 1.0
LATE_LOOKS = 3  # a look that comes so much too late found this process asleep: nobody else was silent
HANDSHAKE_S = 10.0  # connect, versions, SASL
JOINS = ("JoinGroupRequest", "SyncGroupRequest")  # answered when the slowest member of the group is there


@dataclass(slots=True)
class _Heard:
    connection: Any
    since_s: float  # the last byte, or the last moment at which no answer was owed


class Silence:
    """Watches one client: how long a connection may owe an answer without a byte, and how long one to a join.

    Private names of aiokafka 0.14: `_get_conn`, `_conns`, `_request_timeout_ms`; of a connection `_requests`, `_reader`,
    `_request_timeout` (tests/pipeline/kafka/test_silence.py names each).
    """

    def __init__(self, client: AIOKafkaClient, *, answer_s: float, join_s: float) -> None:
        self._client, self._answer_s, self._join_s = client, answer_s, join_s
        self._heard: dict[tuple[Any, ConnectionGroup], _Heard] = {}
        self._looked_s = time.monotonic()
        self._patience_s = client._request_timeout_ms / 1000
        client._request_timeout_ms = int(HANDSHAKE_S * 1000)
        self._connect = client._get_conn
        client._get_conn = self._connected

    async def _connected(self, node: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, **hints: Any) -> Any:
        """The client's `_get_conn`; a new connection gets an ear and, past its handshake, the long patience."""
        connection = await self._connect(node, group=group, **hints)
        known = self._heard.get((node, group))
        if connection is None or (known is not None and known.connection is connection):
            return connection
        heard = self._heard[node, group] = _Heard(connection, time.monotonic())
        connection._request_timeout = self._patience_s
        feed = connection._reader.feed_data

        def feed_data(data: bytes) -> None:
            heard.since_s = time.monotonic()
            feed(data)

        connection._reader.feed_data = feed_data
        return connection

    def look(self, now_s: float) -> None:
        """Closes what has been silent for too long; its requests fail, and the client connects anew. Every LOOK_S."""
        was_asleep = now_s - self._looked_s > LATE_LOOKS * LOOK_S
        self._looked_s = now_s
        for (node, group), heard in list(self._heard.items()):
            if not heard.connection.connected():
                del self._heard[node, group]
            elif was_asleep or not heard.connection._requests:
                heard.since_s = now_s
            elif now_s - heard.since_s > self._limit_s(heard.connection._requests[0]):
                log.warning("a silent connection is closed", node=node, silent_s=round(now_s - heard.since_s, 1))
                heard.connection.close(reason=CloseReason.CONNECTION_TIMEOUT)

    def _limit_s(self, owed: tuple[int, Any, Any]) -> float:
        """How long the oldest answer may take; `owed`: correlation id, the request's struct, its future."""
        return self._join_s if type(owed[1]).__name__.startswith(JOINS) else self._answer_s
