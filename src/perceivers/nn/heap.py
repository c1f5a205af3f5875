"""Freed memory of the C library: kept for the next step, or returned to the system.

Only glibc on Linux has both; elsewhere nothing happens.
"""

import ctypes
import os
import sys
from functools import lru_cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of malloc.h
_KEPT = 512 << 20  # bytes
# Bytes from which a single block is returned; glibc raises its own limit to this at most.
_ALWAYS_RETURNED = 32 << 20
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MiB of freed memory from now on; return whether it does.

    A training step frees what the next one allocates again. Memory that was returned in between comes back page by
    page, each cleared by the system: 7,000 to 22,000 pages a step of a tiny model, a tenth to a quarter of its time.
    Settings of the environment win.
    """
    mallopt = _function("mallopt")
    if mallopt is None or any(name in os.environ for name in _SETTINGS):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _ALWAYS_RETURNED) and mallopt(_TRIM_THRESHOLD, _KEPT))


def return_freed_memory() -> None:
    """Return freed memory to the system.

    The C library keeps freed memory between what is still held, in holes that the next tensors do not fit: with
    little kept and much in between, half of a process is holes.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@lru_cache(maxsize=2)
def _function(name: str) -> Any:
    """Return a function of the C library, or None where it has none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
