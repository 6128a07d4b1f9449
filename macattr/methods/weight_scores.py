r"""Layer scores from the weights alone, by their singular values or sizes: they need no image.

A weight is the matrix (out, rest): a convolution's kernels are its rows. A parameter of three dimensions outside of
convolutions is a stack of matrices, such as the experts of a mixture. A parametrised weight is the one that the forward
pass uses. A layer without any matrix, such as a norm, scores 0.
"""

__all__ = ["condition_number", "condition_score", "matrices_of", "mean_magnitude", "spectral_score", "spectral_snr"]

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from macattr.layers.table import describe_layers
from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.statistics.class_shares import class_shares
from macattr.weights.values import missing_values, present, values_of

EPS = 1e-8
"""Keeps the condition number of a singular matrix finite, as KappaTune does."""

NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution."""

COMPUTED = ("_v", "_orig")
"""Ends of the parameters from which hooks of torch.nn.utils compute a weight (weight_norm; spectral_norm, prune)."""


def condition_score(task: Task, samples: Sequence[Sample]) -> list[float]:
    r"""Reciprocal condition number of every layer, :math:`1 / \bar\kappa` in (0, 1]: the best conditioned first.

    KappaTune trains the layers of the lowest :math:`\kappa`. The reciprocal ranks them first and stays positive, as
    learning rates and ranks by score need it. :math:`\bar\kappa` is the mean over a layer's matrices. A weight of zeros
    has no condition, so its layer scores 0 (peft's ``find_kappa_target_modules`` gives it 0 and trains it first).

    Raises:
        ValueError: If a weight has no values, holds integers, NaN or infinity.

    Source:
        KappaTune (arXiv:2506.16289).
    """
    means = [_mean(name, module, condition_number) for name, module in task.layers.items()]
    return [0.0 if math.isnan(mean) else 1 / mean for mean in means]


def condition_number(matrix: Float[Tensor, "rows columns"]) -> float:
    r"""Condition number :math:`\sigma_{\max} / (\sigma_{\min} + 10^{-8})`; infinity for zeros.

    Example:
        >>> condition_number(torch.diag(torch.tensor([4.0, 2.0])))
        2.0
    """
    values = torch.linalg.svdvals(matrix)
    return float(values[0] / (values[-1] + EPS)) if values[0] > 0 else math.inf


def spectral_score(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Place of every layer's :func:`spectral_snr` among the layers of its type, in [0, 1).

    Spectrum trains the top share p of every type, because the ratio depends on a weight's shape. The score is 1 - rank
    / number of layers of the type, so a threshold of 1 - p selects just these layers, and the top share p of all layers
    is nearly the same. A type is a role inside of blocks (``mlp.fc1``), and a class of modules outside of them.

    Raises:
        ValueError: As :func:`condition_score`.

    Source:
        Spectrum (arXiv:2406.06623). It gives every norm an infinite ratio; here a layer without a matrix scores 0.
    """
    ratios = np.array([_mean(name, module, spectral_snr) for name, module in task.layers.items()])
    types = [(layer.role, "") if layer.block else ("", layer.type) for layer in describe_layers(dict(task.layers))]
    shares = class_shares(ratios, types)
    return [0.0 if math.isnan(ratio) else float(share) for ratio, share in zip(ratios, shares, strict=True)]


def spectral_snr(matrix: Float[Tensor, "rows columns"]) -> float:
    r"""Signal-to-noise ratio of a matrix: its singular values above what noise would have, against the others.

    .. math:: \frac{\sum_{S > \varepsilon} S}{\sum_{S \le \varepsilon} S} \cdot \frac{1}{S_{\max}}, \qquad
        \varepsilon = \frac{\mathrm{IQR}(S)}{1.349} \left(1 + \sqrt{\beta}\right)

    with :math:`\beta` the short over the long side: the edge of the Marchenko-Pastur law. Infinity if no value is
    noise, as for an orthogonal matrix; 0 for zeros.

    Source:
        Spectrum (arXiv:2406.06623).

    Example:
        >>> round(spectral_snr(torch.diag(torch.tensor([8.0, 3.0, 2.0, 1.0, 0.5]))), 4)  # 11 above 2.97, 3.5 below
        0.3929
    """
    values = torch.linalg.svdvals(matrix)
    low, high = torch.quantile(values, values.new_tensor([0.25, 0.75]))
    edge = (high - low) / NORMAL_IQR * (1 + math.sqrt(min(matrix.shape) / max(matrix.shape)))
    signal, noise = (float(values[part].sum()) for part in (values > edge, values <= edge))
    if not values[0] > 0:
        return 0.0
    return signal / noise / float(values[0]) if noise else math.inf


def _mean(name: str, module: nn.Module, measure: Callable[[Tensor], float]) -> float:
    """Mean of a measure over the matrices of a layer; NaN without any."""
    measures = [measure(matrix) for matrix in matrices_of(name, module)]
    return sum(measures) / len(measures) if measures else math.nan


@torch.no_grad()
def matrices_of(name: str, module: nn.Module) -> list[Tensor]:
    """Every matrix among the weights of a layer, at least in float32.

    Args:
        name: Its name, for the error message.
        module: The layer.

    Raises:
        ValueError: If a weight is on the meta device, holds integers, as quantised ones do, or NaN or infinity.
    """
    found = []
    for weight in _used_weights(name, module):
        if weight.dim() < 2 or not weight.numel():
            continue
        _refuse_integers(name, weight)
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{name!r} holds NaN or infinity: mend the checkpoint, or leave it out of `layers`.")
        wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        found += list(wide) if wide.dim() == 3 and not isinstance(module, _ConvNd) else [_as_matrix(wide, module)]
    return found


@torch.no_grad()
def mean_magnitude(name: str, module: nn.Module) -> float:
    """Mean absolute value of all weights of a layer, as the forward pass uses them; 0 without any.

    Args:
        name: Its name, for the error message.
        module: The layer.

    Raises:
        ValueError: If a weight is on the meta device, or holds integers, as quantised ones do.
    """
    total, count = 0.0, 0
    for weight in _used_weights(name, module):
        _refuse_integers(name, weight)
        total += float(weight.abs().sum(dtype=torch.float64))
        count += weight.numel()
    return total / max(1, count)


def _used_weights(name: str, module: nn.Module) -> list[Tensor]:
    """Values of the weights of a layer."""
    if missing_values(module):
        raise ValueError(f"{name!r} is on the meta device: load its weights first, or leave it out of `layers`.")
    with present(module):
        return [values_of(weight) for weight in _weights(module).values()]


def _refuse_integers(name: str, weight: Tensor) -> None:
    """Raise for the packed values of a quantised weight."""
    if not (weight.is_floating_point() or weight.is_complex()):
        raise ValueError(
            f"{name!r} holds {str(weight.dtype).removeprefix('torch.')} values, which are no weights before they "
            "are dequantised: load the network without quantisation, or leave the layer out of `layers`."
        )


def _as_matrix(weight: Tensor, module: nn.Module) -> Tensor:
    """A weight as (out, rest); a transposed convolution keeps it as (in, out / groups, ...)."""
    if isinstance(module, _ConvTransposeNd):
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that a layer owns by name, with the weight that it computes in place of those it comes from."""
    own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    for name in list(own):
        base = next((name.removesuffix(end) for end in COMPUTED if name.endswith(end)), name)
        if base != name and isinstance(computed := getattr(module, base, None), Tensor):
            own = {key: value for key, value in own.items() if key not in (name, f"{base}_g")} | {base: computed}
    if is_parametrized(module):
        parametrizations = module.get_submodule("parametrizations")
        with _in_eval_mode(parametrizations):
            own |= {name: getattr(module, name) for name in parametrizations._modules}
    return own


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """A spectral norm moves its buffers whenever its weight is read in training mode."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
