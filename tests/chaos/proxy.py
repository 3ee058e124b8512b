"""A TCP proxy that misbehaves on command: delay, narrow band, reset, half-open, freeze, heal.

It listens on 127.0.0.1 and passes bytes to `host:port` or `unix://path`, any number of connections. A thread of its own
runs its loop; the commands may be called from any thread and hold when they return.

A Kafka client follows what the broker advertises: the broker must advertise `Proxy.address` on the listener behind it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

CHUNK = 1 << 16
QUEUED_CHUNKS_MAX = 64  # what a direction holds back before its sender feels it
COMMAND_S = 10.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends a RST

Mood = Literal["well", "cut", "half_open", "frozen"]


@dataclass(slots=True)
class Weather:
    """What a connection meets. `delay_s` each way, `bytes_s` each way and connection (0: no limit)."""

    mood: Mood = "well"
    delay_s: float = 0.0
    bytes_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and ours behind it. A swallowed byte makes it useless for good: it never heals."""

    sockets: list[socket.socket]
    is_lost: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """`with Proxy("127.0.0.1:9094") as proxy: proxy.address`. `port`: where to listen, 0: a free one. `upstream` may be
    set later, for a server that has to know the proxy's address first.
    """

    def __init__(self, upstream: str = "127.0.0.1:1", *, port: int = 0) -> None:
        self.upstream = upstream
        self.weather = Weather()
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def links(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._command(self._reset_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_S)
        self._listener.close()

    # --- commands

    def delay(self, milliseconds: float) -> None:
        """Every byte takes so long, each way: twice that a round trip."""
        self.weather.delay_s = milliseconds / 1000

    def bandwidth(self, bytes_s: float) -> None:
        """So many bytes a second, each way, of each connection; 0: no limit."""
        self.weather.bytes_s = bytes_s

    def cut(self) -> None:
        """Resets every connection, and every new one, until `heal`."""
        self._turn("cut", self._reset_all)

    def reset(self) -> None:
        """Resets every connection once; new ones work."""
        self._command(self._reset_all)

    def half_open(self) -> None:
        """Every connection swallows what it is sent, without FIN or RST, for ever; new ones too, until `heal`."""
        self._turn("half_open", self._lose_all)

    def freeze(self) -> None:
        """Nothing moves and nothing is lost, until `heal`."""
        self._turn("frozen", self._thawed.clear)

    def heal(self) -> None:
        """New connections work, and old ones that lost no byte. Delay and bandwidth stay."""
        self._turn("well", self._thawed.set)

    def _turn(self, mood: Mood, then: Callable[[], None]) -> None:
        def turn() -> None:
            self.weather.mood = mood
            then()

        self._command(turn)

    def _command(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(COMMAND_S)

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._hang_up(link)

    def _lose_all(self) -> None:
        for link in self._links:
            link.is_lost = True

    # --- the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._accept())
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted += 1
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link([client], is_lost=self.weather.mood == "half_open")
            self._links.add(link)
            if self.weather.mood == "cut":
                self._hang_up(link)
            else:
                link.tasks.append(self._loop.create_task(self._serve(link)))

    async def _serve(self, link: _Link) -> None:
        is_local = self.upstream.startswith("unix://")
        host, _, port = self.upstream.rpartition(":")
        server = socket.socket(socket.AF_UNIX if is_local else socket.AF_INET, socket.SOCK_STREAM)
        server.setblocking(False)
        link.sockets.append(server)
        at: Any = self.upstream.removeprefix("unix://") if is_local else (host, int(port))
        try:
            await self._loop.sock_connect(server, at)
        except OSError:
            self._hang_up(link)
            return
        client, server = link.sockets
        ways: list[Coroutine[Any, Any, None]] = [self._carry(link, client, server), self._carry(link, server, client)]
        link.tasks += [self._loop.create_task(way) for way in ways]

    async def _carry(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        """One way of a link: reads at once, writes when the weather lets it."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS_MAX)
        writing = self._loop.create_task(self._write(link, queue, target))
        link.tasks.append(writing)
        try:
            while data := await self._loop.sock_recv(source, CHUNK):
                await queue.put((self._loop.time() + self.weather.delay_s, data))
            await queue.put((self._loop.time() + self.weather.delay_s, b""))
            await writing
        except OSError:
            pass
        if not link.is_lost:
            self._hang_up(link)

    async def _write(self, link: _Link, queue: asyncio.Queue[tuple[float, bytes]], target: socket.socket) -> None:
        while True:
            due_s, data = await queue.get()
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            if self.weather.bytes_s:
                await asyncio.sleep(len(data) / self.weather.bytes_s)
            await self._thawed.wait()
            if link.is_lost:
                continue  # swallowed
            if not data:
                return
            with suppress(OSError):
                await self._loop.sock_sendall(target, data)

    def _hang_up(self, link: _Link) -> None:
        self._links.discard(link)
        for task in link.tasks:
            if task is not asyncio.current_task(self._loop):
                task.cancel()
        for each in link.sockets:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._loop.remove_reader(each)
            self._loop.remove_writer(each)
            each.close()
