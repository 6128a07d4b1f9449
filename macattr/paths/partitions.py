"""Nodes on a path: where a sum is evaluated, and where its gradient is taken."""

__all__ = [
    "CaptumMethod",
    "Partition",
    "Tag",
    "can_coarsen",
    "captum_nodes",
    "check_tag",
    "every_nth_node",
    "tagged_partition",
]

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Tag = Literal["left", "right", "trapezoid"]
"""Where the gradient is taken between two nodes."""


CaptumMethod = Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
"""Names that Captum gives sums along a path."""


@dataclass(frozen=True)
class Partition:
    r"""Nodes :math:`\alpha_0 < \ldots < \alpha_N`, where the gradient is taken between them, and quadrature weights.

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
        check_tag(self.tag)
        if self.nodes.shape != self.weights.shape or bool((self.nodes.diff() <= 0).any()):
            raise ValueError(f"`nodes` must increase and have as many weights, got {self.nodes.tolist()}.")


def tagged_partition(
    interval: tuple[float, float], n_steps: int, tag: Tag, groups: int = 1, include_end: bool = True, multiple: int = 1
) -> Partition:
    """Increments that include both ends of the interval and every border between its ``groups`` equal parts.

    Args:
        interval: Start and end of alpha.
        n_steps: Number of increments, at least 1. Inside a group they are equal; groups get equally many or one more.
        tag: Where the gradient is taken.
        groups: Parts of the interval; if there are more than ``n_steps``, borders cannot all be nodes.
        include_end: If False, the last node is left out and ``n_steps - 1`` increments remain: what the authors'
            script does, which never sees the whole image.
        multiple: Each group gets a multiple of this, if ``n_steps`` is one.

    Raises:
        ValueError: If ``n_steps`` is below 1, or below 2 without the end, or the tag is unknown.

    Example:
        >>> tagged_partition((0.5, 1.0), 4, "trapezoid").nodes
        tensor([0.5000, 0.6250, 0.7500, 0.8750, 1.0000], dtype=torch.float64)
    """
    check_tag(tag)
    if n_steps < (1 if include_end else 2):
        raise ValueError(f"`n_steps` must be at least {1 if include_end else 2}, got {n_steps}.")
    start, end = interval
    borders = torch.linspace(0, 1, min(groups, n_steps) + 1, dtype=torch.float64, device="cpu")
    unit_count = multiple if n_steps % multiple == 0 else 1
    counts = (
        unit_count
        * torch.linspace(0, n_steps // unit_count, len(borders), dtype=torch.float64, device="cpu")
        .round()
        .long()
        .diff()
    )
    inner = [
        torch.linspace(low, high, int(count) + 1, dtype=torch.float64, device="cpu")[:-1]
        for low, high, count in zip(borders[:-1].tolist(), borders[1:].tolist(), counts.tolist(), strict=True)
    ]
    unit = torch.cat([*inner, torch.ones(1, dtype=torch.float64, device="cpu")])
    if not include_end:
        unit = unit[:-1]
    return Partition(start + (end - start) * unit, tag, _gap_weights(unit, tag))


def _gap_weights(nodes: Tensor, tag: Tag) -> Tensor:
    """Weights of the nodes by their neighbouring increments, according to the tag."""
    gaps, zero = nodes.diff(), nodes.new_zeros(1)
    to_right, to_left = torch.cat([gaps, zero]), torch.cat([zero, gaps])
    weights = {"left": to_right, "right": to_left, "trapezoid": (to_left + to_right) / 2}[tag]
    return weights / weights.sum()


def every_nth_node(partition: Partition, interval: tuple[float, float], groups: int = 1, stride: int = 2) -> Partition:
    """The partition of ``stride`` times the step that is contained in another: what :class:`EveryNth` sums over.

    Args:
        partition: Partition that :func:`tagged_partition` made.
        interval: Start and end of alpha on the path.
        groups: Equal parts of the interval; a path has kinks at their borders, which must stay nodes.
        stride: Increments that become one.

    Raises:
        ValueError: If these nodes would miss the last node or a border between groups.

    Example:
        >>> every_nth_node(tagged_partition((0.0, 1.0), 4, "left"), (0.0, 1.0)).nodes
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not can_coarsen(partition, interval, groups, stride):
        divided = "halved" if stride == 2 else f"divided by {stride}"
        raise ValueError(
            f"{len(partition.nodes) - 1} increments in {groups} groups cannot be {divided}: choose `n_steps` as a "
            f"multiple of {stride * groups}, so that every group has a multiple of {stride}."
        )
    nodes = partition.nodes[::stride]
    return Partition(nodes, partition.tag, _gap_weights(nodes, partition.tag))


def can_coarsen(partition: Partition, interval: tuple[float, float], groups: int, stride: int) -> bool:
    """Whether every ``stride``-th node includes the last one and all borders between groups.

    Args:
        partition: Partition that :func:`tagged_partition` made.
        interval: Start and end of alpha on the path.
        groups: Equal parts of the interval.
        stride: Increments that become one.
    """
    start, end = interval
    borders = torch.linspace(start, end, groups + 1, dtype=torch.float64, device="cpu")[1:-1]
    missed = (borders[:, None] - partition.nodes[::stride]).abs().amin(1) > 1e-9 * (end - start)
    return (len(partition.nodes) - 1) % stride == 0 and not bool(missed.any())


def check_tag(tag: str) -> None:
    """Raise for an unknown tag: a ValueError."""
    if tag not in get_args(Tag):
        raise ValueError(f"`tag` must be one of {', '.join(get_args(Tag))}, got {tag!r}.")


def captum_nodes(interval: tuple[float, float], n_nodes: int, method: CaptumMethod) -> Partition:
    """The nodes and weights that Captum's ``method`` puts on the path, left-tagged as in its LayerConductance.

    Apart from ``riemann_trapezoid`` they miss at least one end of the path.

    Args:
        interval: Start and end of alpha.
        n_nodes: Number of evaluations; Captum's LayerConductance uses ``n_steps + 1``. At least 2, for Gauss 1.
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
    index = torch.arange(n_nodes, dtype=torch.float64, device="cpu")
    weights = torch.full((n_nodes,), 1 / n_nodes, dtype=torch.float64, device="cpu")
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
