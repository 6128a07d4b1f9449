"""One forward pass at some nodes of a path: its inputs, its further arguments, and the objective of its output."""

__all__ = ["evaluate", "leaves_at", "objective_at", "repeat_argument"]

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from macattr.paths.inputs import Path
from macattr.paths.objectives import Objective
from macattr.sweep.guard import undisturbed


def evaluate(objective: Objective, output: Any, batch: int, count: int, check: bool = False) -> Float[Tensor, "k b"]:
    """Objective at every node, one node at a time.

    Args:
        objective: (B, ...) to (B,).
        output: What the model returned for ``count`` nodes of ``batch`` samples.
        batch: Samples at a node.
        count: Nodes.
        check: Also make sure that the objective does not mix samples.

    Raises:
        ValueError: If output or objective are of the wrong kind, or samples are mixed.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"the model must return one tensor, got {type(output).__name__}: wrap it in a function.")
    if not output.requires_grad:
        raise ValueError("the model's output does not depend on its inputs differentiably.")
    if output.dim() == 0 or output.shape[0] != batch * count:
        raise ValueError(f"the model must return (B, ...), got shape {tuple(output.shape)} for {batch * count} rows.")
    wide = output if output.element_size() >= 4 else output.float()
    values = []
    for part in wide.chunk(count):
        value = objective(part)
        if not isinstance(value, Tensor) or value.shape != (batch,):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the objective must return one number per sample, shape ({batch},), got {shape}.")
        if not value.requires_grad:
            raise ValueError("the objective does not depend on the output differentiably: it has no gradient.")
        values.append(value)
    if check and batch > 1:
        alone = wide[:batch].detach().requires_grad_()  # the output itself may be a probed tensor, with its hook
        (gradient,) = torch.autograd.grad(objective(alone)[0], alone)
        if bool(gradient[1:].abs().sum() > 0):
            raise ValueError("the objective mixes the batch: a sample's value must depend on that sample alone.")
    return torch.stack(values)


def objective_at(
    model: Callable[..., Any], path: Path, alpha: float, objective: Objective, forward_args: tuple[Any, ...] = ()
) -> Float[Tensor, " b"]:
    """Objective of every sample at one position of the path.

    Args:
        model: Network, or a function that calls it.
        path: Path through its inputs.
        alpha: Position, within the path's interval.
        objective: What of the output is explained, (B, ...) to (B,).
        forward_args: Further positional arguments of the model.
    """
    with undisturbed(model):
        inputs = leaves_at(path, torch.tensor([alpha], dtype=torch.float64))
        arguments = [repeat_argument(argument, inputs[0].shape[0], 1) for argument in forward_args]
        output = model(*(leaf.clone() for leaf in inputs), *arguments)
        return evaluate(objective, output, inputs[0].shape[0], 1)[0].detach()


def leaves_at(path: Path, alpha: Tensor) -> tuple[Tensor, ...]:
    """Model inputs at some nodes, ready for gradients."""
    leaves = tuple(tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in path.at(alpha))
    if not all(leaf.is_floating_point() for leaf in leaves):
        raise ValueError("inputs must be floating-point tensors: integers have no path and no gradient.")
    return leaves


def repeat_argument(argument: Any, batch: int, count: int) -> Any:
    """A forward argument for ``count`` nodes; inference tensors are copied because no backward pass can keep them."""
    if not isinstance(argument, Tensor):
        return argument
    normal = argument.clone() if argument.is_inference() else argument
    if count > 1 and argument.dim() and argument.shape[0] == batch:
        return normal.repeat(count, *[1] * (argument.dim() - 1))
    return normal
