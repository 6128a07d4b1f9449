"""The allocator while a sweep runs: thresholds are set once, put back once, and never against the user's own."""

import subprocess
import sys
import threading

import pytest

from macattr.sweep import allocator
from macattr.sweep.allocator import (
    LARGEST_MMAP_THRESHOLD,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    RETURNED_FROM,
    keep_freed_memory,
    return_freed_memory,
)

KEPT = [(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), (M_TRIM_THRESHOLD, -1)]
RETURNED = [(M_MMAP_THRESHOLD, RETURNED_FROM), (M_TRIM_THRESHOLD, 2 * RETURNED_FROM)]
PUT_BACK = [(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), (M_TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)]


@pytest.fixture
def calls(monkeypatch):
    """Arguments of every call of mallopt."""
    made = []
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda name, value: made.append((name, value)))
    return made


def test_thresholds_are_set_and_put_back(calls):
    with keep_freed_memory():
        assert calls == KEPT
    assert calls == KEPT + PUT_BACK


def test_a_failure_puts_them_back(calls):
    with pytest.raises(RuntimeError), keep_freed_memory():
        raise RuntimeError
    assert calls == KEPT + PUT_BACK


def _hold(entered, leave):
    with keep_freed_memory():
        entered.set()
        leave.wait(60)


def test_the_outermost_of_several_decides(calls):
    with keep_freed_memory():
        with keep_freed_memory(), keep_freed_memory(active=False):
            pass
        assert calls == KEPT
        entered, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=_hold, args=(entered, leave))
        thread.start()
        entered.wait(60)
    assert calls == KEPT  # the thread's sweep goes on
    leave.set()
    thread.join()
    assert calls == KEPT + PUT_BACK


def test_a_budget_in_one_sweep_has_precedence_over_others(calls):
    with keep_freed_memory():
        with return_freed_memory(), keep_freed_memory():
            assert calls == KEPT + RETURNED
        assert calls == KEPT + RETURNED + KEPT
    assert calls == KEPT + RETURNED + KEPT + PUT_BACK


def test_inactive_does_nothing(calls):
    with keep_freed_memory(active=False):
        pass
    assert calls == []


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_=65536", "GLIBC_TUNABLES=", "MACATTR_ALLOCATOR=system"])
def test_the_environment_decides(monkeypatch, variable):
    name, value = variable.split("=")
    monkeypatch.setenv(name, value)
    allocator._mallopt.cache_clear()
    try:
        assert allocator._mallopt() is None
    finally:
        monkeypatch.undo()
        allocator._mallopt.cache_clear()


MEMORY = """
import torch
from macattr.sweep.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def work():
    kept = [torch.ones(1 << 20) for _ in range(64)]
    small = [torch.ones(100) for _ in range(1000)]
    del kept

work()
before = resident()
with keep_freed_memory():
    for _ in range(3):
        work()
print(resident() / before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back(tmp_path):
    ratio = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(ratio.stdout) < 1.05


HOLES = """
import resource
import torch
from macattr.sweep.allocator import keep_freed_memory, return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

torch.ones(1 << 20).sum()
with {mode}():
    before = resident()
    pairs = [(torch.ones(1 << 18), torch.ones(1 << 18)) for _ in range(64)]
    kept = [second for _, second in pairs]
    del pairs
    print((resident() - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("mode", "least", "most"), [("keep_freed_memory", 120, 140), ("return_freed_memory", 60, 80)])
def test_holes_between_tensors_go_back_within_a_budget(tmp_path, mode, least, most):
    script = HOLES.format(mode=mode)
    held = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert least < float(held.stdout) < most  # 128 MiB were taken and 64 MiB are still in use
