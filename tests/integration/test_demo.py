"""The demo end to end, as a newcomer runs it: one command, a summary, exit 0; a killed worker changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from features.schema import INPUT_TOPICS
from pipeline.dataset import read

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(demo, within_s=180):
    out, err = demo.communicate(timeout=within_s)
    assert demo.returncode == 0, err[-4000:]
    return json.loads(out), err


def check(figures):
    assert figures["published"] == figures["applied"] + figures["repeated"] + figures["dead_lettered"]
    assert figures["answered"] == figures["triggers"] > 0
    assert re.fullmatch(r"[0-9a-f]{64}", figures["digest"])


def test_the_demo_accounts_for_everything_and_serves_its_own_model(servers, tmp_path):
    _ = servers  # skips, or fails in CI, where the wheels are absent
    figures, err = finish(start("--seconds", "12", "--json", "--keep", str(tmp_path / "kept")))
    check(figures)
    assert figures["levels"]["full"] > 0
    assert figures["latency_ms"]["p50"] > 0
    assert figures["hit_rates"]["recommended"]["lists"] > 0
    assert figures["worker"]["restarts"] == 0
    assert "events/s" in err
    requests = sum(end + 1 for part, end in figures["hwm"].items() if part.startswith(INPUT_TOPICS[3]))
    assert len(list(read(tmp_path / "kept"))) == figures["published"] - requests


def test_a_data_set_streams_to_its_end_over_a_killed_worker(servers, tmp_path):
    _ = servers
    kept = tmp_path / "kept"
    finish(start("--seconds", "3", "--json", "--keep", str(kept)))
    demo = start("--dataset", str(kept), "--json", "--rate", "1500")
    time.sleep(0.5)
    killed = False
    lines = []
    for line in demo.stderr:
        lines.append(line)
        found = re.search(r"worker (\d+) restarts 0", line)
        if found and not killed and "lag" in line and "applied" not in line and int(found[1]) and len(lines) > 4:
            os.kill(int(found[1]), signal.SIGKILL)
            killed = True
    out = demo.stdout.read()
    assert demo.wait(60) == 0, "".join(lines)[-4000:]
    demo.stdout.close()
    demo.stderr.close()
    second = json.loads(out)
    assert killed
    check(second)
    assert second["worker"]["restarts"] == 1
    assert second["published"] == len(list(read(kept)))


def test_ctrl_c_leads_to_the_summary(servers):
    _ = servers
    demo = start("--json")
    for line in demo.stderr:
        if "events/s" in line and "live" in line:
            break
    demo.send_signal(signal.SIGINT)
    figures, _ = finish(demo)
    check(figures)
