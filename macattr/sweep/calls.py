"""Layers that run several times in one forward pass: what of their calls counts."""

__all__ = ["CallsName", "add_calls", "apart", "check_calls", "counted", "join_calls"]

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from macattr.sweep.probes import Site

CallsName = Literal["sum", "each", "last"]
"""How calls count: added up neuron by neuron, each with neurons of its own, or the last alone."""


def check_calls(calls: object) -> None:
    """Refuse what is no choice of calls.

    Raises:
        ValueError: If it is none of the three names.
    """
    if calls not in get_args(CallsName):
        raise ValueError(f"`calls` must be one of {', '.join(get_args(CallsName))}, got {calls!r}.")


def apart(calls: CallsName) -> CallsName:
    """The same choice for values that must not be added up over calls, such as outputs.

    Args:
        calls: See :func:`join_calls`.

    Example:
        >>> apart("sum"), apart("last")
        ('each', 'last')
    """
    return "each" if calls == "sum" else calls


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
    values = counted(values, calls)
    by_item: dict[int, list[Tensor]] = {}
    for site in sorted(values):
        by_item.setdefault(site.item, []).append(values[site])
    if calls != "each" or all(len(some) == 1 for some in by_item.values()):
        return add_calls(values)
    return tuple(
        torch.stack(some) if len({value.shape for value in some}) == 1 else torch.cat([v.flatten() for v in some])
        for _, some in sorted(by_item.items())
    )


def add_calls(values: Mapping[Site, Tensor]) -> tuple[Tensor, ...]:
    """Sums over the calls of one layer, one for each tensor that it returns.

    Raises:
        ValueError: If calls return different shapes, so that neurons do not correspond.
    """
    parts: dict[int, Tensor] = {}
    for site, value in values.items():
        before = parts.get(site.item)
        if before is not None and before.shape != value.shape:
            raise ValueError(
                f"layer {site.layer!r} is called several times with outputs of different shapes, "
                f"{tuple(before.shape)} and {tuple(value.shape)}: its neurons cannot be added up."
            )
        parts[site.item] = value if before is None else before + value
    return tuple(parts[index] for index in sorted(parts))


def counted(values: Mapping[Site, Tensor], calls: CallsName) -> Mapping[Site, Tensor]:
    """A layer's values at the calls that count.

    Args:
        values: Values at the sites of one layer.
        calls: See :func:`join_calls`.
    """
    if calls != "last":
        return values
    last = {site.item: site for site in sorted(values)}
    return {site: values[site] for site in last.values()}
