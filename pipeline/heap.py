"""How the C heap of a worker stays where it is: as glibc is set by default, a peak leaves its mark for good.

A go of 32 answers may hold arrays of 8 MB at once (32 x 200 candidates x 300 columns of float32). After the first such array
glibc takes arrays of that size from its heaps too, where whatever comes to lie behind them keeps their pages; and every thread
gets a heap of its own. So it is one heap here, big arrays apart from it, and free pages go back.
"""

from __future__ import annotations

import ctypes
import gc

GIVE_BACK_S = 60.0
MAPPED_BYTES = 1 << 20  # an array of this size and more is mapped by itself and gone when it is freed

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def bound() -> None:
    """One heap for all threads, and fixed thresholds: glibc raises its own by what it sees. Before the first thread."""
    if (set_option := _of_libc("mallopt")) is not None:
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, MAPPED_BYTES), (M_TRIM_THRESHOLD, MAPPED_BYTES)):
            set_option(option, value)


def give_back() -> None:
    """Collects garbage of all ages, empties the interpreter's free lists with it, and returns free pages of the C heap."""
    gc.collect()  # at 50 answers a second it would come to the oldest by itself after more than an hour
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


def _of_libc(name: str) -> ctypes._NamedFuncPointer | None:
    """None where the C library has no such function (musl, macOS); musl's mallopt would do nothing."""
    return getattr(ctypes.CDLL(None), name, None)
