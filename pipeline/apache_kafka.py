"""Apache Kafka on this machine without a container engine: one node in KRaft mode, on loopback only.

For tests and for people without Docker: `python -m pipeline.apache_kafka --data DIR --port 9092` (`make kafka`) starts
it, creates the topics of deploy/topics.toml and runs until Ctrl-C. The data folder stays: after a kill -9, too, the
same folder starts again with everything that was acknowledged.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline import child
from pipeline.embedded import EmbeddedError, free_port
from pipeline.java import ROOT, find_java, jars
from pipeline.kafka.topics import create, load_topics

READY_S = 180.0  # 3 s on an idle machine of 2 cores, 44 s on one with six times its load
STOP_S = 10.0
FORMAT_S = 120.0
POLL_S = 0.05
PORT_TRIES = 3
LOG4J = ROOT / "deploy" / "kafka" / "log4j2.xml"
# One node, few clients: C1 code starts in half the time, and the serial collector needs no threads of its own.
JVM = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Djava.awt.headless=true"

# What a cluster of three would keep on three, one keeps once; what waits for company does not wait.
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": ",".join(
        ["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"))]
    ),
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After kill -9 the restarted broker must not register before its former self counts as gone: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "8388608",
}


class ApacheKafka:
    """One broker, started; `stop()` ends it, the directory stays. Start and restart: main thread only.

    `properties` are laid over PROPERTIES, in server.properties' own words. `secured` names further listeners by their
    security protocol (SSL, SASL_SSL, SASL_PLAINTEXT); what they need stands in `properties`. Raises `EmbeddedError` when Java, Maven or
    the jars are missing (and says what to install), when the broker ends early or stays silent for `ready_s`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        secured: Sequence[str] = (),
        ready_s: float = READY_S,
    ) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        child.sweep()
        self._java = find_java()
        self._jars = jars(self._java)
        self._properties = dict(properties or {})
        self._secured = {protocol: free_port() for protocol in secured}
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port or 0
        try:
            self._start_on_a_port(tries=1 if port else PORT_TRIES)
        except BaseException:
            self.stop()
            raise

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self._port}"

    def address(self, protocol: str) -> str:
        """HOST:PORT of a secured listener."""
        return f"localhost:{self._secured[protocol]}"

    @property
    def pid(self) -> int:
        """Of the broker's Java process; raises `EmbeddedError` once it was stopped."""
        if self._process is None:
            raise EmbeddedError("kafka: stopped")
        return self._process.pid

    def kill(self) -> None:
        """Kill -9; what was acknowledged is in the directory. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Starts it again on the same port and directory (kills a running one first) and awaits it."""
        self.kill()
        self._start()
        self._await()

    def check(self) -> None:
        """Raises `EmbeddedError` if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise self._death()

    def stop(self) -> None:
        """Ends it in order (0.5 s), so that the next start has nothing to recover; safe to call twice."""
        if self._process is not None:
            child.stop(self._process, timeout_s=STOP_S)
            self._process = None

    def _start_on_a_port(self, *, tries: int) -> None:
        asked = self._port
        if asked and _is_taken(asked):
            raise EmbeddedError(f"kafka: something listens on 127.0.0.1:{asked} already; another port? --port")
        for attempt in range(tries):
            self._port = asked or free_port()
            try:
                self._start()
                self._await()
            except EmbeddedError:
                # Somebody may have taken the port between our asking and the broker's binding.
                if attempt + 1 == tries or self._process is None or self._process.poll() is None:
                    raise
                continue
            return

    def _start(self) -> None:
        data = self.directory / "kafka"
        config = self.directory / "server.properties"
        config.write_text(self._rendered(data))
        if not (data / "meta.properties").is_file():
            self._format(config)
        self._process = child.start([*self._command(), "kafka.Kafka", str(config)], log=self._output)

    def _rendered(self, data: Path) -> str:
        controller = free_port()  # may differ from start to start: the log knows the node by its id
        told = [f"PLAINTEXT://{self.bootstrap}", *(f"{name}://{self.address(name)}" for name in self._secured)]
        lines = PROPERTIES | {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join([*told, f"CONTROLLER://127.0.0.1:{controller}"]).replace("localhost", "127.0.0.1"),
            "advertised.listeners": ",".join(told),
            "log.dirs": str(data),
            **self._properties,
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def _format(self, config: Path) -> None:
        words = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id(), "-c", str(config)]
        try:
            done = subprocess.run(
                [*self._command(), *words],
                env=child.without_settings(os.environ),
                capture_output=True,
                text=True,
                timeout=FORMAT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"kafka: formatting took over {FORMAT_S:.0f} s") from None
        if done.returncode:
            raise EmbeddedError(f"kafka: formatting failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _command(self) -> list[str]:
        logging = [f"-Dlog4j2.configurationFile={LOG4J.as_uri()}", f"-Dkafka.logs.dir={self.directory}"]
        return [str(self._java), *JVM.split(), *logging, "-cp", f"{self._jars}/*"]

    def _await(self) -> None:
        until_s = time.monotonic() + self._ready_s
        while time.monotonic() < until_s:
            self.check()
            if self._answers():
                return
            time.sleep(POLL_S)
        raise EmbeddedError(f"kafka: no answer within {self._ready_s:.0f} s\n{self._said()}")

    def _answers(self) -> bool:
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=2.0).brokers)
        except KafkaException:  # not there yet
            return False

    def _death(self) -> EmbeddedError:
        code = self._process.returncode if self._process is not None else None
        return EmbeddedError(f"kafka: ended with code {code}\n{self._said()}")

    def _said(self) -> str:
        return "\n".join(filter(None, map(child.tail_of, (self._output, self.directory / "kafka.log"))))

    @property
    def _output(self) -> Path:
        return self.directory / "kafka.out"


def _is_taken(port: int) -> bool:
    """Whether somebody answers there: ours would take seconds to fail, and meanwhile theirs be taken for it."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def cluster_id() -> str:
    """A new one as Kafka writes it. None begins with a dash, as one in 64 would: Kafka's tool takes that for an option."""
    while (told := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return told


def main(arguments: list[str] | None = None) -> int:
    """`python -m pipeline.apache_kafka`: a broker with the declared topics, until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.apache_kafka", description="Apache Kafka on loopback.")
    parser.add_argument("--data", type=Path, default=ROOT / "var" / "kafka", help="kept; default: var/kafka")
    parser.add_argument("--port", type=int, default=9092, help="on 127.0.0.1; default: 9092")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        broker = ApacheKafka(given.data, port=given.port)
    except EmbeddedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        return _serve(broker)
    except KeyboardInterrupt:
        return 0
    finally:
        broker.stop()


def _serve(broker: ApacheKafka) -> int:
    outcome = create(AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0}), load_topics())
    for name, said in outcome.items():
        sys.stdout.write(f"{name}: {said}\n")
    sys.stdout.write(
        f"Apache Kafka answers on {broker.bootstrap}, its data lie in {broker.directory}; Ctrl-C ends it\n"
    )
    sys.stdout.flush()
    while True:
        try:
            broker.check()
        except EmbeddedError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
