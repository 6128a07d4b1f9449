"""Layers that run several times in one forward pass: what of their calls counts."""

__all__ = ["CallsName", "join_calls"]

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from macattr.sweep.probes import Site
from macattr.sweep.trace import add_calls

CallsName = Literal["sum", "each", "last"]
"""How calls count: added up neuron by neuron, each with neurons of its own, or the last alone."""


def join_calls(values: Mapping[Site, Tensor], calls: CallsName = "sum") -> tuple[Tensor, ...]:
    """A layer's values over its calls, one tensor for each tensor that it returns.

    Args:
        values: Values at the sites of one layer.
        calls: ``sum`` adds the calls up; a recurrent network's sum is no share of the objective's change, because
            what one call contributes passes through the next. ``each`` keeps the neurons of every call apart: (calls,
            ...), or one vector where their shapes differ. ``last`` takes the last call.

    Raises:
        ValueError: If calls that are added up return different shapes.

    Example:
        >>> values = {Site("a", 0, 0): torch.tensor([1.0]), Site("a", 1, 0): torch.tensor([-3.0])}
        >>> [join_calls(values, calls)[0].tolist() for calls in ("sum", "each", "last")]
        [[-2.0], [[1.0], [-3.0]], [-3.0]]
    """
    by_item: dict[int, dict[int, Tensor]] = {}
    for site, value in values.items():
        by_item.setdefault(site.item, {})[site.call] = value
    if calls == "sum" or all(len(some) == 1 for some in by_item.values()):
        return add_calls(values)
    ordered = [[some[call] for call in sorted(some)] for _, some in sorted(by_item.items())]
    if calls == "last":
        return tuple(some[-1] for some in ordered)
    return tuple(
        torch.stack(some) if len({value.shape for value in some}) == 1 else torch.cat([v.flatten() for v in some])
        for some in ordered
    )
