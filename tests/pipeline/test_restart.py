"""The process replaces itself: same pid, same command line, nothing open, a bound."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import child
from pipeline.restart import BACKOFF_S, EXIT_STALLED, RESTARTS_MAX, VARIABLE, WITHIN_S, Restarts, behind

SELF = """
import os, socket, sys, threading, time
from pathlib import Path
from pipeline import restart, child
from pipeline.logs import set_up
set_up(level="info", form="json")
turns, sort = int(sys.argv[1]), sys.argv[2]
behind = restart.behind(os.environ)
held = sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())
print(os.getpid(), behind.total, child.death_signal(), held, sys.argv[2:], flush=True)
server = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(server.fileno(), True)
if behind.total < turns:
    if sort == "thread":
        signal = child.death_signal()
        def go():
            child.die_with_parent(signal)
            restart.start_again("loop blocked", "from a thread")
        threading.Thread(target=go).start()
        time.sleep(60)
    restart.start_again("stalled", "from the main thread")
"""


def run(turns, sort, tmp_path, **environ):
    script = tmp_path / "again.py"
    script.write_text(SELF)
    started = subprocess.Popen(
        [sys.executable, str(script), str(turns), sort, "an argument"],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = started.communicate(timeout=60)
    return started, out.splitlines(), err


def test_a_restart_keeps_the_pid_and_the_command_line_and_leaves_nothing_open(tmp_path):
    ended, lines, err = run(2, "main", tmp_path)
    assert ended.returncode == 0, err
    assert [line.split()[:2] for line in lines] == [[str(ended.pid), str(n)] for n in range(3)]
    assert all("['main', 'an argument']" in line for line in lines)
    assert len({line.split("[")[1] for line in lines}) == 1, "descriptors were carried over"
    assert err.count("stalled, starting again") == 2


def test_a_thread_can_restart_the_process_while_the_main_thread_is_blocked(tmp_path):
    ended, lines, err = run(1, "thread", tmp_path)
    assert ended.returncode == 0, err
    assert [line.split()[:2] for line in lines] == [[str(ended.pid), "0"], [str(ended.pid), "1"]]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_restart_from_a_thread_keeps_the_promise_to_die_with_the_parent(tmp_path):
    script, log = tmp_path / "again.py", tmp_path / "log"
    script.write_text(SELF)
    argv = [sys.executable, str(script), "1", "thread"]
    started = child.start(argv, log=log, environ={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert started.wait(60) == 0
    lines = [line.split() for line in log.read_text().splitlines() if line.startswith(str(started.pid))]
    assert [line[2] for line in lines] == [str(int(signal.SIGKILL))] * 2


def test_too_many_restarts_end_the_process_loudly(tmp_path):
    ended, lines, err = run(100, "main", tmp_path)
    assert ended.returncode == EXIT_STALLED
    assert len(lines) == RESTARTS_MAX + 1
    assert "giving up" in err


def test_old_restarts_make_room_and_stay_counted():
    restarts = Restarts()
    for now_s in range(0, int(WITHIN_S) * 4, int(WITHIN_S) // 4):
        restarts = restarts.and_one("stalled", float(now_s))
        assert restarts is not None
    assert restarts.total == 16
    assert len(restarts.at_s) <= RESTARTS_MAX


def test_the_pause_before_a_restart_grows():
    restarts, pauses = Restarts(), []
    for now_s in range(RESTARTS_MAX):
        pauses.append(restarts.backoff_s(float(now_s)))
        restarts = restarts.and_one("stalled", float(now_s))
    assert tuple(pauses) == BACKOFF_S
    assert restarts.and_one("stalled", 10.0) is None


def test_what_the_environment_hands_on_is_bounded_and_may_be_anything():
    for text in ("", "{", "[]", '{"causes":{"a":"b"}}', "\ud800", '{"at_s":[' + "1," * 100_000):
        assert behind({VARIABLE: text}).total == 0
