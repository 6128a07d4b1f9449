"""Layer integrated gradients: straight lines between the layers' own values at the two ends of a path."""

__all__ = ["sweep_activations"]

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from macattr.paths.inputs import Path
from macattr.paths.objectives import Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import GradientSum
from macattr.sweep.guard import refuse_stochastic, undisturbed
from macattr.sweep.memory import ROWS_ON_CPU
from macattr.sweep.nodes import evaluate, leaves_at, repeat_argument
from macattr.sweep.probes import Site, probing


def sweep_activations(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    objective: Objective,
    *,
    forward_args: tuple[Any, ...] = (),
    internal_batch_size: int | None = None,
    at_input: bool = False,
    grad_kwargs: Mapping[str, Any] | None = None,
    advance: Callable[[float], object] | None = None,
) -> dict[Site, tuple[Tensor, Tensor]]:
    """Mean gradients while all layers together walk a straight line between their own values at the path's two ends.

    The network runs on the input at the path's end, with the layers' tensors replaced; arguments as in :func:`trace`.

    Returns:
        For every site, the weighted mean of the gradient and the difference of the layer's values between the ends.

    Raises:
        ValueError: If ``internal_batch_size`` is below 1, a layer never runs, or objective or gradient are not finite.

    Warns:
        UserWarning: If a layer does not keep the batch first: nodes are then evaluated one at a time.
    """
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"`internal_batch_size` must be at least 1, got {internal_batch_size}.")
    refuse_stochastic(model)
    with undisturbed(model):
        start, end = (
            _record(model, layers, path, position[None], forward_args, at_input)
            for position in torch.tensor(path.interval, dtype=torch.float64)
        )
        if missing := set(layers) - {site.layer for site in end}:
            raise ValueError(f"layer {sorted(missing)[0]!r} never ran: leave it out.")
        inputs = leaves_at(path, torch.tensor(path.interval[1:], dtype=torch.float64))
        batch = inputs[0].shape[0]
        per_batch = min(max(1, (internal_batch_size or ROWS_ON_CPU) // batch), len(partition.nodes))
        if per_batch > 1:
            ends = torch.full((per_batch,), path.interval[1], dtype=torch.float64)
            together = _record(model, layers, path, ends, forward_args, at_input)
            wrong = [site for site in end if not _repeats(together[site], end[site], per_batch)]
            if wrong:
                warnings.warn(
                    f"layer {wrong[0]} does not keep the batch first. Nodes are evaluated one at a time.", stacklevel=4
                )
                per_batch = 1
        mean = GradientSum(partition.weights)
        unit = (partition.nodes - path.interval[0]) / (path.interval[1] - path.interval[0])
        for first in range(0, len(unit), per_batch):
            alpha = unit[first : first + per_batch].tolist()
            leaves: dict[Site, Tensor] = {}

            def replace(
                site: Site, tensor: Tensor, alpha: list[float] = alpha, leaves: dict[Site, Tensor] = leaves
            ) -> Tensor:
                if site not in end:
                    return tensor
                line = torch.cat([start[site] + position * (end[site] - start[site]) for position in alpha])
                leaves[site] = line.requires_grad_()
                return leaves[site].clone()

            arguments = [repeat_argument(argument, batch, len(alpha)) for argument in (*inputs, *forward_args)]
            with probing(layers, replace, at_input):
                output = model(*(argument.clone() for argument in arguments[: len(inputs)]), *arguments[len(inputs) :])
            values = evaluate(objective, output, batch, len(alpha), check=first == 0)
            if not bool(values.isfinite().all()):
                raise ValueError(
                    f"the objective is not finite at alpha = {alpha[0]:.4g} ... {alpha[-1]:.4g} of the line."
                )
            gradients = torch.autograd.grad(
                values.sum(), list(leaves.values()), **({"allow_unused": True} | dict(grad_kwargs or {}))
            )
            for (site, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                known = torch.zeros_like(leaf) if gradient is None else gradient.detach()
                if not bool(known.isfinite().all()):
                    raise ValueError(f"the objective's gradient is not finite at layer {site}.")
                mean.update(site, leaf.detach(), known, first, len(alpha))
            if advance:
                advance(len(alpha))
    return {site: (mean.value(site), end[site] - start[site]) for site in end}


def _record(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    alpha: Tensor,
    forward_args: tuple[Any, ...],
    at_input: bool,
) -> dict[Site, Tensor]:
    """Values of the layers at some positions of the path."""
    recorded: dict[Site, Tensor] = {}

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            recorded[site] = tensor.detach().clone()
        return tensor

    inputs = path.at(alpha)
    arguments = [repeat_argument(argument, len(inputs[0]) // len(alpha), len(alpha)) for argument in forward_args]
    with torch.no_grad(), probing(layers, visit, at_input):
        model(*(tensor.clone() for tensor in inputs), *arguments)
    return recorded


def _repeats(together: Tensor, alone: Tensor, count: int) -> bool:
    """Whether rows that belong to ``count`` equal nodes are that many times those of one node."""
    if together.shape != (alone.shape[0] * count, *alone.shape[1:]):
        return False
    tolerance = 0.1 if alone.element_size() < 4 else 1e-3
    scale = float(alone.abs().max()) if alone.numel() else 0.0
    if not math.isfinite(scale):
        return True  # what is not finite is found later
    return torch.allclose(together.reshape(count, *alone.shape), alone, rtol=0, atol=tolerance * scale + 1e-12)
