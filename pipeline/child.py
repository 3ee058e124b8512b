"""A child process that does not outlive its parent, even when the parent is killed with -9, nor sees its settings.

Linux: a launcher of a few lines asks the kernel for SIGKILL at the parent's death (prctl PR_SET_PDEATHSIG, which an
exec keeps) and then becomes the program. The kernel watches the thread that forked, hence the main-thread rule.
Elsewhere: a list of (parent, child) pids in the temporary directory, swept at the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_SET_DEATH_SIGNAL, _GET_DEATH_SIGNAL = 1, 2  # PR_SET_PDEATHSIG, PR_GET_PDEATHSIG

# 1 = PR_SET_PDEATHSIG. The parent may have died before the call: then nobody would send the signal.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
if os.getppid() != int(sys.argv[2]):
    sys.exit("the parent is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""


def start(
    argv: Sequence[str], *, log: Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts `argv` (argv[0]: path of the program) with both outputs appended to `log`; the Popen has the program's pid.
    It gets `environ`, by default ours `without_settings`.

    The child has a session of its own, so that Ctrl-C in the terminal reaches the parent alone, which then ends its
    children in order. Raises `RuntimeError` off the main thread, `OSError` if the program cannot be run.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread: PDEATHSIG follows the thread that forked")
    program = list(argv)
    if sys.platform == "linux":
        words = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(int(signal.SIGKILL)), str(os.getpid()), *program]
    else:
        words = program
    with log.open("ab") as output:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(without_settings(os.environ) if environ is None else environ),
            start_new_session=True,
        )
    if sys.platform != "linux":
        remember(_pid_list(), os.getpid(), child.pid)
    return child


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Without HEADRACE_ variables: they name servers and may hold passwords that are ours, not those of a child with a file
    of its own, nor of a broker or a build tool.

    >>> without_settings({"HOME": "/root", "HEADRACE_REDIS_PASSWORD": "secret"})
    {'HOME': '/root'}
    """
    return {name: value for name, value in environ.items() if not name.startswith("HEADRACE_")}


def death_signal() -> int:
    """The signal that the calling thread's process gets at its parent's death, 0 for none or where nobody tells."""
    if sys.platform != "linux":
        return 0
    told = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_GET_DEATH_SIGNAL, ctypes.byref(told))
    return told.value


def die_with_parent(death_signal: int) -> None:
    """Has an exec of the calling thread keep `death_signal`: each thread has its own, a new one none."""
    if death_signal:
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, death_signal)


def stop(child: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """SIGTERM (and SIGCONT, if it was stopped), then after `timeout_s` SIGKILL; the child is reaped in any case."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGCONT)
        child.terminate()
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def tail_of(log: Path, *, lines: int = 8) -> str:
    """The last lines of a child's log, for the error that reports its death."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def remember(pids: Path, parent: int, child: int) -> None:
    """Appends a (parent, child) pair to the list that `sweep` reads."""
    with pids.open("a") as file:
        file.write(f"{parent} {child}\n")


def sweep(pids: Path | None = None) -> list[int]:
    """Kills listed children whose parent is gone, forgets them, and returns their pids (platforms without prctl).

    A list that somebody else has laid there names whom they want killed: it is not read.
    """
    pids = pids or _pid_list()
    if not pids.is_file() or pids.is_symlink() or pids.stat().st_uid != os.getuid():
        return []
    pairs = [tuple(map(int, line.split())) for line in pids.read_text().splitlines() if line.count(" ") == 1]
    orphans = [child for parent, child in pairs if not _alive(parent) and _alive(child)]
    for child in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    pids.write_text("".join(f"{parent} {child}\n" for parent, child in pairs if _alive(parent)))
    return orphans


def _pid_list() -> Path:
    return Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}.pids"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
