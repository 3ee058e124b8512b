"""A peak leaves no mark in a worker's memory; what the C allocator keeps goes back to the system."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.heap import give_back

PAGES, BYTES = 600, 60_000  # below the size from which malloc maps by itself
PEAK_KB = 8 << 10

# Arrays of a peak, each with something small behind it that stays, in two threads; twice, for glibc learns from the first.
PEAKS = f"""
import ctypes, sys, threading
from pathlib import Path
from pipeline.heap import bound

sys.argv[1] == "bound" and bound()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def peak():
    for _ in range(2):
        arrays = []
        for _ in range(8):
            arrays.append(bytearray(b"x") * ({PEAK_KB} * 1024))
            libc.malloc(ctypes.c_size_t(2000))
        del arrays

def resident_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

before = resident_kb()
for each in [threading.Thread(target=peak) for _ in range(2)]:
    each.start()
    each.join()
print(resident_kb() - before)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")


def resident_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def kept_kb(how):
    done = subprocess.run([sys.executable, "-c", PEAKS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_peak_keeps_memory_as_the_allocator_is_set_by_default_and_none_where_it_is_bound():
    assert kept_kb("default") > PEAK_KB
    assert kept_kb("bound") < PEAK_KB // 4


def test_what_lies_free_between_what_is_used_is_given_back():
    held = [bytearray(b"x" * BYTES) for _ in range(PAGES)]
    del held[: PAGES - 1]  # the last one keeps the heap from shrinking at its end
    before = resident_kb()
    give_back()
    assert resident_kb() < before - PAGES * BYTES // 1024 // 2
    assert len(held) == 1
