"""What the C allocator keeps goes back to the system."""

import ctypes
from pathlib import Path

import pytest

from pipeline.heap import give_back

PAGES, BYTES = 600, 60_000  # below the size from which malloc maps by itself


def resident_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_what_lies_free_between_what_is_used_is_given_back():
    held = [bytearray(b"x" * BYTES) for _ in range(PAGES)]
    del held[: PAGES - 1]  # the last one keeps the heap from shrinking at its end
    before = resident_kb()
    give_back()
    assert resident_kb() < before - PAGES * BYTES // 1024 // 2
    assert len(held) == 1
