"""How the C library keeps memory that was freed: set when the package is imported."""

import ctypes
import os
import sys
from collections.abc import Mapping

VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
# Names and numbers of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Make glibc keep what it has got from the system; returns whether it does.

    By default glibc gives large tensors back to the system when they are freed, and asks for them again in
    the next step: up to a third of the time on a CPU. What the user has set in the environment stays, and
    another C library or allocator is left as it is.
    """
    if sys.platform != "linux" or any(name in environment for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(name, LARGEST) for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
