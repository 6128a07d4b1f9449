"""Matched controls: selections made without a ranking, as large as one made with it."""

__all__ = ["convolutions", "random_layers", "random_parameters", "shuffled_layers"]

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from macattr.layers.resolve import resolve_layers
from macattr.layers.table import LayerTable
from macattr.selection.rules import Candidate, Selection, flat, pack

Generator = np.random.Generator | torch.Generator


def random_layers(selection: Selection, generator: Generator) -> Selection:
    """As many layers (or distinct outputs, if the selection counts those) as a selection, all equally likely.

    Layers that the selection had to include stay in; those that it had to exclude stay out.

    Args:
        selection: Selection to match.
        generator: Source of randomness, numpy's or torch's.

    Returns:
        The control, in module order.
    """
    draws, free = len(selection.chosen) - len(selection.fixed), selection.free
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
    """Random candidates that train as many parameters as a selection: redrawn until they fill 95-100 % of its number.

    Args:
        selection: Selection to match.
        generator: Source of randomness, numpy's or torch's.
        same_number: Also match the number of candidates, by rejection. That can take thousands of draws, or be
            impossible.
        skips: Without ``same_number``: candidates that may be left out because they do not fit. 0 stops at the first.
        fill: Least share of the selection's parameters.
        draws: Draws before giving up.

    Returns:
        The control, in module order.

    Raises:
        ValueError: If no draw is accepted, or ``skips`` would have no effect.
    """
    if same_number and skips:
        raise ValueError(f"`skips` = {skips} has no effect with `same_number`: leave it out.")
    budget, number, free = selection.parameters, len(selection.chosen), selection.free
    for _ in range(draws):
        order = list(selection.fixed) + [free[index] for index in _permutation(len(free), generator)]
        chosen = order[:number] if same_number else pack(order, selection.table, budget, skips)[0]
        if fill * budget <= selection.table.count(flat(chosen)) <= budget:
            return _control(selection, chosen, "random, as many parameters as")
    raise ValueError(
        f"none of {draws:,} random draws trains {fill:.0%} to 100 % of {budget:,} parameters"
        f"{f' with {number} candidates' if same_number else ''}: lower `fill`, or match less."
    )


def shuffled_layers(selection: Selection, generator: Generator, *, stages: bool = True) -> Selection:
    """The selection with its layers exchanged at random for others of the same role, stage and size.

    Number and parameters are the selection's own, and so is the number of layers of each role in every stage. A ranking
    can only decide *which* of them are taken. Layers outside of any block, and those that had to be included, stay.

    Args:
        selection: Selection to match.
        generator: Source of randomness, numpy's or torch's.
        stages: Shuffle within every stage (sequence of blocks); False: over all stages, which also removes depth.

    Returns:
        The control, in module order.

    Raises:
        ValueError: If the only control of this kind is the selection itself.
    """
    chosen = set(selection.chosen)
    classes = _alike(selection, stages)
    exchanged = {candidate for members in classes.values() for candidate in members}
    kept = [candidate for candidate in selection.chosen if candidate not in exchanged]
    counts = {key: sum(candidate in chosen for candidate in members) for key, members in classes.items()}
    if all(math.comb(len(members), counts[key]) == 1 for key, members in classes.items()):
        raise ValueError(
            f"shuffling changes nothing: the selection takes all or none of every role"
            f"{' in a stage' if stages else ''}; {'try stages=False' if stages else 'use random_parameters'}."
        )
    for key, members in classes.items():
        kept += [members[index] for index in _permutation(len(members), generator)[: counts[key]]]
    return _control(selection, kept, f"shuffled within role{' and stage' if stages else ''}:")


def _alike(selection: Selection, stages: bool) -> dict[tuple[object, ...], list[Candidate]]:
    """The free candidates inside of blocks, by role, stage and size."""
    described = {layer.name: layer for layer in selection.table.layers}
    classes: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in selection.free:
        first = described[candidate[0]]
        if first.block:
            roles = tuple(sorted(described[name].role for name in candidate))
            key = roles, first.stage if stages else "", selection.table.count(candidate)
            classes.setdefault(key, []).append(candidate)
    return classes


def convolutions(model: nn.Module, size: int = 3, *, ends: bool = True) -> Selection:
    """All convolutions of one kernel size, and with them all layers outside of any block.

    It needs no image. Where a ranking's own selection is nearly this one, its scores have not been shown to matter.

    Args:
        model: Network.
        size: Side of the kernels, e.g. 3 for 3x3.
        ends: Whether layers outside of any block are selected too: the first and last convolutions, the outer norms.

    Raises:
        ValueError: If there is no such convolution.
    """
    table = LayerTable.of(model)
    modules = resolve_layers(model)
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
    return Selection(layers=layers, how=how, table=table, pool=tuple((name,) for name in table.names))


def _permutation(count: int, generator: Generator) -> list[int]:
    """The indices below ``count`` in random order."""
    if isinstance(generator, torch.Generator):
        order: list[int] = torch.randperm(count, generator=generator, device=generator.device).tolist()
        return order
    return [int(index) for index in generator.permutation(count)]


def _control(selection: Selection, candidates: Iterable[Candidate], how: str) -> Selection:
    """A selection of other candidates from the same pool."""
    names = set(flat(candidates))
    layers = tuple(name for name in selection.table.names if name in names)
    return replace(selection, layers=layers, how=f"{how} [{selection.how}]", skipped=(), scores={})
