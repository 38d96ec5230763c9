"""Keeps the memory that each training step frees, for the next one, where training runs on a CPU."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEEP = 1 << 30  # bytes; no tensor of a step on a CPU is larger


def keep_freed_memory() -> bool:
    """
    Has glibc keep what is freed instead of giving it back to the system, which fills it with zeros each time.

    A step frees and allocates the same activations again; measured, see docs/performance.md.

    Returns:
        Whether it could be set: there is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP) and mallopt(M_TRIM_THRESHOLD, KEEP))
