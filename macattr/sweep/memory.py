"""How many nodes share a forward pass, and how layers are split over sweeps, by memory."""

__all__ = ["ROWS_ON_CPU", "estimate_bytes", "nodes_per_batch", "split_layers", "state_bytes"]

from collections.abc import Sequence

import torch

from macattr.paths.sums import LayerSum, sum_bytes
from macattr.sweep.survey import ProbedTensor, Survey

ROWS_ON_CPU = 4
"""Rows (nodes x samples) that share a forward pass on a CPU."""


CHUNK_BYTES_ON_CPU = 2 << 30
"""Memory of the nodes that share a forward pass on a CPU: where one node takes more, more nodes are no faster."""


def split_layers(survey: Survey, sums: Sequence[LayerSum], memory_budget: float | None) -> list[list[ProbedTensor]]:
    """Groups of probed tensors, each of which is summed in a sweep of its own.

    Args:
        survey: Memory that the tensors and one node take.
        sums: Sums that are fed.
        memory_budget: Bytes that activations and sums may take; None for no limit, which gives one group.

    Raises:
        ValueError: If the budget does not hold one layer.
    """
    if memory_budget is None:
        return [survey.distinct]
    room = _room(survey, sums, memory_budget)
    largest = max(_bytes_needed(tensor, sums) for tensor in survey.distinct)
    if largest > room:
        raise ValueError(
            f"`memory_budget` of {memory_budget / 2**20:.0f} MiB is too small: one node keeps "
            f"{survey.working_bytes / 2**20:.0f} MiB, all sums take {_sum_bytes(survey, sums) / 2**20:.0f} MiB, "
            f"the largest layer needs {largest / 2**20:.0f} MiB more."
        )
    groups: list[list[ProbedTensor]] = [[]]
    taken = 0
    for tensor in survey.distinct:
        if taken + _bytes_needed(tensor, sums) > room:
            groups.append([])
            taken = 0
        groups[-1].append(tensor)
        taken += _bytes_needed(tensor, sums)
    return groups


def nodes_per_batch(
    survey: Survey,
    sums: Sequence[LayerSum],
    groups: Sequence[Sequence[ProbedTensor]],
    n_nodes: int,
    internal_batch_size: int | None,
    memory_budget: float | None,
) -> int:
    """Number of nodes that share a forward pass, at least one.

    Args:
        survey: Memory that one node takes.
        sums: Sums that are fed.
        groups: As :func:`split_layers` made them.
        n_nodes: Number of nodes of the path.
        internal_batch_size: Rows (nodes x samples) of one forward pass; None chooses by the memory of the device.
        memory_budget: Bytes that activations and sums may take; None for no limit.
    """
    node_bytes = max(1, survey.working_bytes + survey.output_bytes)
    if internal_batch_size is not None:
        count = internal_batch_size // survey.batch
    elif survey.device.type == "cuda":
        state = state_bytes(survey.distinct, sums)
        count = int(max(0, 0.6 * _free_bytes(survey.device) - state) // node_bytes)
    else:
        count = min(ROWS_ON_CPU // survey.batch, CHUNK_BYTES_ON_CPU // node_bytes)
    count = max(1, min(count, n_nodes))
    if memory_budget is None:
        return count
    largest = max(sum(_bytes_needed(tensor, sums) for tensor in group) for group in groups)
    spare = _room(survey, sums, memory_budget) - largest
    return max(1, min(count, 1 + int(spare // node_bytes)))


def estimate_bytes(
    survey: Survey, groups: Sequence[Sequence[ProbedTensor]], sums: Sequence[LayerSum], count: int
) -> int:
    """Bytes of activations and layer outputs at some nodes, and of the sums of the largest sweep.

    Args:
        survey: Sizes of the layers' outputs.
        groups: Layers by sweep.
        sums: Sums that are fed.
        count: Nodes that share a forward pass.
    """
    return max(
        count * (survey.working_bytes + sum(tensor.nbytes for tensor in group)) + state_bytes(group, sums)
        for group in groups
    )


def state_bytes(tensors: Sequence[ProbedTensor], sums: Sequence[LayerSum]) -> int:
    """Bytes that the sums keep between chunks.

    Args:
        tensors: What is summed.
        sums: Sums that are fed.
    """
    return sum(layer_sum.state_bytes(tensor.nbytes, tensor.dtype) for layer_sum in sums for tensor in tensors)


def _bytes_needed(tensor: ProbedTensor, sums: Sequence[LayerSum]) -> int:
    """A layer's output and what the sums keep of it between chunks, without the sums themselves."""
    return tensor.nbytes + state_bytes([tensor], sums) - len(sums) * sum_bytes(tensor.nbytes, tensor.dtype)


def _room(survey: Survey, sums: Sequence[LayerSum], memory_budget: float) -> float:
    """Bytes that are left for one group of layers; the sums of all layers stay until the end."""
    return memory_budget - survey.working_bytes - _sum_bytes(survey, sums)


def _sum_bytes(survey: Survey, sums: Sequence[LayerSum]) -> int:
    """Bytes of the sums of all layers."""
    return len(sums) * sum(sum_bytes(tensor.nbytes, tensor.dtype) for tensor in survey.distinct)


def _free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, with what torch's allocator holds in reserve."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)
