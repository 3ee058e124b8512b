"""Children: started with a log, stopped within a bound, swept where the kernel does not do it."""

import os
import subprocess
import sys
import threading

import pytest

from pipeline import child


def test_output_goes_to_the_log_and_the_end_of_it_can_be_quoted(tmp_path):
    log = tmp_path / "log"
    process = child.start([sys.executable, "-c", "print('one'); print('two')"], log=log)
    assert process.wait(30) == 0
    assert child.tail_of(log, lines=1) == "two"


def test_a_child_sees_none_of_our_settings_which_name_our_servers_and_may_hold_passwords(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "sesame")
    monkeypatch.setenv("ANOTHER", "seen")
    log = tmp_path / "log"
    child.start([sys.executable, "-c", "import os; print(dict(os.environ))"], log=log).wait(30)
    assert "'ANOTHER': 'seen'" in log.read_text()
    assert "HEADRACE_" not in log.read_text()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    process = child.start([sys.executable, "-c", code], log=log)
    while "up" not in child.tail_of(log):
        assert process.poll() is None
    child.stop(process, timeout_s=0.2)
    assert process.returncode == -9


def test_children_are_refused_off_the_main_thread(tmp_path):
    refused = []

    def start():
        try:
            child.start([sys.executable, "-c", ""], log=tmp_path / "log")
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert "main thread" in refused[0]


def test_the_sweep_ends_orphans_and_spares_children_of_the_living(tmp_path):
    pids = tmp_path / "pids"
    orphan, kept = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    child.remember(pids, dead.pid, orphan.pid)
    child.remember(pids, os.getpid(), kept.pid)
    assert child.sweep(pids) == [orphan.pid]
    assert orphan.wait(10) == -9
    assert kept.poll() is None
    assert pids.read_text() == f"{os.getpid()} {kept.pid}\n"
    kept.kill()
    kept.wait()


def test_nobody_else_s_list_says_whom_to_kill(tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as spared:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        child.remember(pids, dead.pid, spared.pid)
        (tmp_path / "link").symlink_to(pids)
        assert child.sweep(tmp_path / "link") == []
        owner = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
        assert child.sweep(pids) == []
        assert spared.poll() is None
        spared.kill()


def test_a_sweep_without_a_list_does_nothing(tmp_path):
    assert child.sweep(tmp_path / "none") == []


@pytest.mark.parametrize("program", ["/nonexistent/program"])
def test_a_program_that_cannot_run_ends_at_once(tmp_path, program):
    if sys.platform != "linux":
        with pytest.raises(OSError):
            child.start([program], log=tmp_path / "log")
        return
    process = child.start([program], log=tmp_path / "log")
    assert process.wait(30) != 0
    assert "No such file" in child.tail_of(tmp_path / "log")
