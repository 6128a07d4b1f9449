"""Sanity check of a ranking: whether it depends on the learned parameters, or on architecture and size alone."""

__all__ = ["SUSPECT", "randomisation_test", "randomised"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import nn

from macattr.layers.parameters import own_parameters
from macattr.layers.resolve import resolve_layers
from macattr.methods.samples import Inputs, refuse_iterator
from macattr.ranking.rank import rank_methods
from macattr.statistics.agreement import overlap_at, spearman
from macattr.statistics.ranks import top_count
from macattr.weights.values import refuse_changes

SUSPECT = 0.9
"""Spearman's correlation with the ranking of a random network above which a ranking depends little on learning."""


@contextmanager
def randomised(model: nn.Module, layers: Sequence[str], seed: int = 0) -> Iterator[None]:
    """Context in which the layers' own parameters are random; afterwards they are as before.

    Each parameter is drawn from a normal distribution with the parameter's own mean and standard deviation. This
    destroys the learned values and keeps the scale of weights and activations.

    Args:
        model: Network.
        layers: Names of the layers whose parameters are drawn.
        seed: Seed of the draw.

    Raises:
        ValueError: If a layer is not in the model, or its weights are packed, or do not lie whole in memory.
    """
    generator = torch.Generator().manual_seed(seed)
    owners = resolve_layers(model, list(layers)) if layers else {}
    for name, module in owners.items():
        refuse_changes(name, module)
    every = {id(p): p for module in owners.values() for p in own_parameters(module).values()}
    parameters = [parameter for parameter in every.values() if parameter.is_floating_point() or parameter.is_complex()]
    stored = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu").to(
                    parameter
                )
                deviation = parameter.std(correction=0)
                parameter.copy_(parameter.mean() + deviation * noise)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, stored, strict=True):
                parameter.copy_(values)


def randomisation_test(
    model: nn.Module,
    inputs: Inputs,
    method: str = "mac",
    *,
    cascading: bool = True,
    steps: int = 4,
    fraction: float = 0.1,
    **options: object,
) -> pd.DataFrame:
    """Agreement of a ranking with the rankings of the network whose parameters are randomised group by group.

    Layers are split by depth into ``steps`` groups. ``cascading`` randomises from the output back to the input, with
    one more group each time; otherwise each group alone. A ranking that stays the same when all parameters are random
    comes from architecture and size. That is not a fault in itself, but such a ranking needs no trained network.

    Args:
        model: Network.
        inputs: Images; not an iterator, because every step ranks on all of them.
        method: Name of the method.
        cascading: Whether groups add up.
        steps: Number of groups.
        fraction: Top share of the layers that is compared.
        **options: Of :func:`macattr.rank_layers`.

    Returns:
        One row for each step: ``randomised`` (first and last layer), ``share`` of the layers, ``spearman`` with the
        ranking of the unchanged network, ``overlap`` of the top fraction and ``random_overlap``, that of random
        rankings.

    Raises:
        ValueError: As :func:`macattr.rank_layers`.

    Source:
        Adebayo et al. 2018, Sanity checks for saliency maps.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}: it is the number of groups of layers.")
    refuse_iterator(inputs, "the test reads the images several times")
    first = rank_methods(model, inputs, [method], None, **options)[method].scores()
    names, original = first["layer"].values.tolist(), first.values
    k = top_count(fraction, len(names))
    groups = [list(group) for group in np.array_split(names, min(steps, len(names)))][::-1]
    rows = []
    for number, group in enumerate(groups):
        lost = [name for earlier in groups[: number + 1] for name in earlier] if cascading else group
        with randomised(model, lost):
            scores = rank_methods(model, inputs, [method], names, **options)[method].scores().values
        rows.append(
            {
                "randomised": f"{group[0]} ... {lost[-1] if not cascading else names[-1]}",
                "share": len(lost) / len(names),
                "spearman": spearman(original, scores),
                "overlap": overlap_at(original, scores, k),
                "random_overlap": k / len(names),
            }
        )
    return pd.DataFrame(rows)
