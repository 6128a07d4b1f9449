"""How many nodes share a forward pass, and how layers are split over sweeps, by memory."""

__all__ = ["ROWS_ON_CPU", "estimate_bytes", "plan", "return_free_memory"]

import ctypes
import sys
from collections.abc import Sequence

import torch

from macattr.paths.inputs import Path
from macattr.paths.sums import LayerSum
from macattr.sweep.survey import Seen, Survey

ROWS_ON_CPU = 4

CHUNK_BYTES_ON_CPU = 8 << 30


def return_free_memory() -> None:
    """Give freed memory back to the system where glibc would keep it, so that a budget bounds what is held."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def plan(
    looked: Survey,
    sums: Sequence[LayerSum],
    n_nodes: int,
    internal_batch_size: int | None,
    memory_budget: float | None,
    path: Path,
) -> tuple[list[list[Seen]], int]:
    """Which sites to sum in which sweep, and how many nodes share a forward pass.

    Raises:
        ValueError: If ``internal_batch_size`` is below 1 or the budget does not hold one layer.
    """
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"`internal_batch_size` must be at least 1, got {internal_batch_size}.")
    node_bytes = looked.working_bytes + looked.output_bytes
    if internal_batch_size is not None:
        per_batch = max(1, internal_batch_size // looked.batch)
    elif torch.cuda.is_available() and path.at(torch.zeros(1))[0].is_cuda:
        device = path.at(torch.zeros(1))[0].device
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
        state = sum(s.state_bytes(looked.output_bytes) for s in sums)
        per_batch = int(max(0, 0.6 * free - state) // node_bytes)
    else:
        per_batch = min(ROWS_ON_CPU // looked.batch, CHUNK_BYTES_ON_CPU // max(1, node_bytes))
    per_batch = max(1, min(per_batch, n_nodes))
    if memory_budget is None:
        return [looked.distinct], per_batch

    def need(seen: Seen) -> int:
        return seen.nbytes + sum(s.state_bytes(seen.nbytes) - seen.nbytes for s in sums)

    sums_bytes = len(sums) * looked.output_bytes  # the sums of all layers stay until the end
    room = memory_budget - looked.working_bytes - sums_bytes
    largest = max(need(seen) for seen in looked.distinct)
    if largest > room:
        raise ValueError(
            f"`memory_budget` of {memory_budget / 2**20:.0f} MiB is too small: one node keeps "
            f"{looked.working_bytes / 2**20:.0f} MiB, all sums take {sums_bytes / 2**20:.0f} MiB, the largest layer "
            f"needs {largest / 2**20:.0f} MiB more."
        )
    passes: list[list[Seen]] = [[]]
    taken = 0
    for seen in looked.distinct:
        if taken + need(seen) > room:
            passes.append([])
            taken = 0
        passes[-1].append(seen)
        taken += need(seen)
    spare = room - max(sum(need(seen) for seen in group) for group in passes)
    return passes, max(1, min(per_batch, 1 + int(spare // node_bytes)))


def estimate_bytes(looked: Survey, passes: list[list[Seen]], sums: Sequence[LayerSum], per_batch: int) -> int:
    """Activations and layer outputs of a batch of nodes, and the sums of the largest sweep."""
    largest = max(sum(seen.nbytes for seen in group) for group in passes)
    return per_batch * (looked.working_bytes + largest) + sum(layer_sum.state_bytes(largest) for layer_sum in sums)
