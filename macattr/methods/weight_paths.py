r"""Attribution in weight space: which parameters the change of a loss along a path of checkpoints goes to."""

__all__ = [
    "LossChange",
    "adam_states",
    "allocate_loss_change",
    "by_filter",
    "by_layer",
    "call_with",
    "dense_gradient",
    "refine_states",
    "straight_weights",
]

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from macattr.layers.parameters import copy_network, layer_of
from macattr.layers.wrappers import inner_network
from macattr.sweep.checkpoints import plain_checkpoints
from macattr.sweep.guard import modules_of, same_state, without_autocast_cache

State = Mapping[str, Tensor]
Loss = Callable[[Callable[..., Any]], Tensor]
"""Given a function to call in the model's place, with the model's own arguments, the loss: one number."""
Reduction = Callable[[State], dict[str, Tensor]]
Rate = float | Callable[[int], float]
"""A learning rate, or one for every step."""


@dataclass(frozen=True, eq=False)
class LossChange:
    """A loss's change along a path in weight space, allocated to the parameters.

    Args:
        parts: Allocated change, negative where it lowers the loss: in the shape of every parameter by its name, or
            what a reduction made of that. float32, or float64 for float64 parameters.
        losses: The loss at every state, float64.
        residual: Sum of all parameters' parts minus the loss's change: the step error.
    """

    parts: dict[str, Tensor]
    losses: Float[Tensor, " n"]
    residual: float


def straight_weights(start: State, end: State, n_steps: int) -> Iterator[dict[str, Tensor]]:
    r"""The straight line between two checkpoints: :math:`\theta_j = \theta_0 + \tfrac{j}{N} (\theta_N - \theta_0)`.

    Args:
        start: Parameters by name at the start, as ``dict(model.named_parameters())``; no buffers.
        end: The same parameters at the end.
        n_steps: Number N of increments, at least 1, between N + 1 states.

    Raises:
        ValueError: If names, shapes or dtypes differ, or an entry is not floating-point.

    Source:
        Xie et al. 2021 (FAIG): the straight line between a baseline and a target network.

    Example:
        >>> [float(state["w"]) for state in straight_weights({"w": torch.tensor(0.0)}, {"w": torch.tensor(1.0)}, 2)]
        [0.0, 0.5, 1.0]
    """
    _check_alike(end, start, "the start")
    return refine_states([start, end], n_steps)


def refine_states(states: Iterable[State], n_steps: int) -> Iterator[dict[str, Tensor]]:
    """The same polyline with every segment in ``n_steps`` increments: a smaller step error along the same path.

    Args:
        states: Corners of the polyline.
        n_steps: Increments of each segment, at least 1.

    Raises:
        ValueError: As :func:`straight_weights`; where states differ, when they are reached.
    """
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be at least 1, got {n_steps}.")
    return _refined(states, n_steps)


def _refined(states: Iterable[State], n_steps: int) -> Iterator[dict[str, Tensor]]:
    """States of every segment but its last, then the last of all."""
    end: State | None = None
    for start, end in pairwise(states):
        _check_alike(end, start, "the state before")
        for step in range(n_steps):
            yield {name: torch.lerp(start[name].detach(), end[name].detach(), step / n_steps) for name in start}
    if end is None:
        raise ValueError("a path in weight space needs at least two states.")
    yield {name: tensor.detach() for name, tensor in end.items()}


def adam_states(
    model: nn.Module, loss: Loss, n_steps: int, lr: Rate, trained: Collection[str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """The ``n_steps + 1`` states of a short fine-tune with Adam, each made when it is asked for.

    A copy of the model is trained, in the mode that the model is in. The model keeps its parameters, buffers and
    gradients.

    Args:
        model: Network to start from.
        loss: Loss that is minimised, from a function to call in the model's place to one number; it may draw another
            batch at every call.
        n_steps: Number of Adam steps, at least 1.
        lr: Learning rate of Adam, positive, or a function to it from the number of the step, from 0; its other settings
            are torch's defaults.
        trained: Names of the parameters that are trained, as in ``model.named_parameters()``; None trains all, those
            that are frozen in the model too.

    Raises:
        ValueError: If an argument is out of range, a name is not in the model, the loss is not one finite number, or it
            does not depend on the parameters.

    Source:
        Lan et al. 2019 (LCA): the path that training itself takes.
    """
    if n_steps < 1 or (not callable(lr) and not 0 < lr < math.inf):
        raise ValueError(f"`n_steps` must be at least 1 and `lr` positive, got {n_steps} and {lr}.")
    names = list(dict(model.named_parameters())) if trained is None else list(trained)
    if unknown := set(names) - dict(model.named_parameters()).keys():
        raise ValueError(f"`trained` names {min(unknown)!r}, which is no parameter of the model.")
    return _trained(copy_network(model), loss, n_steps, lr if callable(lr) else lambda step: lr, names)


def _trained(
    model: nn.Module, loss: Loss, n_steps: int, lr: Callable[[int], float], names: Collection[str]
) -> Iterator[dict[str, Tensor]]:
    """Copies of all parameters before, between and after the steps that train the named ones."""
    parameters = dict(model.named_parameters())
    moving = {name: parameters[name].requires_grad_() for name in names}
    for name in parameters.keys() - moving.keys():
        parameters[name].requires_grad_(False)
    optimiser = torch.optim.Adam(moving.values())
    for step in range(n_steps + 1):
        yield {name: parameter.detach().clone() for name, parameter in parameters.items()}
        if step < n_steps:
            with same_state(modules_of(model)), without_autocast_cache():
                _, gradients = _loss_and_gradients(loss, model, moving, step)
            for name, parameter in moving.items():
                parameter.grad = gradients[name]
            optimiser.param_groups[0]["lr"] = lr(step)
            optimiser.step()


def allocate_loss_change(
    model: nn.Module, states: Iterable[State], losses: Sequence[Loss], reduction: Reduction = dict
) -> list[LossChange]:
    r"""The change of each loss along a polyline in weight space, allocated to every parameter.

    .. math:: A_p = \sum_j \tfrac12 \left(\nabla_p L(\theta_j) + \nabla_p L(\theta_{j+1})\right)
        \odot (\theta_{j+1} - \theta_j)_p

    It is complete whatever the network's skip connections: all parts together are :math:`L(\theta_N) - L(\theta_0)`
    up to the step error, which falls with the square of the step and is 0 for quadratic losses.

    One forward and backward pass for each state and loss. Held at a time are three states, one increment, one gradient
    and its product, and the parts of every loss in the size that ``reduction`` leaves them: so a loss for each of many
    images takes no more memory than one, if reduced by layer.

    Args:
        model: Network, run in the mode that it is in and with its own buffers at every state. It stays as it is.
        states: All of its parameters by name, at every corner of the path: :func:`straight_weights`,
            :func:`adam_states` or any other; consumed one by one.
        losses: Losses whose change is allocated, each from a function to call in the model's place to one number, for
            example ``lambda call: (call(image) - clean).abs().mean()``: one for all images, or one for each.
        reduction: Linear function of all the parts that makes them smaller, applied at every state.

    Returns:
        One :class:`LossChange` for each loss.

    Raises:
        ValueError: If there are fewer than two states, a state's names or shapes are not those of the model, or a loss
            or its gradient is not finite or does not depend on the parameters.

    Source:
        Lan et al. 2019 (LCA) along a training run, with the trapezoid in place of their Runge-Kutta steps; Xie et al.
        2021 (FAIG, Eq. 6) on a straight line, with the trapezoid in place of a left sum.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> start = {"weight": torch.tensor([[1.0]]), "bias": torch.tensor([0.0])}
        >>> end = {"weight": torch.tensor([[3.0]]), "bias": torch.tensor([1.0])}
        >>> square = lambda call: call(torch.ones(1)).square().sum()
        >>> [change] = allocate_loss_change(model, [start, end], [square])
        >>> change.parts["weight"], change.parts["bias"], change.losses
        (tensor([[10.]]), tensor([5.]), tensor([ 1., 16.], dtype=torch.float64))
    """
    sums = [_PathSum(loss, reduction) for loss in losses]
    own, before, now, count = dict(model.named_parameters()), None, None, 0
    for after in chain(states, [None]):  # a window of three states that slides over the path and one beyond it
        if after is not None:
            _check_alike(after, own, "the model")
        if now is not None:
            start, end = now if before is None else before, now if after is None else after
            # Every gradient meets half of both neighbouring increments, so that none is kept from state to state.
            step = {name: (_wide(end[name]) - _wide(start[name])) / 2 for name in own}
            for path_sum in sums:
                path_sum.update(model, now, step, count)
            count += 1
        before, now = now, after
    if count < 2:
        raise ValueError(f"a path in weight space needs at least two states, got {count}.")
    return [path_sum.value() for path_sum in sums]


class _PathSum:
    """The allocation of one loss so far."""

    def __init__(self, loss: Loss, reduction: Reduction) -> None:
        self.loss = loss
        self.reduction = reduction
        self.parts: dict[str, Tensor] = {}
        self.losses: list[float] = []
        self.allocated = 0.0

    def update(self, model: nn.Module, state: State, step: State, index: int) -> None:
        """Take in a state and what its gradient is multiplied with."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.items()}  # frozen parameters too
        value, gradients = _loss_and_gradients(self.loss, partial(call_with, model, leaves), leaves, index)
        products = {name: _wide(gradients[name]) * step[name] for name in step}
        self.losses.append(value)
        self.allocated += sum(float(product.sum(dtype=torch.float64)) for product in products.values())
        for name, part in self.reduction(products).items():
            self.parts[name] = part if name not in self.parts else self.parts[name].add_(part)

    def value(self) -> LossChange:
        """The whole path's."""
        losses = torch.tensor(self.losses, dtype=torch.float64, device="cpu")
        return LossChange(self.parts, losses, self.allocated - float(losses[-1] - losses[0]))


def call_with(model: nn.Module, weights: State, *arguments: Any, **keywords: Any) -> Any:
    """Output of a network with other parameters, also of one inside of DataParallel. All else stays as it is.

    What the network keeps from a call, such as a cache of what it made of its parameters, is taken away again.

    Args:
        model: Network.
        weights: Some or all of its parameters by name.
        *arguments: Of the network.
        **keywords: Of the network.
    """
    network, prefix = inner_network(model)
    with plain_checkpoints(), same_state(modules_of(network)):
        inside = {name.removeprefix(prefix): value for name, value in weights.items()}
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # training mode writes to them
        return functional_call(network, buffers | inside, arguments, keywords)


def by_layer(parts: State) -> dict[str, Tensor]:
    """Sum of the parts of every layer's own parameters, by the name of the module that owns them; they stay complete.

    Args:
        parts: Allocation by parameter name.

    Example:
        >>> by_layer({"0.weight": torch.tensor([1.0, 2.0]), "0.bias": torch.tensor(4.0), "1.weight": torch.tensor(8.0)})
        {'0': tensor(7.), '1': tensor(8.)}
    """
    sums: dict[str, Tensor] = {}
    for name, part in parts.items():
        owner = layer_of(name)
        sums[owner] = sums[owner] + part.sum() if owner in sums else part.sum()
    return sums


def by_filter(parts: State) -> dict[str, Tensor]:
    """Sum of the parts of every filter: (out,) for each weight of a convolution or linear layer, by its name.

    Biases, norms and other vectors are left out. FAIG's own score is not linear, so no ``reduction``: the sum of
    ``parts[name].abs()`` over every 2-d kernel, its difference between two degradations, the mean over images.

    Args:
        parts: Allocation by parameter name. Filters are the first dimension, which in a transposed convolution counts
            its input channels.

    Raises:
        ValueError: If there is no weight with two or more dimensions.

    Example:
        >>> by_filter({"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": torch.ones(2)})
        {'weight': tensor([3., 7.])}
    """
    weights = {name: part for name, part in parts.items() if name.endswith("weight") and part.dim() >= 2}
    if not weights:
        raise ValueError(f"no weight of two or more dimensions among {', '.join(parts) or 'no parts'}.")
    return {name: part.flatten(1).sum(1) for name, part in weights.items()}


@torch.enable_grad()
def _loss_and_gradients(
    loss: Loss, call: Callable[..., Any], leaves: State, index: int
) -> tuple[float, dict[str, Tensor]]:
    """The loss at a state and its gradient with respect to every parameter."""
    value = loss(call)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"a loss must return a tensor of one number, got {got}: take its mean, or one loss per image.")
    number = float(value.detach())
    if not math.isfinite(number):
        raise ValueError(
            f"the loss is {number} at state {index}: lower the learning rate, compute in float32, or mend the "
            "checkpoint."
        )
    found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True) if value.requires_grad else ()
    if all(gradient is None for gradient in found):
        raise ValueError("the loss does not depend on the parameters: compute it with the function that it is given.")
    gradients = {
        name: dense_gradient(gradient, leaf) for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise ValueError(f"the gradient of the loss with respect to {name} is not finite at state {index}.")
    return number, gradients


def dense_gradient(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """A gradient with all its values; zeros where the loss does not depend on the parameter.

    Args:
        gradient: As autograd has it; sparse for embeddings that ask for that.
        parameter: What it belongs to.
    """
    return torch.zeros_like(parameter) if gradient is None else gradient.detach().to_dense()


def _check_alike(state: State, reference: State, whose: str) -> None:
    """The same names, shapes and dtypes, all floating-point."""
    missing, unknown = sorted(reference.keys() - state.keys()), sorted(state.keys() - reference.keys())
    if missing or unknown:
        raise ValueError(
            f"a state must have the parameters of {whose}: {len(missing)} missing {missing[:3]}, {len(unknown)} too "
            f"many {unknown[:3]}. Take dict(model.named_parameters()), without buffers or a 'module.' prefix."
        )
    for name, tensor in state.items():
        other = reference[name]
        if tensor.is_complex():
            raise ValueError(f"{name} holds complex weights: the paths here go through floating-point parameters.")
        if tensor.shape != other.shape or tensor.dtype != other.dtype or not tensor.is_floating_point():
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} of {tensor.dtype} in a state, {tuple(other.shape)} of {other.dtype} "
                f"in {whose}: states hold floating-point parameters of the same shape."
            )


def _wide(tensor: Tensor) -> Tensor:
    """The values in at least float32."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
