"""Let the C library keep the memory of large tensors instead of giving it back to the system after every use."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

__all__ = ["keep_large_blocks"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
BLOCK = 1 << 30  # bytes: no tensor of a training step is larger
PAD = 1 << 26  # bytes by which the heap grows at least


def keep_large_blocks() -> None:
    """Make ``malloc`` serve large blocks from its heap and keep what is freed; nothing where that is not glibc.

    By default glibc maps every large block anew and unmaps it when it is freed, so that each step of a training begins
    with pages that the system has to find and clear. It concerns the whole process and cannot be undone: for processes
    that the library owns. Their memory stays at its highest level until they end.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_THRESHOLD, BLOCK), (M_TRIM_THRESHOLD, BLOCK), (M_TOP_PAD, PAD)):
            mallopt(option, value)
