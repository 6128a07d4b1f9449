"""Freed memory on the CPU: kept by the process while a sweep runs, or given back to the system at once."""

__all__ = ["keep_freed_memory", "return_free_memory", "return_freed_memory"]

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, Literal

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt(3)."""

LARGEST_MMAP_THRESHOLD = 32 << 20
"""The highest threshold that glibc allows, and the one that it reaches by itself once such a block was freed."""

RETURNED_FROM = 256 << 10
"""Bytes of the smallest block that goes back to the system at once where a budget holds."""

OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which a user sets glibc's allocator; where one is set, it stays as it is."""

SWITCH = "MACATTR_ALLOCATOR"
"""Environment variable; with the value ``system`` the allocator stays as it is."""

Mode = Literal["kept", "returned", "adapted"]

THRESHOLDS: dict[Mode, tuple[int, int]] = {
    "kept": (LARGEST_MMAP_THRESHOLD, -1),
    "returned": (RETURNED_FROM, 2 * RETURNED_FROM),
    "adapted": (LARGEST_MMAP_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD),
}
"""Size of blocks with a mapping of their own, and of free memory at the end of the heap that goes back."""

_lock = Lock()
_sweeps: Counter[Mode] = Counter()


@contextmanager
def keep_freed_memory(active: bool = True) -> Iterator[None]:
    """Inside, glibc keeps freed memory for the next tensor instead of giving it back to the system.

    A sweep frees and takes the same activations at every node. By itself, glibc returns them to the system in between,
    which fills each page with zeros again. Afterwards all free memory is given back, and the thresholds are those that
    glibc arrives at by itself in a process that frees blocks of 32 MB. Nothing happens on other systems, where the
    environment sets the allocator, and with ``MACATTR_ALLOCATOR=system`` in it.

    Args:
        active: False does nothing.
    """
    with _sweeping("kept", active):
        yield


@contextmanager
def return_freed_memory(active: bool = True) -> Iterator[None]:
    """Inside, every freed tensor of 256 KiB or more goes back to the system at once, so that a budget holds.

    Otherwise a process keeps holes between the tensors that it holds, which took as much again as these. It has
    precedence over :func:`keep_freed_memory` in other threads, and the same exceptions.

    Args:
        active: False does nothing.
    """
    with _sweeping("returned", active):
        yield


def return_free_memory() -> None:
    """Give what is free in glibc's heap back to the system; smaller blocks, and tensors in holes, are freed there."""
    if _mallopt() is not None and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


@contextmanager
def _sweeping(mode: Mode, active: bool) -> Iterator[None]:
    """Counts a sweep while it runs."""
    if not active or _mallopt() is None:
        yield
        return
    _count(mode, 1)
    try:
        yield
    finally:
        _count(mode, -1)


@cache
def _mallopt() -> Callable[[int, int], Any] | None:
    """Glibc's function, unless it is missing or the user has set the allocator."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "system" or any(own in os.environ for own in OWN_SETTINGS):
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


def _count(mode: Mode, change: int) -> None:
    """Begin or end a sweep; the thresholds change where another mode begins or the last sweep ends."""
    mallopt = _mallopt()
    with _lock:
        before = _mode()
        _sweeps[mode] += change
        now = _mode()
        if mallopt is None or now == before:
            return
        for name, value in zip((M_MMAP_THRESHOLD, M_TRIM_THRESHOLD), THRESHOLDS[now], strict=True):
            mallopt(name, value)
        if now != "kept":
            return_free_memory()


def _mode() -> Mode:
    """What holds for the sweeps that run now."""
    return "returned" if _sweeps["returned"] else "kept" if _sweeps["kept"] else "adapted"
