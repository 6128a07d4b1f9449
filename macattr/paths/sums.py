"""Sums over the nodes of a path, for any number of layers, fed while a sweep runs."""

__all__ = ["ActivationGradientSum", "ActivationSum", "EveryNth", "GradientSum", "LayerSum", "StieltjesSum", "sum_bytes"]

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from macattr.paths.partitions import Tag, check_tag

BLOCK = 1 << 17
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


@dataclass
class _Carry:
    """A layer's sum so far, and what the next chunk of nodes needs.

    Args:
        layout: How the layer's tensors lie in memory.
        total: The sum.
        outputs: Outputs at the last nodes that a gradient still needs, in their order.
        gradient: Gradient at the last node, as long as it waits for the outputs of the next one.
    """

    layout: _DenseLayout
    total: Tensor
    outputs: list[Tensor] = field(default_factory=list)
    gradient: Tensor | None = None


class StieltjesSum:
    r"""Conductance :math:`C = \sum_j g(\tau_j) \odot (y_{j+1} - y_j)` of every layer, in one sweep over the nodes.

    It is summed by gradients: each weighs the change of the outputs around its node, with the trapezoid half of
    :math:`y_{j+1} - y_{j-1}`. So every gradient is used once, as soon as the next outputs arrive and before their own
    gradients take memory. Changes of outputs are subtracted directly; those of gradients would cancel. Sums are
    float32, and float64 for float64 layers. What is kept does not grow with the number of nodes.

    Args:
        tag: Where the gradient is taken; see :class:`Partition`.
    """

    weighs_gradients = False
    stride = 1

    def __init__(self, tag: Tag) -> None:
        check_tag(tag)
        self.tag = tag
        self._state: dict[Hashable, _Carry] = {}
        self._workspace: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Use the gradient that has waited for these outputs. See :class:`LayerSum`."""
        state = self._state.get(key)
        if state is None or state.gradient is None:
            return
        following = state.layout.rows(outputs, count)[0]
        self._add(state.total, state.gradient, state.outputs[0], following)
        state.gradient = None
        state.outputs = [] if self.tag == "left" else state.outputs[-1:]

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes; chunks come in order. See :class:`LayerSum`."""
        self.arrive(key, outputs, first, count)
        state = self._state.get(key)
        if state is None:
            layout = _DenseLayout(outputs, count)
            length = math.prod(layout.shape)
            total = torch.zeros(length, dtype=_wide(outputs.dtype), device=outputs.device)
            state = self._state[key] = _Carry(layout, total)
        y, g = [*state.outputs, *state.layout.rows(outputs, count)], state.layout.rows(gradients, count)
        before, after = (0 if self.tag == "left" else 1), (0 if self.tag == "right" else 1)
        for place, gradient in enumerate(g, len(y) - count):
            low, high = max(0, place - before), place + after
            if low < high < len(y):
                self._add(state.total, gradient, y[low], y[high])
        state.outputs = [_outliving(row) for row in (y[-2:] if self.tag == "trapezoid" else y[-1:])]
        state.gradient = None if self.tag == "right" else _outliving(g[-1])

    def _add(self, total: Tensor, gradient: Tensor, low: Tensor, high: Tensor) -> None:
        """Add what a gradient weighs, block by block so that temporaries stay in the cache."""
        block = min(BLOCK if total.device.type == "cpu" else total.numel(), total.numel())
        workspace = self._workspace.get((total.device, total.dtype))
        if workspace is None or workspace.shape[1] < block:
            workspace = torch.empty(2, block, dtype=total.dtype, device=total.device)
            self._workspace[total.device, total.dtype] = workspace
        for start in range(0, total.numel(), max(1, block)):
            part = slice(start, start + block)
            target = total[part]
            change, slope = workspace[:, : target.numel()]
            if high.dtype == total.dtype:
                torch.sub(high[part], low[part], out=change)
            else:
                change.copy_(high[part]).sub_(low[part])
            wide = gradient[part] if gradient.dtype == total.dtype else slope.copy_(gradient[part])
            target.addcmul_(wide, change, value=0.5 if self.tag == "trapezoid" else 1.0)

    def _close(self, state: _Carry, total: Tensor) -> None:
        """Add to a total what the last gradient weighs if no outputs follow."""
        if self.tag == "trapezoid" and state.gradient is not None and len(state.outputs) > 1:
            self._add(total, state.gradient, *state.outputs)

    def value(self, key: Hashable) -> Tensor:
        """Conductance of the layer so far, in the shape of its output."""
        state = self._state[key]
        total = state.total if state.gradient is None else state.total.clone()
        self._close(state, total)
        return state.layout.restore(total)

    def release(self, key: Hashable) -> None:
        """Keep the sum alone."""
        state = self._state[key]
        self._close(state, state.total)
        state.outputs, state.gradient = [], None

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """Sum, the last gradient and outputs around it; with the tag ``right``, sum and last output."""
        return sum_bytes(nbytes, dtype) + {"left": 2, "right": 1, "trapezoid": 3}[self.tag] * nbytes


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
