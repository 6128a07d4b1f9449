"""Layer integrated gradients: straight lines between the layers' own values at the two ends of a path."""

__all__ = ["sweep_activations"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from macattr.arguments import whole_number
from macattr.paths.inputs import Path
from macattr.paths.objectives import Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import GradientSum
from macattr.sweep.guard import modules_of, refuse_random_draws, undisturbed
from macattr.sweep.memory import ROWS_ON_CPU
from macattr.sweep.nodes import Forward, evaluate, leaves_at, no_derivative, single_output
from macattr.sweep.probes import Site
from macattr.sweep.survey import Survey, never_ran, refuse_split, survey_inputs
from macattr.user_warnings import warn_user
from macattr.weights.processes import split_groups


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
        ValueError: If ``internal_batch_size`` is below 1, a layer never runs, the model is not a function of its
            inputs, or objective or gradient are not finite.

    Warns:
        UserWarning: If a layer that changes along the path does not keep the batch first: nodes are then evaluated one
            at a time.
    """
    if internal_batch_size is not None:
        internal_batch_size = whole_number("internal_batch_size", internal_batch_size)
    with undisturbed(model, layers.values()) as rewind:
        forward = Forward(model, layers, path, rewind, forward_args, at_input)
        with refuse_random_draws(model):
            start, end = (
                _record(forward, torch.tensor([alpha], dtype=torch.float64, device="cpu")) for alpha in path.interval
            )
        if missing := [name for name in layers if name not in {site.layer for site in end.values}]:
            raise ValueError(never_ran(missing))
        _refuse_moving(start.values, end.values)
        look = _look(forward, partition)
        lines = _Lines(forward, start, end, objective, {"allow_unused": True} | dict(grad_kwargs or {}))
        count = lines.nodes_per_batch(len(partition.nodes), internal_batch_size)
        mean = GradientSum(partition.weights)
        unit = (partition.nodes - path.interval[0]) / (path.interval[1] - path.interval[0])
        for first in range(0, len(unit), count):
            alpha = unit[first : first + count].tolist()
            lines.fold(mean, alpha, first)
            if advance:
                advance(len(alpha))
    found = {site: (mean.value(site), end.values[site] - start.values[site]) for site in end.values}
    if look is None:
        return found
    return {site: (look.whole(site, gradient), look.whole(site, change)) for site, (gradient, change) in found.items()}


def _refuse_moving(start: Mapping[Site, Tensor], end: Mapping[Site, Tensor]) -> None:
    """Raise if layers run, or have some shape, at one end of the path only: no line joins their values."""
    for site in sorted(start.keys() | end.keys()):
        shapes = [tuple(values[site].shape) if site in values else "nothing" for values in (start, end)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"layer {site} returns {shapes[0]} at the start of the path and {shapes[1]} at its end: which layers "
                "run, and their shapes, must not depend on the input. Leave the layer out of `layers`."
            )


def _look(forward: Forward, partition: Partition) -> Survey | None:
    """The survey of a tensor parallel network, which knows how outputs are divided; None for others."""
    if not split_groups(modules_of(forward.model, forward.layers.values()).values()):
        return None
    look = survey_inputs(forward, leaves_at(forward.path, partition.nodes[:1]))
    refuse_split([name for name in forward.layers if name in look.split])
    return look


@dataclass(frozen=True)
class _Recording:
    """Values of the layers at some positions of the path, and the model's output there."""

    values: dict[Site, Tensor]
    output: Tensor


def _record(forward: Forward, alpha: Tensor) -> _Recording:
    """One forward pass without gradients."""
    values: dict[Site, Tensor] = {}

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            values[site] = tensor.detach().clone()
        return tensor

    inputs = leaves_at(forward.path, alpha)
    with torch.no_grad():
        output = single_output(forward(inputs, len(alpha), visit))
    return _Recording(values, output)


@dataclass
class _Lines:
    """Straight lines of all layers between their values at the two ends of the path."""

    forward: Forward
    start: _Recording
    end: _Recording
    objective: Objective
    grad_kwargs: Mapping[str, Any]
    inputs: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = leaves_at(
            self.forward.path, torch.tensor(self.forward.path.interval[1:], dtype=torch.float64, device="cpu")
        )

    @property
    def batch(self) -> int:
        """Samples at one node."""
        return self.inputs[0].shape[0]

    def nodes_per_batch(self, n_nodes: int, internal_batch_size: int | None) -> int:
        """How many nodes share a forward pass; a second pass at the path's end shows whether they may."""
        count = min(max(1, (internal_batch_size or ROWS_ON_CPU) // self.batch), n_nodes)
        repeated = torch.full((count,), self.forward.path.interval[1], dtype=torch.float64, device="cpu")
        again = _record(self.forward, repeated)
        wrong = [site for site, value in self.end.values.items() if not _repeats(again.values.get(site), value, count)]
        if wrong and count > 1:
            if moving := [site for site in wrong if not self._is_shared(site, again.values.get(site))]:
                warn_user(f"layer {moving[0]} does not keep the batch first. Nodes are evaluated one at a time.")
            return 1
        if wrong or not _repeats(again.output, self.end.output, count):
            raise ValueError(
                f"the model is not a function of its inputs: {f'layer {wrong[0]}' if wrong else 'the output'} changes "
                "from one forward pass to the next, or with the other rows of a forward pass. Switch off noise, "
                "counters and caches, or pass `internal_batch_size=1`."
            )
        return count

    def _is_shared(self, site: Site, together: Tensor | None) -> bool:
        """Whether all nodes share one tensor of a layer, which stays as it is along the path."""
        start, end = self.start.values.get(site), self.end.values[site]
        return all(value is not None and torch.equal(value, end) for value in (start, together))

    def fold(self, mean: GradientSum, alpha: list[float], first: int) -> None:
        """Feed the mean with the gradients at some positions of the lines."""
        leaves: dict[Site, Tensor] = {}

        def replace(site: Site, tensor: Tensor) -> Tensor:
            if site not in self.end.values:
                return tensor
            start, end = self.start.values[site], self.end.values[site]
            leaves[site] = torch.cat([start + position * (end - start) for position in alpha]).requires_grad_()
            return leaves[site].clone()

        inputs = tuple(leaf.repeat(len(alpha), *[1] * (leaf.dim() - 1)) for leaf in self.inputs)
        output = self.forward(inputs, len(alpha), replace)
        values = evaluate(self.objective, output, self.batch, len(alpha), check=first == 0)
        if not bool(values.isfinite().all()):
            raise ValueError(f"the objective is not finite at alpha = {alpha[0]:.4g} ... {alpha[-1]:.4g} of the line.")
        gradients = torch.autograd.grad(values.sum(), list(leaves.values()), **self.grad_kwargs)
        for (site, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            slope = torch.zeros_like(leaf) if gradient is None else gradient.detach()
            if not bool(slope.isfinite().all()):
                raise ValueError(
                    f"the objective's gradient is not finite at layer {site}: {no_derivative(self.objective)}"
                )
            mean.update(site, leaf.detach(), slope, first, len(alpha))


def _repeats(together: Tensor | None, alone: Tensor, count: int) -> bool:
    """Whether rows that belong to ``count`` equal nodes are that many times those of one node."""
    if together is None or together.shape != (alone.shape[0] * count, *alone.shape[1:]):
        return False
    tolerance = 0.1 if alone.element_size() < 4 else 1e-3
    scale = float(alone.abs().max()) if alone.numel() else 0.0
    if not math.isfinite(scale):
        return True  # non-finite values are refused later
    return torch.allclose(together.reshape(count, *alone.shape), alone, rtol=0, atol=tolerance * scale + 1e-12)
