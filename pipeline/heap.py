"""Memory that the C allocator keeps, given back to the system.

A go of 32 answers may hold arrays of 8 MB at once (32 x 200 candidates x 300 columns of float32), and glibc keeps pages that
they leave. One run each at 200 triggers a second, the first 280 s: 102 to 117 MB without, 98 to 114 with a call every 20 s.
That is little, and it did not make an hour's soak flat: see the README.
"""

from __future__ import annotations

import ctypes

GIVE_BACK_S = 60.0  # takes .3 to 6 ms, beside the event loop


def give_back() -> None:
    """Returns free pages of the C heap; where the C library has no `malloc_trim` (musl, macOS) it does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
