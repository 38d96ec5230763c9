"""Keep freed memory for the next allocation, where the same large tensors come and go on a CPU."""

import contextlib
import ctypes
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEEP = 1 << 30  # bytes; hardly any tensor on a CPU is larger
USUAL = 32 << 20  # bytes; the most that glibc raises the thresholds to by itself


def keep_freed_memory() -> bool:
    """
    Make glibc keep freed memory instead of returning it to the system, which fills it with zeros each time.

    A step of training frees and allocates the same activations again; measured, see docs/performance.md.

    Returns:
        Whether it could be set, which needs glibc.
    """
    return _set_thresholds(KEEP)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory as `keep_freed_memory` does during the block, then return it to the system."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            _set_thresholds(USUAL)
            ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(size: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, size) and mallopt(M_TRIM_THRESHOLD, size))
