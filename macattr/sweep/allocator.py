"""Freed memory on the CPU: kept by the process while a sweep runs, and given back to the system afterwards."""

__all__ = ["keep_freed_memory", "return_free_memory"]

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt(3)."""

LARGEST_MMAP_THRESHOLD = 32 << 20
"""The highest threshold that glibc allows, and the one that it reaches by itself once such a block was freed."""

OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which a user sets glibc's allocator; where one is set, it stays as it is."""

SWITCH = "MACATTR_ALLOCATOR"
"""Environment variable; with the value ``system`` the allocator stays as it is."""

_lock = Lock()
_sweeps = 0


@contextmanager
def keep_freed_memory(active: bool = True) -> Iterator[None]:
    """Inside, glibc keeps freed memory for the next tensor instead of giving it back to the system.

    A sweep frees and takes the same activations at every node. By itself, glibc returns them to the system in between,
    which fills each page with zeros again. Afterwards all free memory is given back, and the thresholds are those that
    glibc arrives at by itself in a process that frees blocks of 32 MB. Nothing happens on other systems, where the
    environment sets the allocator, and with ``MACATTR_ALLOCATOR=system`` in it.

    Args:
        active: False does nothing: a budget of memory counts what the process holds.
    """
    if not active or _mallopt() is None:
        yield
        return
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def return_free_memory() -> None:
    """Give freed memory back to the system where glibc would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@cache
def _mallopt() -> Callable[[int, int], Any] | None:
    """Glibc's function, unless it is missing or the user has set the allocator."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "system" or any(own in os.environ for own in OWN_SETTINGS):
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


def _count(change: int) -> None:
    """Begin or end a sweep; the first one sets the thresholds, the last one puts them back."""
    global _sweeps
    mallopt = _mallopt()
    with _lock:
        _sweeps += change
        if mallopt is None or _sweeps != (1 if change > 0 else 0):
            return
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1 if change > 0 else 2 * LARGEST_MMAP_THRESHOLD)
        if change < 0:
            return_free_memory()
