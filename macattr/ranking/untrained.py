"""Whether a network's parameters are still those of its initialisation, so that a ranking says little."""

__all__ = ["AS_INITIALISED", "UNTRAINED", "looks_untrained"]

import math

import torch
from torch import Tensor, nn

from macattr.layers.parameters import constants, own_values
from macattr.weights.values import is_packed

UNTRAINED = (
    "the weights look freshly initialised: all biases and norms are as they are before training. A ranking of an "
    "untrained network, by any method, says nothing about the trained one: load its weights (`--weights`)."
)
"""What a ranking of such a network is worth, in words."""

AS_INITIALISED = "as initialised"
"""What the attribute ``weights`` of such a network's ranking says; other rankings have no such attribute."""

LOOKED_AT = 1 << 14
"""Values of a parameter that are looked at, evenly spread."""

SIGMAS = 5.0
"""Distance from what an initialisation gives, in standard errors, that chance is taken to explain."""

NORMAL, UNIFORM = 0.344, 0.526
"""Median over 95 % quantile of the magnitudes in both distributions; trained weights often have longer tails."""

FEWEST = 256
"""Values from which on distributions are compared."""

WITH_FAN_IN = (nn.Linear, nn.modules.conv._ConvNd)
"""Layers whose biases torch draws from +-1/sqrt(fan in)."""


def looks_untrained(model: nn.Module) -> bool:
    r"""Whether all biases, norms and weights are as initialisations leave them.

    Every vector (bias, weight of a norm) must be constant, as those of 0 and 1 are, or fill :math:`\pm 1/\sqrt{f}`,
    with the layer's fan-in f, as torch draws biases. At least one must be constant; the first step of training ends
    that. Every matrix must be constant, or have the shape of a uniform or a normal distribution around 0. Running means
    must be 0. Networks without a constant vector are not recognised: their weights alone do not tell.

    Args:
        model: Network. Parameters that no training changes do not count; 4-bit weights are taken to be trained.

    Example:
        >>> net = nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30))
        >>> looks_untrained(net)
        True
        >>> with torch.no_grad():
        ...     _ = net[1].weight.add_(0.01 * torch.rand(30))
        >>> looks_untrained(net)
        False
    """
    if any(is_packed(parameter) for parameter in model.parameters()) or _has_seen_data(model):
        return False
    fixed, is_marked, values = constants(model), False, 0
    for module in model.modules():
        if all(id(parameter) in fixed for parameter in module.parameters(recurse=False)):
            continue
        with own_values(module) as own:
            bound = _bound_of_bias(module, own.get("weight"))
            for whole in (own[name] for name in ("bias", "weight") if name in own):
                some, is_vector = _some(whole), whole.dim() < 2
                is_constant = bool((some == some[:1]).all())
                if not is_constant and not (_fills(some, bound) if is_vector else _is_drawn(some)):
                    return False
                is_marked |= is_vector and is_constant and some.numel() > 1
                values += some.numel()
    return is_marked and values >= FEWEST


def _has_seen_data(model: nn.Module) -> bool:
    """Whether running means are no longer 0."""
    buffers = (module._buffers.get("running_mean") for module in model.modules())
    return any(mean is not None and not mean.is_meta and bool(mean.any()) for mean in buffers)


def _some(values: Tensor) -> Tensor:
    """Values of a parameter, evenly spread, float64 on the CPU."""
    flat = values.detach().reshape(-1)
    return flat[:: -(-len(flat) // LOOKED_AT) or 1].to("cpu", torch.float64)


def _bound_of_bias(module: nn.Module, weight: Tensor | None) -> float:
    """The bound within which torch draws a layer's bias; 0 for layers whose bias it does not draw."""
    draws = isinstance(module, WITH_FAN_IN) and weight is not None and weight.dim() > 1
    return 1 / math.sqrt(weight[0].numel()) if draws and weight is not None else 0.0


def _fills(values: Tensor, bound: float) -> bool:
    """Whether values may be uniform in +-bound, by their range and their mean square."""
    if bound == 0 or bool(values.abs().max() > bound * (1 + 1e-6)):
        return False
    error = math.sqrt(0.8 / values.numel())  # of the mean square of a uniform distribution
    return abs(float(values.square().mean()) * 3 / bound**2 - 1) <= SIGMAS * error


def _is_drawn(values: Tensor) -> bool:
    """Whether the mean is 0 and the tails are no longer than a normal distribution's; a few outliers do not count."""
    count = values.numel()
    if count < FEWEST:
        return True
    middle, high = map(float, torch.quantile(values.abs(), values.new_tensor([0.5, 0.95])))
    error = SIGMAS / math.sqrt(count)
    return abs(float(values.mean())) <= error * high and NORMAL - error <= middle / high <= UNIFORM + error
