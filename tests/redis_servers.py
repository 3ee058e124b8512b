"""Redis for tests, of four kinds, on loopback: `valkey` (the wheel's), `redis7` (redis-server), `cluster`, `tls`.

`tls` is redis-server 7 as it should stand in a network: TLS only, and just the users of deploy/redis/users.acl.

HEADRACE_TEST_REDIS = `embedded` (default: as the demo starts it) | `redis7` | `cluster` says what tests/servers.py starts.
Nodes keep an append-only file, as in production: kill -9 and restart lose at most its last second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import redis

from features.store.layout import SLOTS
from features.store.redis_dial import Login
from features.store.redis_permissions import users
from features.store.redis_url import target
from pipeline import child
from pipeline.embedded import EmbeddedError, find_redis, free_port
from tests.certificates import Authority

REDIS = os.environ.get("HEADRACE_TEST_REDIS", "embedded")
READY_S = 30.0
POLL_S = 0.02
PASSWORD = "worker-secret"
ADMIN = {"username": "admin", "password": "admin-secret"}
NODE_TIMEOUT_MS = 1_000  # after which a cluster takes a silent node for dead
WORDS = (
    "--bind 127.0.0.1 --appendonly yes --appendfsync everysec --maxmemory-policy noeviction --enable-debug-command yes"
)


def find_redis7() -> Path:
    """`redis-server` of the PATH. Raises `EmbeddedError` where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        raise EmbeddedError("no redis-server on the PATH (Debian: apt-get install redis-server, version >= 7.0)")
    return Path(found)


def find_any() -> Path:
    """`redis-server` where there is one, else the wheel's."""
    return find_redis7() if shutil.which("redis-server") else find_redis()


class Server:
    """One process on a port of 127.0.0.1. `options`: further words of its command line. `admin`: how to log in."""

    def __init__(self, directory: Path, program: Path, *options: str, port_option: str = "--port", **admin) -> None:
        self.directory, self.admin = directory, admin
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        plain = ["--port", "0"] if port_option != "--port" else []
        self._argv = [str(program), *plain, port_option, str(self.port), *WORDS.split(), "--save", ""]
        self._argv += ["--dir", str(directory), *options]
        check = program.with_name("redis-check-aof")
        self._check = check if check.exists() and "--aof-load-truncated" not in options else None
        if self._check:
            self._argv += ["--aof-load-truncated", "no"]
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """After a torn append-only file as its operator has to: Redis 7 itself would leave half a script in it."""
        manifest = self.directory / "appendonlydir" / "appendonly.aof.manifest"
        if self._check and manifest.exists():
            subprocess.run([self._check, "--fix", manifest], input=b"y\n", stdout=subprocess.DEVNULL, check=True)
        self._process = child.start(self._argv, log=self.directory / "log")

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        child.stop(self._process, timeout_s=3.0)

    def client(self) -> redis.Redis:
        """A client of this node alone, who may do everything."""
        return redis.Redis(port=self.port, socket_timeout=READY_S, protocol=2, **self.admin)

    def await_(self, ready: Callable[[redis.Redis], bool]) -> None:
        """Returns when `ready(client)`; raises `EmbeddedError` with the end of the log."""
        until_s = time.monotonic() + READY_S
        with self.client() as client:
            while time.monotonic() < until_s:
                try:
                    if ready(client):
                        return
                except (redis.RedisError, OSError):  # not there yet, or loading its file
                    pass
                if self._process.poll() is not None:
                    break
                time.sleep(POLL_S)
        raise EmbeddedError(f"{self.directory.name} is not ready:\n{child.tail_of(self.directory / 'log')}")


class Single:
    """One server. `url` is its address, `login` the worker's; `kill` and `restart` as the cluster's."""

    login = Login()

    def __init__(self, directory: Path, program: Path, *options: str) -> None:
        self.nodes = [Server(directory, program, *options)]
        self.url = f"redis://127.0.0.1:{self.nodes[0].port}"
        self.nodes[0].await_(lambda client: bool(client.ping()))

    def kill(self, index: int = 0) -> None:
        self.nodes[index].kill()

    def restart(self, index: int = 0) -> None:
        """Kills it if it runs, starts it again on its append-only file, and waits for it."""
        self.kill(index)
        self.nodes[index].start()
        self.nodes[index].await_(lambda client: bool(client.ping()))

    def clear(self) -> None:
        """Empty, and without scripts: their first call has to load them."""
        for node in self.nodes:
            with node.client() as client:
                client.flushall()
                client.script_flush()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Cluster(Single):
    """Three masters, and `replicas` of the first ones, put together by CLUSTER commands. `url` names two of them."""

    MASTERS = 3

    def __init__(self, directory: Path, program: Path, *, replicas: int = 0) -> None:
        self.nodes = []
        try:
            for number in range(self.MASTERS + replicas):
                words = f"--cluster-enabled yes --cluster-node-timeout {NODE_TIMEOUT_MS} --cluster-port {free_port()}"
                self.nodes.append(Server(directory / f"node{number}", program, *words.split()))
            self._join(replicas)
        except BaseException:
            self.stop()
            raise
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def restart(self, index: int = 0) -> None:
        self.kill(index)
        self.nodes[index].start()
        self.await_agreement()

    def await_agreement(self, nodes: Sequence[Server] | None = None) -> None:
        """Every node (of these) takes the cluster for whole."""
        for node in nodes or self.nodes:
            node.await_(lambda client: b"cluster_state:ok" in _said(client, "CLUSTER", "INFO"))

    def clear(self) -> None:
        for node in self.nodes[: self.MASTERS]:
            with node.client() as client:
                client.flushall()
                client.script_flush()

    def owner(self, slot: int, *, says: int = 0) -> int:
        """The index of the node that owns a slot, as node `says` says."""
        with self.nodes[says].client() as client:
            for first, last, (_, port, *_), *_ in _said(client, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return [node.port for node in self.nodes].index(port)
        raise EmbeddedError(f"nobody owns slot {slot}")

    def open_move(self, slot: int, target: int) -> int:
        """Marks a slot as moving from its owner (returned) to `target`; its keys still lie where they were."""
        source = self.owner(slot)
        self._say(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
        self._say(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(target))
        return source

    def move_keys(self, slot: int, source: int, target: int, *, most: int = 10) -> int:
        """Moves some keys of an opened slot; returns how many."""
        keys = self._say(source, "CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            self._say(source, "MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5_000, "KEYS", *keys)
        return len(keys)

    def close_move(self, slot: int, target: int) -> None:
        """From here on `target` owns the slot, and every node knows it: gossip of a busy machine may be seconds old."""
        owner = self._id(target)
        masters = (target, *(each for each in range(self.MASTERS) if each != target))
        for index in masters:
            self._say(index, "CLUSTER", "SETSLOT", slot, "NODE", owner)
        for index in masters:
            self._say(index, "CLUSTER", "SETSLOT", slot, "STABLE")
            self.nodes[index].await_(lambda _, index=index: self.owner(slot, says=index) == target)

    def move(self, slot: int, target: int) -> None:
        """All of it."""
        source = self.open_move(slot, target)
        while self.move_keys(slot, source, target):
            pass
        self.close_move(slot, target)

    def _join(self, replicas: int) -> None:
        for node in self.nodes:
            node.await_(lambda client: bool(client.ping()))
        bounds = [SLOTS * number // self.MASTERS for number in range(self.MASTERS + 1)]
        for index in range(self.MASTERS):
            self._say(index, "CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
        for index in range(1, len(self.nodes)):  # each its own epoch: no slot is argued about
            self._say(index, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in self.nodes[1:]:
            bus = node._argv[node._argv.index("--cluster-port") + 1]
            self._say(0, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        whole = len(self.nodes)
        for node in self.nodes:
            node.await_(lambda client: f"cluster_known_nodes:{whole}".encode() in _said(client, "CLUSTER", "INFO"))
        for index in range(replicas):
            replica = self.nodes[self.MASTERS + index]
            master = self._id(index)
            replica.await_(lambda client, master=master: _said(client, "CLUSTER", "REPLICATE", master) == b"OK")
            replica.await_(lambda client: client.info("replication").get("master_link_status") == "up")
        self.await_agreement()

    def _id(self, index: int) -> str:
        return self._say(index, "CLUSTER", "MYID").decode()

    def _say(self, index: int, *command):
        with self.nodes[index].client() as client:
            return _said(client, *command)


class Guarded(Single):
    """One server with the users of deploy/redis/users.acl, for the keys of `app`."""

    def __init__(self, directory: Path, program: Path, app: str) -> None:
        self.nodes = [Server(directory, program, *_acl(directory, app), **ADMIN)]
        self.url = f"redis://127.0.0.1:{self.nodes[0].port}"
        self.login, self.reader = logins()
        self.nodes[0].await_(lambda client: bool(client.ping()))


class Tls(Single):
    """The same with TLS only: a certificate for `localhost`, and for clients too, who have to show theirs if `mutual`."""

    def __init__(self, directory: Path, program: Path, app: str, *, mutual: bool = False) -> None:
        authority = Authority(directory / "certificates")
        own = authority.identity("localhost", name="server")
        identity = authority.identity("worker.test", name="worker")
        self.ca_file = str(authority.file)
        self.identity = {"cert_file": str(identity.certificate), "key_file": str(identity.key)}
        files = ["--tls-cert-file", own.certificate, "--tls-key-file", own.key, "--tls-ca-cert-file", authority.file]
        words = [*map(str, files), "--tls-auth-clients", "yes" if mutual else "no", *_acl(directory, app)]
        admin = ADMIN | {"host": "localhost", "ssl": True, "ssl_ca_certs": self.ca_file}
        admin |= {"ssl_certfile": self.identity["cert_file"], "ssl_keyfile": self.identity["key_file"]}
        self.nodes = [Server(directory, program, *words, port_option="--tls-port", **admin)]
        self.url = f"rediss://localhost:{self.nodes[0].port}"
        self.login, self.reader = logins(ca_file=self.ca_file)
        self.nodes[0].await_(lambda client: bool(client.ping()))


def client_of(url: str) -> redis.Redis | redis.RedisCluster:
    """redis-py's client for what a `redis.url` names."""
    hosts = target(url).hosts
    return redis.RedisCluster(*hosts[0], protocol=2) if hosts else redis.Redis.from_url(url)


def logins(**certificates: str) -> tuple[Login, Login]:
    """The worker's and the reader's."""
    return Login("headrace", PASSWORD, **certificates), Login("headrace-reader", PASSWORD, **certificates)


def _acl(directory: Path, app: str) -> tuple[str, str]:
    """The users' rules as they are deployed, with a password each, and one user more who may do everything."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "users.acl"
    hashed = sha256(PASSWORD.encode()).hexdigest()
    file.write_text(
        users(app).replace(" on resetchannels", f" on #{hashed} resetchannels")
        + f"user {ADMIN['username']} on >{ADMIN['password']} ~* &* +@all\n"
    )
    return "--aclfile", str(file)


def start(directory: Path, kind: str, *, app: str = "headrace") -> Single:
    """A server or cluster of a kind; `app`: whose keys the users of `tls` may touch. Raises `EmbeddedError` where it cannot be had on this machine."""
    if kind == "valkey":
        return Single(directory, find_redis())
    if kind == "redis7":
        return Single(directory, find_redis7())
    if kind == "cluster":
        return Cluster(directory, find_any())
    if kind == "tls":
        return Tls(directory, find_redis7(), app)
    raise ValueError(f"HEADRACE_TEST_REDIS: no Redis of the kind {kind!r}")


def _said(client: redis.Redis, *command):
    """The raw reply: no client needs to know every subcommand."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)
