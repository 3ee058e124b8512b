"""The demo end to end, as a newcomer runs it: one command, a summary, exit 0; a killed worker changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from features.schema import REQUESTS
from pipeline.dataset import read
from pipeline.demo.plan import simulated

pytestmark = [pytest.mark.services, pytest.mark.timeout(300), pytest.mark.usefixtures("wheels")]


@pytest.fixture
def headrace():
    """Starts `headrace` with the given words; what a failed test leaves running is killed."""
    running = []

    def start(*words, **environ):
        argv = [sys.executable, "-m", "pipeline.cli", *words]
        env = {**os.environ, **environ}
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return running[-1]

    yield start
    for process in running:
        with process:
            process.kill()


def until(demo, pattern):
    """Reads the demo's plain lines until one matches; pytest's timeout bounds the wait."""
    lines = []
    for line in demo.stderr:
        lines.append(line)
        if found := re.search(pattern, line):
            return found
    pytest.fail("".join(lines)[-4000:])


def figures_of(process):
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-4000:]
    return json.loads(out)


def check(figures):
    assert figures["published"] == figures["applied"] + figures["repeated"] + figures["dead_lettered"]
    assert figures["answered"] == figures["triggers"] > 0
    assert sum(end + 1 for end in figures["hwm"].values()) == figures["published"]


def test_the_demo_accounts_for_everything_serves_its_own_model_and_ends_on_ctrl_c(headrace, tmp_path):
    # 50/s: a slow machine is full at that, too
    kept = tmp_path / "kept"
    real = {"HEADRACE_KAFKA_BOOTSTRAP": "127.0.0.1:1", "HEADRACE_REDIS_URL": "redis://127.0.0.1:1"}  # not the demo's
    demo = headrace("demo", "--json", "--rate", "50", "--keep", str(kept), **real)
    until(demo, r"live .* full=")
    demo.send_signal(signal.SIGINT)
    figures = figures_of(demo)
    check(figures)
    assert figures["levels"]["full"] > 0
    assert figures["latency_ms"]["p50"] > 0
    assert figures["hit_rates"]["recommended"]["lists"] > 0
    assert figures["worker"]["restarts"] == 0
    requests = sum(end + 1 for part, end in figures["hwm"].items() if part.startswith(REQUESTS))
    assert len(list(read(kept))) == figures["published"] - requests
    # What was kept is what was published: a replay of it leads to the very same state.
    assert figures_of(headrace("replay", str(kept), "--json"))["digest"] == figures["digest"]


def test_a_worker_killed_while_a_data_set_streams_is_back_and_the_state_is_the_replays(headrace, tmp_path):
    folder = tmp_path / "folder"
    simulated(seed=5, rate=None, warm_up=1500).sample(folder)
    demo = headrace("demo", "--dataset", str(folder), "--rate", "100", "--json")
    # answers flow: at partial, or at full where the model was promoted before the worker was ready
    pid = int(until(demo, r"streaming .* levels \w+=.* worker (\d+) restarts 0")[1])
    os.kill(pid, signal.SIGKILL)
    figures = figures_of(demo)
    check(figures)
    assert figures["worker"]["restarts"] == 1
    assert figures["worker"]["pid"] != pid
    assert figures["published"] == len(list(read(folder)))
    assert figures["repeated"] == 0
    assert figures_of(headrace("replay", str(folder), "--json"))["digest"] == figures["digest"]


def test_seconds_end_the_traffic(headrace):
    figures = figures_of(headrace("demo", "--seconds", "2", "--json", "--rate", "50"))
    check(figures)
    assert 1.9 <= figures["seconds"]["streamed"] < 4.0


def test_a_folder_that_is_none_is_one_line_and_no_traceback(headrace, tmp_path):
    demo = headrace("demo", "--dataset", str(tmp_path), "--json")
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert out == ""
    assert str(tmp_path) in err
    assert "Traceback" not in err


def test_settings_that_lie_where_the_demo_would_keep_its_own_are_not_overwritten(headrace, tmp_path):
    mine = tmp_path / "worker.toml"
    mine.write_text("# mine\n")
    demo = headrace("demo", "--keep", str(tmp_path), "--json")
    out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (2, "")
    assert "holds a worker.toml" in err
    assert mine.read_text() == "# mine\n"


def test_a_worker_that_stands_still_is_named_and_goes_on_when_it_wakes(headrace):
    demo = headrace("demo", "--json", "--rate", "20")
    pid = int(until(demo, r"live .* levels \w+=.* worker (\d+) restarts 0")[1])
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "worker's last line" in until(demo, r"nothing applied or answered for .*")[0]
    finally:
        os.kill(pid, signal.SIGCONT)
    demo.send_signal(signal.SIGTERM)
    check(figures_of(demo))
