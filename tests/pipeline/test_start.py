"""A worker that cannot begin yet says why, and ends when it is told to."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from features.schema import INPUT_TOPICS
from pipeline.app import build
from pipeline.config import Kafka, Settings, Worker
from pipeline.embedded import free_port
from pipeline.logs import Once

TOML = """
[kafka]
bootstrap = "127.0.0.1:{broker}"
[redis]
url = "redis://127.0.0.1:1/0"
[worker]
web_port = 0
metrics_port = {metrics}
log_format = "console"
data_dir = "{directory}"
[[actions]]
name = "view"
"""


@pytest.fixture
def taken():
    """A port that somebody holds, who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=["refuses", "is silent"])
def broker(request, taken):
    return taken if request.param == "is silent" else free_port()


def test_a_worker_whose_broker_is_away_says_so_once_and_ends_when_told(broker, tmp_path):
    config, said, metrics = tmp_path / "worker.toml", tmp_path / "log", free_port()
    config.write_text(TOML.format(broker=broker, metrics=metrics, directory=tmp_path))
    with said.open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "--config", str(config), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    try:
        until_s = time.monotonic() + 30
        while 'headrace_paused{cause="broker"} 1.0' not in (page := read(f"http://127.0.0.1:{metrics}/metrics")):
            assert time.monotonic() < until_s, page + said.read_text()
            time.sleep(0.1)
        time.sleep(1.5)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(8) == 0  # 3 s on a machine that has nothing else to do
        assert said.read_text().count("waiting") == 1
    finally:
        worker.kill()
        worker.wait()


def read(url):
    try:
        return urllib.request.urlopen(url, timeout=2).read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def test_a_worker_whose_web_port_is_taken_works_without(taken, tmp_path):
    apps = [
        build(Settings(kafka=Kafka(bootstrap="127.0.0.1:1"), worker=Worker(web_port=port, data_dir=str(tmp_path))))
        for port in (taken, free_port(), 0)
    ]
    assert [app.conf.web_enabled for app in apps] == [False, True, False]


def test_faust_keeps_no_account_of_what_the_agents_have_read(tmp_path):
    app = build(Settings(kafka=Kafka(bootstrap="127.0.0.1:1"), worker=Worker(web_port=0, data_dir=str(tmp_path))))
    assert sorted(app.agents) == sorted(INPUT_TOPICS)
    assert not any(agent.channel.acks for agent in app.agents.values())


def test_a_client_library_says_the_same_thing_once_in_a_while():
    now_s = iter([0.0, 1.0, 40.0, 41.0])
    once = Once(lambda: next(now_s))

    def seen(name, message):
        return once.filter(logging.LogRecord(name, logging.ERROR, "", 0, message, (), None))

    assert [seen("aiokafka.conn", "no %s") for _ in range(3)] == [True, False, True]
    assert [seen("aiokafka.conn", "another")] == [True]
    assert [seen("pipeline.edge", "no %s") for _ in range(2)] == [True, True]
