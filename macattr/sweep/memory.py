"""How nodes share forward passes, which blocks run again, and how layers are split over sweeps, by memory."""

__all__ = ["ROWS_ON_CPU", "Plan", "plan_sweeps", "state_bytes"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from macattr.paths.sums import LayerSum, sum_bytes
from macattr.sweep.recompute import Blocks
from macattr.sweep.survey import ProbedTensor, Survey
from macattr.user_warnings import warn_user

ROWS_ON_CPU = 4
"""Rows (nodes x samples) that share a forward pass on a CPU."""

ROWS_OF_OVERLAP_ON_CPU = 9
"""The same where one node of every chunk is evaluated twice: more rows make that rarer."""

CHUNK_BYTES_ON_CPU = 2 << 30
"""Memory of the nodes that share a forward pass on a CPU: where one node takes more, more nodes are no faster."""

COST_OF_BLOCKS = 1.5
"""Cost of a pass whose blocks run again over that of a plain one: two forward passes and a backward pass without
gradients of weights, which is as long as one."""


@dataclass(frozen=True)
class Plan:
    """How a sweep uses memory.

    Args:
        groups: Layers by sweep.
        nodes_per_batch: Nodes that share a forward pass.
        node_bytes: Memory of one node's passes.
        estimated_bytes: Memory of all.
        blocks: Blocks that run again in the backward pass.
        overlaps: Whether a chunk of nodes begins with the last node of the chunk before, so that nothing of a layer but
            its sums is kept in between.
    """

    groups: Sequence[Sequence[ProbedTensor]]
    nodes_per_batch: int
    node_bytes: int
    estimated_bytes: int
    blocks: Mapping[str, nn.Module]
    overlaps: bool = False

    def cost(self, n_nodes: int) -> float:
        """Time over that of one sweep without blocks and overlaps.

        Args:
            n_nodes: Number of nodes of the path.
        """
        factor = COST_OF_BLOCKS if self.blocks else 1.0
        if self.overlaps and self.nodes_per_batch < n_nodes:
            factor *= self.nodes_per_batch / (self.nodes_per_batch - 1)
        return factor * len(self.groups)


def plan_sweeps(
    survey: Survey,
    sums: Sequence[LayerSum],
    n_nodes: int,
    internal_batch_size: int | None,
    memory_budget: float | None,
    find_blocks: Callable[[], Blocks],
) -> Plan:
    """The cheapest plan that a memory budget holds.

    From the cheapest to the dearest: one plain sweep; chunks of nodes that overlap by one, so that outputs and
    gradients need not be kept from chunk to chunk; blocks that run again in the backward pass; both; layers split over
    several sweeps.

    Args:
        survey: Memory that the tensors and one node take.
        sums: Sums that are fed.
        n_nodes: Number of nodes of the path.
        internal_batch_size: Rows (nodes x samples) of one forward pass; None chooses by the memory of the device.
        memory_budget: Bytes that activations and sums may take; None for no limit.
        find_blocks: Finds the blocks that can run again; called if a plain sweep takes too much.

    Raises:
        ValueError: If the budget does not hold one layer.

    Warns:
        UserWarning: If layers are split over several sweeps, with the reason.
    """
    makers = _Maker(survey, sums, n_nodes, internal_batch_size, memory_budget)
    plain = makers.whole(Blocks({}, survey.working_bytes + survey.output_bytes), overlaps=False)
    if plain is not None:
        return plain
    blocks = find_blocks()
    ways = [Blocks({}, survey.working_bytes + survey.output_bytes), *([blocks] if blocks.modules else [])]
    plans = [makers.whole(way, overlaps) for way in ways for overlaps in (False, True)]
    plans += [makers.parts(way) for way in ways]
    possible = [plan for plan in plans if plan is not None]
    if not possible:
        raise ValueError(makers.too_small(ways))
    plan = min(possible, key=lambda plan: plan.cost(n_nodes))
    if len(plan.groups) > 1:
        reason = blocks.reason or makers.why_no_overlap(blocks)
        warn_user(
            f"`memory_budget` splits the layers over {len(plan.groups)} sweeps, which take "
            f"{plan.cost(n_nodes):.1f} times as long as one: {reason}."
        )
    return plan


@dataclass(frozen=True)
class _Maker:
    """Makes plans for one sweep's sums; arguments as in :func:`plan_sweeps`."""

    survey: Survey
    sums: Sequence[LayerSum]
    n_nodes: int
    internal_batch_size: int | None
    memory_budget: float | None

    @property
    def kept(self) -> int:
        """Memory of all sums, which stay until the end."""
        return self._sum_bytes(self.survey.distinct)

    @property
    def steps(self) -> int:
        """Steps of a chunk that overlaps, or a multiple of them: sums over every n-th node have borders there too."""
        return math.lcm(*(layer_sum.stride for layer_sum in self.sums))

    @property
    def least_overlap(self) -> int:
        """Fewest nodes of a chunk that overlaps; with two of them, every node but the ends would run twice."""
        return min(1 + max(2, self.steps), self.n_nodes)

    def border(self, tensors: Sequence[ProbedTensor]) -> int:
        """Memory of what all sums keep of some layers from chunk to chunk, without the sums themselves."""
        return state_bytes(tensors, self.sums) - self._sum_bytes(tensors)

    def _sum_bytes(self, tensors: Sequence[ProbedTensor]) -> int:
        """Memory of the sums of some layers."""
        return len(self.sums) * sum(sum_bytes(tensor.nbytes, tensor.dtype) for tensor in tensors)

    def whole(self, way: Blocks, overlaps: bool) -> Plan | None:
        """All layers in one sweep; None if that takes too much."""
        layers = self.survey.distinct
        fixed = self.kept + (0 if overlaps else self.border(layers))
        count = self._most_nodes(way.node_bytes, overlaps)
        if self.memory_budget is not None:
            count = min(count, int((self.memory_budget - fixed) // max(1, way.node_bytes)))
        if overlaps and count < self.n_nodes:
            count -= (count - 1) % self.steps
        if count < (self.least_overlap if overlaps else 1):
            return None
        return Plan([layers], count, way.node_bytes, fixed + count * way.node_bytes, way.modules, overlaps)

    def parts(self, way: Blocks) -> Plan | None:
        """Layers split over sweeps of one node at a time; None if the largest layer does not fit."""
        if self.memory_budget is None:
            return None
        node_bytes = way.node_bytes if way.modules else self.survey.working_bytes
        room = self.memory_budget - self.kept - node_bytes
        groups: list[list[ProbedTensor]] = [[]]
        taken = most = 0
        for tensor in self.survey.distinct:
            needed = self._needed(tensor, way)
            if needed > room:
                return None
            if taken + needed > room:
                groups.append([])
                taken = 0
            groups[-1].append(tensor)
            taken += needed
            most = max(most, taken)
        return Plan(groups, 1, node_bytes, self.kept + node_bytes + most, way.modules)

    def _needed(self, tensor: ProbedTensor, way: Blocks) -> int:
        """What a layer takes in a sweep besides its sums; blocks count their outputs themselves."""
        return self.border([tensor]) + (0 if way.modules else tensor.nbytes)

    def _most_nodes(self, node_bytes: int, overlaps: bool) -> int:
        """Nodes that may share a forward pass where no budget limits them."""
        batch = self.survey.batch
        if self.internal_batch_size is not None:
            count = self.internal_batch_size // batch
        elif self.survey.device.type == "cuda":
            state = state_bytes(self.survey.distinct, self.sums)
            count = int(max(0, 0.6 * _free_bytes(self.survey.device) - state) // max(1, node_bytes))
        elif overlaps:
            count = max(self.least_overlap, ROWS_OF_OVERLAP_ON_CPU // batch)
        else:
            count = min(ROWS_ON_CPU // batch, CHUNK_BYTES_ON_CPU // max(1, node_bytes))
        return max(1, min(count, self.n_nodes))

    def why_no_overlap(self, blocks: Blocks) -> str:
        """Why blocks that run again do not make one sweep fit."""
        count = self.least_overlap
        if self._most_nodes(blocks.node_bytes, overlaps=True) < count:
            return f"fewer than {count} nodes share a forward pass, so that each layer's last output and gradient stay"
        return f"it does not hold {count} nodes, even if blocks run again in the backward pass"

    def too_small(self, ways: Sequence[Blocks]) -> str:
        """Message for a budget that holds no layer."""
        node_bytes = min(way.node_bytes for way in ways) if len(ways) > 1 else self.survey.working_bytes
        largest = max(self._needed(tensor, ways[-1]) for tensor in self.survey.distinct)
        return (
            f"`memory_budget` of {(self.memory_budget or 0) / 2**20:,.3g} MiB is too small: one node keeps "
            f"{node_bytes / 2**20:,.3g} MiB, all sums take {self.kept / 2**20:,.3g} MiB, "
            f"the largest layer needs {largest / 2**20:,.3g} MiB more."
        )


def state_bytes(tensors: Sequence[ProbedTensor], sums: Sequence[LayerSum]) -> int:
    """Bytes that the sums keep between chunks.

    Args:
        tensors: What is summed.
        sums: Sums that are fed.
    """
    return sum(layer_sum.state_bytes(tensor.nbytes, tensor.dtype) for layer_sum in sums for tensor in tensors)


def _free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, with what torch's allocator holds in reserve."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)
