"""Sanity checks of a ranking: does it depend on what was learned, or on architecture and size alone?"""

__all__ = ["randomisation_test", "randomised"]

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from macattr.layers import resolve_layers
from macattr.methods.samples import Item, refuse_iterator
from macattr.ranking.rank import rank_methods
from macattr.statistics.certainty import ranks, top_count

SUSPECT = 0.9
"""Correlation with the ranking of a fully random network from which on a ranking says little about what was learned."""


@contextmanager
def randomised(model: nn.Module, layers: Sequence[str], seed: int = 0) -> Iterator[None]:
    """While active, the layers' own parameters are random; afterwards they are as before.

    Each parameter is drawn from a normal distribution of its own mean and standard deviation: what was learned is gone,
    the scale of weights and activations stays.

    Args:
        model: Network.
        layers: Names of the layers whose parameters are drawn anew.
        seed: Seed of the draw.

    Raises:
        ValueError: If a layer is not in the model.
    """
    generator = torch.Generator().manual_seed(seed)
    owners = resolve_layers(model, list(layers)).values() if layers else ()
    parameters = list({id(p): p for module in owners for p in module.parameters(recurse=False)}.values())
    stored = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
                deviation = parameter.std(correction=0)
                parameter.copy_(parameter.mean() + deviation * noise)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, stored, strict=True):
                parameter.copy_(values)


def randomisation_test(
    model: nn.Module,
    inputs: Tensor | Iterable[Item],
    method: str = "mac",
    *,
    cascading: bool = True,
    steps: int = 4,
    fraction: float = 0.1,
    **options: object,
) -> pd.DataFrame:
    """How a ranking changes when layers lose what they learned.

    Layers are cut by depth into ``steps`` groups. ``cascading`` randomises from the output back to the input, one group
    more each time; otherwise each group alone. A ranking that stays the same when all is random comes from architecture
    and size: that is no fault in itself, but then it needs no trained network.

    Args:
        model: Network.
        inputs: Images, no iterator: every step ranks on all of them.
        method: Name of the method.
        cascading: Whether groups add up.
        steps: Number of groups.
        fraction: Top share of the layers that is compared.
        **options: Of :func:`macattr.rank_layers`.

    Returns:
        One row a step: ``randomised`` (words), ``share`` of the layers, ``spearman`` with the ranking of the network as
        it is, ``overlap`` of the top fraction, ``random_overlap`` that of random rankings.

    Raises:
        ValueError: As :func:`macattr.rank_layers`.

    Source:
        Adebayo et al. 2018, Sanity checks for saliency maps.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}: it is the number of groups of layers.")
    refuse_iterator(inputs, "the test walks over the images several times")
    first = rank_methods(model, inputs, [method], None, **options)[method].scores()
    names, original = first["layer"].values.tolist(), first.values
    groups = [list(group) for group in np.array_split(names, min(steps, len(names)))][::-1]
    rows = []
    for number, group in enumerate(groups):
        lost = [name for some in groups[: number + 1] for name in some] if cascading else group
        with randomised(model, lost):
            scores = rank_methods(model, inputs, [method], names, **options)[method].scores().values
        k = top_count(fraction, len(names))
        both = ((ranks(scores) <= k) & (ranks(original) <= k)).sum()
        rows.append(
            {
                "randomised": f"{group[0]} ... {lost[-1] if not cascading else names[-1]}",
                "share": len(lost) / len(names),
                "spearman": float(spearmanr(original, scores).statistic),
                "overlap": both / k,
                "random_overlap": k / len(names),
            }
        )
    return pd.DataFrame(rows)
