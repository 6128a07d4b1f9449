r"""Sums along a path: tagged partitions for :math:`\int g\,dy`, quadratures for :math:`\int g\,d\alpha`."""

__all__ = [
    "ActivationGradientSum",
    "GradientSum",
    "LayerSum",
    "Partition",
    "StieltjesSum",
    "captum_nodes",
    "tagged_partition",
]

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Tag = Literal["left", "right", "trapezoid"]
CaptumMethod = Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]

BLOCK = 1 << 16
"""Elements that are folded at a time on a CPU, so that temporaries stay in its cache."""


@dataclass(frozen=True)
class Partition:
    r"""Nodes :math:`\alpha_0 < \dots < \alpha_N`, where the gradient is taken between them, and quadrature weights.

    Args:
        nodes: Positions on the path, float64, increasing.
        tag: Where an increment :math:`y_{j+1} - y_j` meets its gradient: at its ``left`` or ``right`` node, or the
            mean of both (``trapezoid``: second order, exact for quadratic objectives).
        weights: Weight of every node in the mean of the gradient over the path; they sum to 1.

    Raises:
        ValueError: If nodes do not increase or sizes differ.
    """

    nodes: Tensor
    tag: Tag
    weights: Tensor

    def __post_init__(self) -> None:
        if self.tag not in get_args(Tag):
            raise ValueError(f"`tag` must be one of {', '.join(get_args(Tag))}, got {self.tag!r}.")
        if self.nodes.shape != self.weights.shape or bool((self.nodes.diff() <= 0).any()):
            raise ValueError(f"`nodes` must increase and have as many weights, got {self.nodes.tolist()}.")


def tagged_partition(
    interval: tuple[float, float], n_steps: int, tag: Tag, groups: int = 1, include_end: bool = True
) -> Partition:
    """Increments that include both ends of the interval and every border between its ``groups`` equal parts.

    Args:
        interval: Start and end of alpha.
        n_steps: Number of increments, at least 1. Inside a group they are equal; groups get equally many or one more.
        tag: Where the gradient is taken.
        groups: Parts of the interval; if there are more than ``n_steps``, borders cannot all be nodes.
        include_end: If False, the last node is left out and ``n_steps - 1`` increments remain: what the authors'
            script does, which never sees the whole image.

    Raises:
        ValueError: If ``n_steps`` is below 1, or below 2 without the end.

    Example:
        >>> tagged_partition((0.5, 1.0), 4, "trapezoid").nodes
        tensor([0.5000, 0.6250, 0.7500, 0.8750, 1.0000], dtype=torch.float64)
    """
    if n_steps < (1 if include_end else 2):
        raise ValueError(f"`n_steps` must be at least {1 if include_end else 2}, got {n_steps}.")
    start, end = interval
    borders = torch.linspace(0, 1, min(groups, n_steps) + 1, dtype=torch.float64)
    counts = torch.linspace(0, n_steps, len(borders), dtype=torch.float64).round().long().diff()
    inner = [
        torch.linspace(low, high, int(count) + 1, dtype=torch.float64)[:-1]
        for low, high, count in zip(borders[:-1].tolist(), borders[1:].tolist(), counts.tolist(), strict=True)
    ]
    unit = torch.cat([*inner, torch.ones(1, dtype=torch.float64)])
    if not include_end:
        unit = unit[:-1]
    gaps = unit.diff()
    zero = torch.zeros(1, dtype=torch.float64)
    to_right, to_left = torch.cat([gaps, zero]), torch.cat([zero, gaps])
    weights = {"left": to_right, "right": to_left, "trapezoid": (to_left + to_right) / 2}[tag]
    return Partition(start + (end - start) * unit, tag, weights / weights.sum())


def captum_nodes(interval: tuple[float, float], n_nodes: int, method: CaptumMethod) -> Partition:
    """The nodes and weights that Captum's ``method`` puts on the path, left-tagged as in its LayerConductance.

    Apart from ``riemann_trapezoid`` they miss at least one end of the path.

    Args:
        interval: Start and end of alpha.
        n_nodes: Number of evaluations; Captum's LayerConductance uses ``n_steps + 1``. At least 2.
        method: Captum's name of the quadrature.

    Raises:
        ValueError: If the name is unknown or there are fewer than 2 nodes.

    Example:
        >>> captum_nodes((0.0, 1.0), 2, "riemann_right").nodes
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if method not in get_args(CaptumMethod):
        raise ValueError(f"`method` must be one of {', '.join(get_args(CaptumMethod))}, got {method!r}.")
    if n_nodes < (1 if method == "gausslegendre" else 2):
        raise ValueError(f"`n_steps` is too small for {method}: it needs at least 2 nodes, got {n_nodes}.")
    index = torch.arange(n_nodes, dtype=torch.float64)
    weights = torch.full((n_nodes,), 1 / n_nodes, dtype=torch.float64)
    if method == "gausslegendre":
        roots, gauss = np.polynomial.legendre.leggauss(n_nodes)
        unit, weights = torch.from_numpy(0.5 * (1 + roots)), torch.from_numpy(0.5 * gauss)
    elif method == "riemann_left":
        unit = index / n_nodes
    elif method == "riemann_right":
        unit = (index + 1) / n_nodes
    elif method == "riemann_middle":
        unit = (index + 0.5) / n_nodes
    else:
        unit = index / (n_nodes - 1)
        weights[[0, -1]] /= 2
    return Partition(interval[0] + (interval[1] - interval[0]) * unit, "left", weights)


@runtime_checkable
class LayerSum(Protocol):
    """Something that is summed over the nodes of a path for every layer, a chunk of nodes at a time."""

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

    def state_bytes(self, nbytes: int) -> int:
        """Memory that is kept between chunks for a layer whose output at one node takes ``nbytes``."""


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


def _blocks(total: int, count: int, device: torch.device) -> range:
    """Starts of the blocks of one row that are folded together."""
    return range(0, total, max(1, BLOCK // count) if device.type == "cpu" else max(1, total))


@dataclass
class _Carry:
    """What the border between two chunks needs: output and gradient of the last node."""

    layout: _DenseLayout
    total: Tensor
    output: Tensor
    gradient: Tensor


class StieltjesSum:
    r"""Conductance :math:`C = \sum_j g(\tau_j) \odot (y_{j+1} - y_j)` of every layer, in one sweep over the nodes.

    Only the sum and the last node are kept, whatever the number of nodes. Sums are float32 (float64 for float64
    layers) in direct form: summation by parts would cancel.

    Args:
        tag: Where the gradient is taken; see :class:`Partition`.
    """

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self._state: dict[Hashable, _Carry] = {}

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes; chunks come in order. See :class:`LayerSum`."""
        state = self._state.get(key)
        if state is None:
            layout = _DenseLayout(outputs, count)
            y, g = layout.rows(outputs, count), layout.rows(gradients, count)
            total = torch.zeros(y.shape[1], dtype=_wide(y.dtype), device=y.device)
            state = _Carry(layout, total, _last(y), _last(g))
            self._state[key] = state
            self._fold(state.total, y, g, None)
            return
        y, g = state.layout.rows(outputs, count), state.layout.rows(gradients, count)
        self._fold(state.total, y, g, state)
        state.output, state.gradient = _last(y), _last(g)

    def _fold(self, total: Tensor, y: Tensor, g: Tensor, carry: _Carry | None) -> None:
        """Add the increments between the rows, and between the carried row and the first."""
        count, length = y.shape
        if count == 1 and carry is None:
            return
        blocks = _blocks(length, count, y.device)
        for start in blocks:
            block = slice(start, start + blocks.step)
            wide_y, wide_g = y[:, block].to(total.dtype), g[:, block].to(total.dtype)
            if carry is not None:
                wide_y = torch.cat([carry.output[None, block].to(total.dtype), wide_y])
                wide_g = torch.cat([carry.gradient[None, block].to(total.dtype), wide_g])
            step = wide_y[1:] - wide_y[:-1]
            if self.tag == "trapezoid":
                step.mul_(wide_g[1:] + wide_g[:-1])
            else:
                step.mul_(wide_g[:-1] if self.tag == "left" else wide_g[1:])
            total[block].add_(step.sum(0), alpha=0.5 if self.tag == "trapezoid" else 1.0)

    def value(self, key: Hashable) -> Tensor:
        """Conductance of the layer so far, in the shape of its output."""
        state = self._state[key]
        return state.layout.restore(state.total)

    def state_bytes(self, nbytes: int) -> int:
        """Sum, last output and last gradient."""
        return 3 * nbytes


class GradientSum:
    r"""Weighted mean :math:`\sum_j w_j\,g(\alpha_j)` of every layer's gradient over the nodes.

    Args:
        weights: Weight of every node; see :class:`Partition`.
    """

    def __init__(self, weights: Float[Tensor, " n"]) -> None:
        self.weights = weights.tolist()
        self._state: dict[Hashable, tuple[_DenseLayout, Tensor]] = {}

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes. See :class:`LayerSum`."""
        if key not in self._state:
            layout = _DenseLayout(outputs, count)
            length = math.prod(layout.shape)
            zeros = torch.zeros(length, dtype=_wide(gradients.dtype), device=gradients.device)
            self._state[key] = (layout, zeros)
        layout, total = self._state[key]
        for row, weight in zip(layout.rows(gradients, count), self.weights[first : first + count], strict=True):
            if weight:
                total.add_(row, alpha=weight)

    def value(self, key: Hashable) -> Tensor:
        """Weighted mean of the gradient so far, in the shape of the layer's output."""
        layout, total = self._state[key]
        return layout.restore(total)

    def state_bytes(self, nbytes: int) -> int:
        """The sum alone."""
        return nbytes


class ActivationGradientSum(GradientSum):
    r"""Weighted mean :math:`\sum_j w_j\,y(\alpha_j) \odot g(\alpha_j)` of gradient x activation over the nodes."""

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Take in a chunk of nodes. See :class:`LayerSum`."""
        super().update(key, outputs, gradients * outputs, first, count)


def _last(rows: Tensor) -> Tensor:
    """The last row, without keeping the others (or anything else of their storage) alive."""
    last = rows[-1].detach()
    return last if last.untyped_storage().nbytes() <= last.nbytes else last.clone()
