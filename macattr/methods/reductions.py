"""From a layer's neurons to its score."""

__all__ = ["REDUCTIONS", "Reduction", "reduce_neurons"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from macattr.layers.parameters import own_parameters
from macattr.weights.values import number_of_values


@dataclass(frozen=True)
class Reduction:
    """How a layer's neurons become its score.

    Args:
        formula: The reduction as a formula, with C the neurons.
        function: (neurons, output at the whole image, parameters, units) to a number; a unit is an output channel or
            feature of the layer.
        needs_output: Whether it reads the output at the whole image.
    """

    formula: str
    function: Callable[[Tensor, Tensor | None, int, int], Tensor]
    needs_output: bool = False


def _per_activation(neurons: Tensor, output: Tensor | None) -> Tensor:
    """Sum of the neurons over that of the outputs; 0 for a layer whose output is 0, which passes nothing on."""
    total = (neurons if output is None else output).abs().sum()
    return neurons.abs().sum() / total if total > 0 else torch.zeros_like(total)


REDUCTIONS: Mapping[str, Reduction] = {
    "mean_abs": Reduction("mean |C|", lambda c, y, p, u: c.abs().mean()),
    "sum_abs": Reduction("sum |C|", lambda c, y, p, u: c.abs().sum()),
    "abs_sum": Reduction("|sum C|", lambda c, y, p, u: c.sum(dtype=torch.float64).abs()),
    "sum": Reduction("sum C", lambda c, y, p, u: c.sum(dtype=torch.float64)),
    "rms": Reduction("rms C", lambda c, y, p, u: c.square().mean().sqrt()),
    "norm": Reduction("norm of C", lambda c, y, p, u: c.norm()),
    "per_parameter": Reduction("sum |C| / parameters", lambda c, y, p, u: c.abs().sum() / max(1, p)),
    "per_unit": Reduction("sum |C| / units", lambda c, y, p, u: c.abs().sum() / max(1, u)),
    "per_activation": Reduction("sum |C| / sum |y|", lambda c, y, p, u: _per_activation(c, y), True),
}
"""From neurons to a score. ``mean_abs`` is the paper's; the last three correct for the size of a layer."""


UNITS = ("out_channels", "out_features", "embedding_dim", "embed_dim", "hidden_size", "nf")
"""Attributes in which modules of torch, and the transposed linear layer of transformers, keep the number of units."""


def reduce_neurons(name: str, neurons: Tensor, module: nn.Module, output: Tensor | None = None) -> float:
    """Score of a layer.

    Args:
        name: One of :data:`REDUCTIONS`.
        neurons: The quantity C of every neuron, in the shape of the layer's output.
        module: The layer; its own parameters give its size. Its units are its output channels or features as torch's
            modules name them, else the longest first dimension of a parameter.
        output: Its output at the whole image, for the reductions that need it.

    Example:
        >>> layer = nn.Linear(3, 2)  # 8 parameters, 2 units
        >>> neurons = torch.tensor([[1.0, -3.0]])
        >>> [reduce_neurons(name, neurons, layer) for name in ("mean_abs", "abs_sum", "per_parameter", "per_unit")]
        [2.0, 2.0, 0.5, 2.0]
    """
    own = list(own_parameters(module).values())
    return float(REDUCTIONS[name].function(neurons, output, sum(map(number_of_values, own)), _units(module)))


def _units(module: nn.Module) -> int:
    """Number of output channels or features of a layer."""
    if isinstance(module, nn.RNNBase):
        return (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
    named = [getattr(module, name, None) for name in UNITS]
    if sizes := [size for size in named if isinstance(size, int)]:
        return sizes[0]
    return max((len(parameter) for parameter in own_parameters(module).values() if parameter.dim()), default=1)
