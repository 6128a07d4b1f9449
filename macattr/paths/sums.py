"""Sums over the nodes of a path, for any number of layers, fed while a sweep runs."""

__all__ = ["ActivationGradientSum", "ActivationSum", "EveryNth", "GradientSum", "LayerSum", "StieltjesSum", "sum_bytes"]

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from macattr.paths.partitions import Tag, check_tag

BLOCK = 1 << 16
"""Elements that are folded at a time on a CPU, so that temporaries stay in its cache."""


@runtime_checkable
class LayerSum(Protocol):
    """Something that is summed over the nodes of a path for every layer, a chunk of nodes at a time.

    A chunk begins with the node after the last one. After :meth:`release` it begins with that last one again.
    """

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Take in what the outputs of a chunk alone tell; the same chunk's :meth:`update` follows.

        Args:
            key: The layer.
            outputs: As in :meth:`update`.
            first: Index of the first node.
            count: Number of nodes.
        """

    @property
    def weighs_gradients(self) -> bool:
        """Whether gradients count at every node by themselves, also of outputs that stay as they are."""

    @property
    def stride(self) -> int:
        """Number n where every n-th node is summed: a chunk that begins again with its last node ends at such a one."""

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in the nodes ``first`` ... ``first + count - 1`` of the layer ``key``.

        Args:
            key: The layer.
            outputs: Its outputs, (count*m, ...) with the node as the slowest index.
            gradients: Gradients of the objective with respect to them, same shape.
            first: Index of the first node.
            count: Number of nodes.
        """

    def value(self, key: Hashable) -> Tensor:
        """The sum so far, shape (m, ...)."""

    def release(self, key: Hashable) -> None:
        """Drop what is needed between chunks: the next one, if there is one, begins with the last node again."""

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """Memory that is kept between chunks for a layer whose output at one node takes ``nbytes`` in a ``dtype``."""


class _DenseLayout:
    """Puts (count*m, ...) tensors into rows of one node each without copying dense ones, and back again."""

    def __init__(self, like: Tensor, count: int) -> None:
        inner = sorted(range(1, like.dim()), key=lambda d: like.stride(d), reverse=True)
        self.order = (0, *inner)
        self.shape = (like.shape[0] // count, *like.shape[1:])

    def rows(self, tensor: Tensor, count: int) -> Tensor:
        """(count, elements of one node), a view wherever the memory order allows it."""
        return tensor.permute(self.order).reshape(count, -1)

    def restore(self, row: Tensor) -> Tensor:
        """One node's elements in the layer's own shape."""
        permuted = row.reshape([self.shape[d] for d in self.order])
        return permuted.permute([self.order.index(d) for d in range(len(self.order))])


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Accumulation dtype: float32, or float64 where the layer computes in it."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sum_bytes(nbytes: int, dtype: torch.dtype) -> int:
    """Memory of a sum over tensors that take ``nbytes`` in a ``dtype``: as much, or more if it is wider.

    Example:
        >>> sum_bytes(100, torch.float32), sum_bytes(100, torch.bfloat16)
        (100, 200)
    """
    return nbytes * _wide(dtype).itemsize // dtype.itemsize


def _outliving(row: Tensor) -> Tensor:
    """A row that outlives its chunk: by reference if it owns its storage, else a copy."""
    row = row.detach()
    return row if row.untyped_storage().nbytes() <= row.nbytes else row.clone()


_Term = tuple[Tensor, Tensor, Tensor]
"""A gradient, and the outputs before and after it."""


@dataclass
class _Carry:
    """A layer's sum so far, and what the border to the next chunk needs.

    Args:
        layout: How the layer's tensors lie in memory.
        total: The sum.
        nodes: Outputs of the last nodes that the next terms need.
        slope: Gradient of the last node, until the outputs of the next node are there.
    """

    layout: _DenseLayout
    total: Tensor
    nodes: list[Tensor]
    slope: Tensor | None = None

    def end(self) -> list[_Term]:
        """The term of the last gradient, if no node follows."""
        return [] if self.slope is None else [(self.slope, self.nodes[0], self.nodes[-1])]


STENCILS: Mapping[Tag, tuple[int, int, float]] = {
    "left": (0, 1, 1.0),
    "right": (-1, 0, 1.0),
    "trapezoid": (-1, 1, 0.5),
}
"""Places, counted from a gradient's node, of the outputs whose difference it is multiplied with; the weight."""


class StieltjesSum:
    r"""Conductance :math:`C = \sum_j g(\tau_j) \odot (y_{j+1} - y_j)` of every layer, in one sweep over the nodes.

    Summed by gradients, each of which is read once: for trapezoids
    :math:`C = \tfrac12 \sum_j g_j \odot (y_{j+1} - y_{j-1})`, where the nodes at the ends stand for those beyond. A
    gradient is used up as soon as the next outputs arrive, before their own gradients take memory. Sums are float32
    (float64 for float64 layers). Outputs are subtracted before they are multiplied, so that nothing cancels.

    Args:
        tag: Where the gradient is taken; see :class:`Partition`.
    """

    weighs_gradients = False
    stride = 1

    def __init__(self, tag: Tag) -> None:
        check_tag(tag)
        self._before, self._after, self._weight = STENCILS[tag]
        self._state: dict[Hashable, _Carry] = {}
        self._workspace: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Use up the gradient of the last node of the chunk before. See :class:`LayerSum`."""
        state = self._state.get(key)
        if state is not None and state.slope is not None:
            row = state.layout.rows(outputs, count)[0]
            self._fold(state.total, [(state.slope, state.nodes[0], row)])
            state.slope, state.nodes = None, state.nodes[-1:] if self._before else []

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes; chunks come in order. See :class:`LayerSum`."""
        self.arrive(key, outputs, first, count)
        state = self._state.get(key)
        layout = _DenseLayout(outputs, count) if state is None else state.layout
        y, g = list(layout.rows(outputs, count)), list(layout.rows(gradients, count))
        if state is None:
            total = torch.zeros(y[0].shape, dtype=_wide(outputs.dtype), device=outputs.device)
            state = self._state[key] = _Carry(layout, total, [])
        nodes, known = [*state.nodes, *y], len(state.nodes)
        at = range(known, known + count - self._after)
        terms = [(g[j - known], nodes[max(0, j + self._before)], nodes[j + self._after]) for j in at]
        kept = nodes[self._before - self._after :]
        if len(kept) > 1 and count > 1:  # they are parts of the chunk: half a term now saves a copy
            terms.append((g[-1], *kept))
            kept = kept[1:]
        self._fold(state.total, terms)
        state.nodes = [_outliving(row) for row in kept]
        state.slope = _outliving(g[-1]) if self._after else None

    def _fold(self, total: Tensor, terms: Sequence[_Term]) -> None:
        """Add gradients times differences of outputs, block by block so that temporaries stay in the cache."""
        block = min(BLOCK if total.device.type == "cpu" else total.numel(), total.numel())
        workspace = self._workspace.get((total.device, total.dtype))
        if workspace is None or len(workspace) < block:
            workspace = self._workspace[total.device, total.dtype] = torch.empty_like(total[:block])
        for start in range(0, total.numel(), max(1, block)):
            part = slice(start, start + block)
            target = total[part]
            change = workspace[: len(target)]
            for slope, before, after in terms:
                _combine(torch.sub, after[part], before[part], change)
                target.addcmul_(slope[part].to(total.dtype), change, value=self._weight)

    def value(self, key: Hashable) -> Tensor:
        """Conductance of the layer so far, in the shape of its output."""
        state = self._state[key]
        total, end = state.total, state.end()
        if end:
            total = total.clone()
            self._fold(total, end)
        return state.layout.restore(total)

    def release(self, key: Hashable) -> None:
        """Keep the sum alone."""
        state = self._state[key]
        self._fold(state.total, state.end())
        state.slope, state.nodes = None, []

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """Sum, last output and, unless gradients are those after each step, last gradient.

        The last output but one is kept in place of an output of the pass that comes, and counts there.
        """
        return sum_bytes(nbytes, dtype) + (2 if self._after else 1) * nbytes


class GradientSum:
    r"""Weighted mean :math:`\sum_j w_j\,g(\alpha_j)` of every layer's gradient over the nodes.

    Args:
        weights: Weight of every node; see :class:`Partition`.
    """

    weighs_gradients = True
    stride = 1

    def __init__(self, weights: Float[Tensor, " n"]) -> None:
        self.weights = weights.tolist()
        self._state: dict[Hashable, tuple[_DenseLayout, Tensor]] = {}
        self._next: dict[Hashable, int] = {}

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Nothing: every node counts by itself. See :class:`LayerSum`."""

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes; one that is there already is passed over. See :class:`LayerSum`."""
        if key not in self._state:
            layout = _DenseLayout(outputs, count)
            length = math.prod(layout.shape)
            zeros = torch.zeros(length, dtype=_wide(gradients.dtype), device=gradients.device)
            self._state[key] = (layout, zeros)
        layout, total = self._state[key]
        known = self._next.get(key, first) - first
        for row, weight in zip(layout.rows(gradients, count), self.weights[first : first + count], strict=True):
            if weight and known <= 0:
                total.add_(row, alpha=weight)
            known -= 1
        self._next[key] = first + count

    def value(self, key: Hashable) -> Tensor:
        """Weighted mean of the gradient so far, in the shape of the layer's output."""
        layout, total = self._state[key]
        return layout.restore(total)

    def release(self, key: Hashable) -> None:
        """Nothing: the sum is all there is."""

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """The sum alone."""
        return sum_bytes(nbytes, dtype)


class ActivationGradientSum(GradientSum):
    r"""Weighted mean :math:`\sum_j w_j\,y(\alpha_j) \odot g(\alpha_j)` of gradient x activation over the nodes."""

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes. See :class:`LayerSum`."""
        super().update(key, outputs, gradients.to(_wide(gradients.dtype)) * outputs, first, count)


class ActivationSum(GradientSum):
    r"""Weighted mean :math:`\sum_j w_j\,y(\alpha_j)` of every layer's output over the nodes."""

    weighs_gradients = False

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes. See :class:`LayerSum`."""
        super().update(key, outputs, outputs, first, count)


class EveryNth:
    """Another sum with a larger step, from the same sweep: it is fed every n-th node only.

    Differences between the sums over all nodes and over fewer estimate the error of the former; see
    :mod:`macattr.statistics.step_errors`.

    Args:
        layer_sum: Sum that takes the nodes 0, n, 2n, ... as its nodes 0, 1, 2, ...; one with weights needs those of
            :func:`every_nth_node`, which also checks whether the nodes can be divided.
        stride: The number n.
    """

    def __init__(self, layer_sum: LayerSum, stride: int = 2) -> None:
        self.layer_sum, self.stride = layer_sum, stride
        self._last: dict[Hashable, int] = {}

    @property
    def weighs_gradients(self) -> bool:
        """Whether the other sum does."""
        return self.layer_sum.weighs_gradients

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Hand on the first n-th node of a chunk. See :class:`LayerSum`."""
        size, node = outputs.shape[0] // count, -first % self.stride
        if node < count:
            rows = slice(node * size, (node + 1) * size)
            self.layer_sum.arrive(key, outputs[rows], (first + node) // self.stride, 1)

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Hand on every n-th node one by one, as views. See :class:`LayerSum`."""
        size = outputs.shape[0] // count
        for node in range(-first % self.stride, count, self.stride):
            rows = slice(node * size, (node + 1) * size)
            self.layer_sum.update(key, outputs[rows], gradients[rows], (first + node) // self.stride, 1)
        self._last[key] = first + count - 1

    def value(self, key: Hashable) -> Tensor:
        """The sum over every n-th node.

        Raises:
            ValueError: If the last node was not among them.
        """
        if self._last[key] % self.stride:
            raise ValueError(
                f"{self._last[key]} increments taken {self.stride} at a time miss the end: choose `n_steps` as a "
                f"multiple of {self.stride}."
            )
        return self.layer_sum.value(key)

    def release(self, key: Hashable) -> None:
        """No more nodes will come."""
        self.layer_sum.release(key)

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """Memory of the other sum."""
        return self.layer_sum.state_bytes(nbytes, dtype)


def _combine(operation: Callable[..., Tensor], a: Tensor, b: Tensor, out: Tensor) -> None:
    """``operation(a, b)`` in the precision of ``out``."""
    if a.dtype == b.dtype == out.dtype:
        operation(a, b, out=out)
    else:
        operation(out.copy_(a), b, out=out)
