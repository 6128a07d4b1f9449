"""Matched controls: selections that owe nothing to a ranking, as large as one that does."""

__all__ = ["convolutions", "random_layers", "random_parameters", "shuffled_layers"]

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from macattr.layers import LayerTable
from macattr.selection.rules import Selection, Unit, flat, pack

Generator = np.random.Generator | torch.Generator


def random_layers(selection: Selection, generator: Generator) -> Selection:
    """As many layers (or distinct outputs, if the selection counts those) as a selection, all equally likely.

    Layers that the selection had to include stay in; those that it had to exclude stay out.

    Args:
        selection: What is matched.
        generator: Source of randomness, numpy's or torch's.

    Returns:
        The control, in module order.
    """
    free = [unit for unit in selection.pool if unit not in selection.fixed]
    draws = len(selection.units) - len(selection.fixed)
    chosen = [free[index] for index in _permutation(len(free), generator)[:draws]]
    return _control(selection, [*selection.fixed, *chosen], "random, as many as")


def random_parameters(
    selection: Selection,
    generator: Generator,
    *,
    same_number: bool = False,
    skips: int = 0,
    fill: float = 0.95,
    draws: int = 100_000,
) -> Selection:
    """Random units that train as many parameters as a selection: redrawn until they fill 95-100 % of its number.

    Args:
        selection: What is matched.
        generator: Source of randomness, numpy's or torch's.
        same_number: Also match the number of units, by rejection. That can take thousands of draws, or be impossible.
        skips: Without ``same_number``: units that may be left out because they do not fit; 0 stops at the first.
        fill: Least share of the selection's parameters.
        draws: Draws before giving up.

    Returns:
        The control, in module order.

    Raises:
        ValueError: If no draw is accepted, or ``skips`` would have no effect.
    """
    if same_number and skips:
        raise ValueError(f"`skips` = {skips} has no effect with `same_number`: leave it out.")
    budget, number = selection.parameters, len(selection.units)
    fixed = list(selection.fixed)
    free = [unit for unit in selection.pool if unit not in selection.fixed]
    for _ in range(draws):
        order = fixed + [free[index] for index in _permutation(len(free), generator)]
        chosen = order[:number] if same_number else pack(order, selection.table, budget, skips)[0]
        if fill * budget <= selection.table.count(flat(chosen)) <= budget:
            return _control(selection, chosen, "random, as many parameters as")
    raise ValueError(
        f"none of {draws:,} random draws trains {fill:.0%} to 100 % of {budget:,} parameters"
        f"{f' with {number} units' if same_number else ''}: lower `fill`, or match less."
    )


def shuffled_layers(selection: Selection, generator: Generator, *, stages: bool = True) -> Selection:
    """The selection with its layers exchanged at random for others of the same role, stage and size.

    Number and parameters are the selection's own, and so is how many layers of each role every stage trains: what is
    left to a ranking is *which* of them. Layers outside of any block, and those that had to be included, stay.

    Args:
        selection: What is matched.
        generator: Source of randomness, numpy's or torch's.
        stages: Shuffle within every stage (sequence of blocks); False: over all stages, which also removes depth.

    Returns:
        The control, in module order.

    Raises:
        ValueError: If the only control of this kind is the selection itself.
    """
    classes: dict[tuple[object, ...], list[Unit]] = {}
    known = {layer.name: layer for layer in selection.table.layers}
    chosen, kept = set(selection.units), list(selection.fixed)
    for unit in selection.pool:
        if unit in selection.fixed:
            continue
        if not known[unit[0]].block:
            kept += [unit] if unit in chosen else []
            continue
        roles = tuple(sorted(known[name].role for name in unit))
        stage = known[unit[0]].stage if stages else ""
        classes.setdefault((roles, stage, selection.table.count(unit)), []).append(unit)
    counts = {key: sum(unit in chosen for unit in units) for key, units in classes.items()}
    if all(math.comb(len(units), counts[key]) == 1 for key, units in classes.items()):
        raise ValueError(
            f"shuffling changes nothing: the selection takes all or none of every role"
            f"{' in a stage' if stages else ''}; {'try stages=False' if stages else 'use random_parameters'}."
        )
    for key, units in classes.items():
        kept += [units[index] for index in _permutation(len(units), generator)[: counts[key]]]
    return _control(selection, kept, f"shuffled within role{' and stage' if stages else ''}:")


def convolutions(model: nn.Module, size: int = 3, *, ends: bool = True) -> Selection:
    """All convolutions of one kernel size, and with them all layers outside of any block.

    It asks no image. Where a ranking's own selection is nearly this one, its scores have not been shown to matter.

    Args:
        model: Network.
        size: Side of the kernels, e.g. 3 for 3x3.
        ends: Whether layers outside of any block belong to it: the first and last convolutions, the outer norms.

    Raises:
        ValueError: If there is no such convolution.
    """
    table = LayerTable.of(model)
    modules = dict(model.named_modules())
    matching = {
        name
        for name in table.names
        if isinstance(module := modules[name], _ConvNd) and set(module.kernel_size) == {size}
    }
    if not matching:
        raise ValueError(f"the model has no convolution whose kernel has the side {size}.")
    outer = {layer.name for layer in table.layers if ends and not layer.block}
    layers = tuple(name for name in table.names if name in matching | outer)
    how = f"all convolutions of kernel side {size}{' and all layers outside of blocks' if ends else ''}"
    return Selection(layers, how, table, tuple((name,) for name in table.names))


def _permutation(count: int, generator: Generator) -> list[int]:
    """A random order of ``count`` things."""
    if isinstance(generator, torch.Generator):
        order: list[int] = torch.randperm(count, generator=generator, device=generator.device).tolist()
        return order
    return [int(index) for index in generator.permutation(count)]


def _control(selection: Selection, units: Iterable[Unit], how: str) -> Selection:
    """A selection of other units from the same pool."""
    names = set(flat(units))
    layers = tuple(name for name in selection.table.names if name in names)
    return replace(selection, layers=layers, how=f"{how} [{selection.how}]", skipped=(), scores={})
