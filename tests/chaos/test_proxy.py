"""The proxy does to a connection what it says, over TCP and a unix socket."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.proxy import Proxy


@contextmanager
def echo(path: Path | None = None) -> Iterator[str]:
    """A server that sends back what it gets; yields its address."""
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        address = f"unix://{path}"

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with suppress(OSError), client:
            while data := client.recv(1 << 16):
                client.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield address
    listener.close()


Connect = Callable[[Proxy], socket.socket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connections that end with the test."""
    with ExitStack() as stack:

        def connected(proxy: Proxy) -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=30))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return client

        yield connected


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    found = b""
    while len(found) < len(text):
        data = client.recv(1 << 16)
        if not data:
            break
        found += data
    return found


def await_links(proxy: Proxy, count: int) -> None:
    until_s = time.monotonic() + 30
    while proxy.links != count:
        assert time.monotonic() < until_s
        time.sleep(0.01)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo() as address, Proxy(address) as started:
        yield started


def test_many_connections_pass_whole_and_a_goodbye_too(proxy: Proxy, connect: Connect) -> None:
    clients = [connect(proxy) for _ in range(20)]
    text = bytes(range(256)) * 4_000  # 1 MB, more than the buffers hold
    assert all(ask(client, b"%d" % n) == b"%d" % n for n, client in enumerate(clients))
    threading.Thread(target=clients[0].sendall, args=(text,)).start()
    assert ask(clients[0], b"") == b""
    found = b""
    while len(found) < len(text):
        found += clients[0].recv(1 << 16)
    assert found == text
    for client in clients:
        client.close()
    await_links(proxy, 0)


def test_it_reaches_a_unix_socket(tmp_path: Path, connect: Connect) -> None:
    with echo(tmp_path / "socket") as address, Proxy(address) as proxy, connect(proxy) as client:
        assert ask(client, b"ping") == b"ping"


def test_a_delay_is_met_each_way(proxy: Proxy, connect: Connect) -> None:
    proxy.delay(100)
    with connect(proxy) as client:
        began_s = time.monotonic()
        assert ask(client, b"ping") == b"ping"
        assert time.monotonic() - began_s >= 0.2


def test_a_narrow_band_takes_its_time(proxy: Proxy, connect: Connect) -> None:
    proxy.bandwidth(20_000)
    with connect(proxy) as client:
        began_s = time.monotonic()
        assert ask(client, b"x" * 4_000) == b"x" * 4_000
        assert time.monotonic() - began_s >= 0.4


def test_a_cut_resets_old_and_new_connections_until_it_heals(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy)
    assert ask(client, b"ping") == b"ping"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionError):
        ask(connect(proxy), b"ping")
    proxy.heal()
    assert ask(connect(proxy), b"ping") == b"ping"


def test_a_half_open_connection_takes_everything_and_never_answers_not_even_when_others_do(
    proxy: Proxy, connect: Connect
) -> None:
    old = connect(proxy)
    assert ask(old, b"ping") == b"ping"
    proxy.half_open()
    new = connect(proxy)
    for client in (old, new):
        client.sendall(b"hello?")
    await_links(proxy, 2)  # the kernel accepts before the proxy does
    proxy.heal()
    assert ask(connect(proxy), b"ping") == b"ping"
    for client in (old, new):
        client.settimeout(0.3)
        client.sendall(b"hello??")
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_what_is_frozen_comes_whole_when_it_thaws(proxy: Proxy, connect: Connect) -> None:
    client = connect(proxy)
    proxy.freeze()
    client.sendall(b"ping")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.heal()
    client.settimeout(30)
    assert client.recv(4) == b"ping"


def test_a_server_that_is_not_there_is_a_reset(connect: Connect) -> None:
    with Proxy("127.0.0.1:1") as proxy, pytest.raises(ConnectionError):
        ask(connect(proxy), b"ping")
