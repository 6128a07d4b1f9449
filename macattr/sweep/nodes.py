"""Forward passes at nodes of a path, and the objective of their output."""

__all__ = ["Forward", "evaluate", "leaves_at", "no_derivative", "objective_at", "repeat_rows", "single_output"]

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from macattr.paths.inputs import Path
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.sweep.guard import Rewind, modules_of, undisturbed
from macattr.sweep.probes import Visit, probing
from macattr.sweep.recompute import Recomputation
from macattr.weights.values import has_packed


@dataclass(frozen=True)
class Forward:
    """Forward passes of a model along a path, each from the same state of the model.

    Args:
        model: Network, or a function that calls it.
        layers: Modules to probe, by name.
        path: Source of the inputs.
        rewind: Puts the model's state back for a pass; see :func:`macattr.sweep.guard.undisturbed`.
        forward_args: Further positional arguments of the model, repeated for every node.
        at_input: Whether to probe the inputs of the layers instead of their outputs.
    """

    model: Callable[..., Any]
    layers: Mapping[str, nn.Module]
    path: Path
    rewind: Rewind
    forward_args: tuple[Any, ...] = ()
    at_input: bool = False

    def __call__(
        self,
        inputs: tuple[Tensor, ...],
        count: int,
        visit: Visit,
        names: Collection[str] | None = None,
        recomputation: Recomputation | None = None,
    ) -> Any:
        """Output of the model.

        Args:
            inputs: Model inputs at ``count`` nodes.
            count: Number of nodes.
            visit: Called for every probed tensor; see :func:`macattr.sweep.probes.probing`.
            names: Layers to probe; None for all.
            recomputation: Blocks that run again in the backward pass; None for none.
        """
        layers = {name: module for name, module in self.layers.items() if names is None or name in names}
        batch = inputs[0].shape[0] // count
        arguments = repeat_rows(self.forward_args, batch, count)
        calls: dict[str, int] = {}
        active = recomputation.active(layers, self.at_input, calls) if recomputation else nullcontext()
        with self.rewind(), probing(layers, visit, self.at_input, calls), active:
            return self.model(*(leaf.clone() for leaf in inputs), *arguments)

    @property
    def modules(self) -> list[nn.Module]:
        """All modules of the model, each once."""
        return list(modules_of(self.model, self.layers.values()).values())

    def output(self, inputs: tuple[Tensor, ...], count: int) -> Any:
        """Output of the model without probes and gradients."""
        packed = has_packed(self.modules)
        with torch.set_grad_enabled(packed):  # passes without gradients make bitsandbytes repack, see weights.values
            output = self(inputs, count, lambda _, tensor: tensor, ())
        return output.detach() if isinstance(output, Tensor) else output


def no_derivative(objective: Objective) -> str:
    """Why an objective's gradient may not be finite, and what to do.

    Args:
        objective: Which.
    """
    if isinstance(objective, GradientMagnitude) and objective.eps == 0:
        return "a gradient magnitude with eps = 0 has none on flat patches; pass `objective=GradientMagnitude()`."
    return "there, the network or the objective has no derivative."


def evaluate(objective: Objective, output: Any, batch: int, count: int, check: bool = False) -> Float[Tensor, "k b"]:
    """Objective at every node, one node at a time.

    Args:
        objective: (B, ...) to (B,).
        output: Output of the model for ``count`` nodes of ``batch`` samples.
        batch: Samples at a node.
        count: Nodes.
        check: Also make sure that the objective depends on its input alone and does not mix samples.

    Raises:
        ValueError: If output or objective are of the wrong kind, or samples are mixed.
    """
    output = single_output(output)
    if not output.requires_grad:
        raise ValueError("the model's output does not depend on its inputs differentiably.")
    if output.dim() == 0 or output.shape[0] != batch * count:
        raise ValueError(f"the model must return (B, ...), got shape {tuple(output.shape)} for {batch * count} rows.")
    wide = output if output.element_size() >= 4 else output.float()
    values = torch.stack([_value(objective, part, batch) for part in wide.chunk(count)])
    if check:
        _check_objective(objective, wide[:batch], values[0].detach())
    return values


def single_output(output: Any) -> Tensor:
    """The output of a model, which must be one tensor.

    Args:
        output: Whatever the model returned.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model must return one tensor, got {type(output).__name__}: wrap it in a torch.nn.Module whose "
            "forward returns one of them, for example `self.model(x)[-1]`."
        )
    return output


def _value(objective: Objective, part: Tensor, batch: int) -> Tensor:
    """Objective at one node, checked."""
    value = objective(part)
    if not isinstance(value, Tensor) or value.shape != (batch,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the objective must return one number per sample, shape ({batch},), got {shape}.")
    if value.is_complex():
        raise ValueError(
            "the objective must return real numbers, got complex ones: pass an `objective` that takes, for example, "
            "the output's absolute value first."
        )
    if not value.requires_grad:
        raise ValueError("the objective does not depend on the output differentiably: it has no gradient.")
    return value


def _check_objective(objective: Objective, output: Tensor, value: Tensor) -> None:
    """Raise if a second look at an output gives other values, or if a sample's value depends on other samples."""
    alone = output.detach().requires_grad_()  # the output itself may be a probed tensor, with its hook
    again = objective(alone)
    tolerance = 1e-4 * float(value.abs().max()) + 1e-12
    if value.isfinite().all() and not torch.allclose(again.detach(), value, rtol=0, atol=tolerance):
        raise ValueError("the objective is not a function of the output: a second call gives other values.")
    if len(value) > 1:
        (gradient,) = torch.autograd.grad(again[0], alone)
        if bool(gradient[1:].abs().sum() > 0):
            raise ValueError("the objective mixes the batch: a sample's value must depend on that sample alone.")


def objective_at(
    model: Callable[..., Any], path: Path, alpha: float, objective: Objective, forward_args: tuple[Any, ...] = ()
) -> Float[Tensor, " b"]:
    """Objective of every sample at one position of the path.

    Args:
        model: Network, or a function that calls it.
        path: Path through its inputs.
        alpha: Position, within the path's interval.
        objective: Scalar function of the output whose change is attributed, (B, ...) to (B,).
        forward_args: Further positional arguments of the model.
    """
    with undisturbed(model) as rewind:
        inputs = leaves_at(path, torch.tensor([alpha], dtype=torch.float64, device="cpu"))
        forward = Forward(model, {}, path, rewind, forward_args)
        output = forward(inputs, 1, lambda _, tensor: tensor)
        return evaluate(objective, output, inputs[0].shape[0], 1)[0].detach()


def leaves_at(path: Path, alpha: Tensor) -> tuple[Tensor, ...]:
    """Model inputs at some nodes, ready for gradients.

    Raises:
        ValueError: If they are not floating-point tensors with a batch of at least one sample.
    """
    leaves = tuple(tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in path.at(alpha))
    if not all(leaf.is_floating_point() for leaf in leaves):
        raise ValueError("inputs must be floating-point tensors: integers have no path and no gradient.")
    if not all(leaf.dim() and leaf.shape[0] for leaf in leaves):
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        raise ValueError(f"inputs must be batches (B, ...) of at least one sample, got {shapes}.")
    return leaves


def repeat_rows(arguments: Any, batch: int, count: int) -> Any:
    """Forward arguments for several nodes, always copies: a network may write into what it is given.

    Args:
        arguments: Any value; tensors inside of it whose first dimension is the batch are repeated.
        batch: Samples at one node.
        count: Nodes.
    """

    def repeated(tensor: Tensor) -> Tensor:
        own = tensor.detach()
        if count > 1 and own.dim() and own.shape[0] == batch:
            return own.repeat(count, *[1] * (own.dim() - 1))
        return own.clone()

    return pytree.tree_map_only(Tensor, repeated, arguments)
