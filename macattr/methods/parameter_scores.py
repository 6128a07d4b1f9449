r"""Layer scores from the gradient of a loss with respect to the layers' own parameters.

:math:`h_p` is the gradient of one image's loss with respect to parameter p of layer l, :math:`\bar h_p` its mean over
the images. A layer's parameters are those that it owns directly; a layer without any scores 0.
"""

__all__ = [
    "EPS",
    "adam_gain",
    "call_loss",
    "fisher",
    "gradient_moments",
    "loss_change_allocation",
    "loss_gradients",
    "parameter_vectors",
    "relative_gradient_norm",
    "signal_to_noise",
    "taylor",
    "weight_line",
]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from macattr.layers.parameters import own_parameters, own_values
from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.methods.weight_paths import (
    adam_states,
    allocate_loss_change,
    call_with,
    dense_gradient,
    straight_weights,
)
from macattr.sweep.guard import undisturbed
from macattr.weights.values import refuse_gradients

LCA_STEPS = 20
"""Optimiser steps of the fine-tuning along which the loss change is allocated."""

LCA_RATE = 1e-4
"""Its learning rate (Adam)."""

LCA_PRICE = f"{2 * LCA_STEPS + 1} an image"
"""Its cost in words."""

EPS = 1e-12
"""Keeps parameters without gradient at 0 instead of 0 / 0."""


def fisher(task: Task, sample: Sample) -> list[float]:
    r"""Empirical Fisher information of every layer: :math:`\sum_{p \in l} h_p^2`.

    Source:
        Sung et al. 2021 (FISH), summed over the layer.
    """
    return [float(h.double().square().sum()) for h in loss_gradients(task, sample, "the method 'fisher'")]


def relative_gradient_norm(task: Task, sample: Sample) -> list[float]:
    r"""Relative gradient norm of every layer: :math:`\lVert h_l \rVert / \lVert \theta_l \rVert`.

    Source:
        Lee et al. 2023, surgical fine-tuning ("RGN"), with a layer's tensors taken together.
    """
    gradients = (h.double() for h in loss_gradients(task, sample, "the method 'rgn'"))
    return [
        float(h.norm() / (w.double().norm() + EPS)) for h, w in zip(gradients, parameter_vectors(task), strict=True)
    ]


def signal_to_noise(task: Task, samples: Sequence[Sample]) -> list[float]:
    r"""Signal-to-noise ratio: the mean over a layer of :math:`\bar h_p^2 / (\mathrm{Var}\,h_p + \varepsilon)`.

    Source:
        Lee et al. 2023, surgical fine-tuning ("SNR").

    Raises:
        ValueError: With fewer than two images.
    """
    if len(samples) < 2:
        raise ValueError(f"the method 'snr' needs at least 2 images for a variance, got {len(samples)}.")
    scores = []
    for mean, square in gradient_moments(task, samples, "the method 'snr'"):
        variance = (square - mean.square()).clamp(min=0) * len(samples) / (len(samples) - 1)
        scores.append(float((mean.square() / (variance + EPS)).mean()) if mean.numel() else 0.0)
    return scores


def adam_gain(task: Task, samples: Sequence[Sample]) -> list[float]:
    r"""Loss decrease by a step of Adam, to first order: :math:`\sum_p \bar h_p^2 / \sqrt{E[h_p^2]}` times its rate.

    It is a step whose first moment is the mean gradient over the images and whose second moment is the mean square of
    their single gradients, as both are after many steps of one image each. Never negative.

    Raises:
        ValueError: If an image has no target and there is no loss, or a loss is not finite.
    """
    moments = gradient_moments(task, samples, "the method 'adam_gain'")
    return [float((mean.square() / (square.sqrt() + EPS)).sum()) for mean, square in moments]


def taylor(task: Task, samples: Sequence[Sample]) -> list[float]:
    r"""First-order change of the loss without a weight: the mean over a layer of :math:`|\theta_p \bar h_p|`.

    Source:
        GoRA (arXiv:2502.12171), which divides the ranks of adapters by it; Molchanov et al. 2019 for pruning.
    """
    moments = gradient_moments(task, samples, "the method 'taylor'")
    return [
        float((weights * mean).abs().mean()) if mean.numel() else 0.0
        for weights, (mean, _) in zip(parameter_vectors(task), moments, strict=True)
    ]


def loss_change_allocation(task: Task, samples: Sequence[Sample]) -> list[float]:
    """Decrease of the images' mean loss along a short fine-tuning of all parameters, allocated to the layers.

    :data:`LCA_STEPS` Adam steps at a rate of :data:`LCA_RATE`, on a copy of the network. Over all layers the scores add
    up to the decrease, up to the step error, whatever the skip connections; only weights that layers share count for
    each of them.

    Source:
        Lan et al. 2019 (LCA).
    """

    def loss(call: Callable[..., Any]) -> Tensor:
        losses = [call_loss(task, sample, call, "the method 'lca'") for sample in samples]
        return torch.stack(losses).mean()

    refuse_gradients(task.model, "the method 'lca'")
    with undisturbed(task.model):
        states = adam_states(task.model, loss, LCA_STEPS, LCA_RATE)
        (change,) = allocate_loss_change(task.model, states, [loss], _sums)
    return [-part for part in _by_layer(task, change.parts)]


def lca_evaluations(task: Task) -> int:
    """Evaluations for one image: the steps, and the gradients at all states."""
    return 2 * LCA_STEPS + 1


def weight_line(task: Task, sample: Sample) -> list[float]:
    """Absolute change of an image's loss along the line from other weights to the network's own, by layer.

    From weights of zero it is the integrated gradient of the parameters along a joint path, as IGU-LoRA takes it.

    Source:
        IGU-LoRA (arXiv:2603.13792) for weights of zero.
        Xie et al. 2021 (FAIG), for layers instead of filters; filters: :func:`macattr.methods.weight_paths.by_filter`.

    Raises:
        ValueError: If there are no other weights, or they are not of this network.
    """
    if task.options.start_weights is None:
        raise ValueError("the method 'faig' needs `start_weights`: the parameters from which the path comes.")
    refuse_gradients(task.model, "the method 'faig'")
    own = dict(task.model.named_parameters())
    others = dict(chain(task.model.named_parameters(remove_duplicate=False), task.model.named_buffers()))
    start = {
        name: tensor.to(own[name]) if name in own else tensor
        for name, tensor in task.options.start_weights.items()
        if name in own or name not in others  # a whole state also holds buffers, and shared weights by all their names
    }
    missing, unknown = sorted(own.keys() - start.keys()), sorted(start.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"`start_weights` must hold the parameters of the network: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} too many {unknown[:3]}. Take the state of a network of the same kind, without 'module.'."
        )
    states = straight_weights(start, own, task.preset.n_steps)
    with undisturbed(task.model):
        (change,) = allocate_loss_change(
            task.model, states, [lambda call: call_loss(task, sample, call, "the method 'faig'")], _sums
        )
    return [abs(part) for part in _by_layer(task, change.parts)]


def parameter_vectors(task: Task) -> Iterator[Tensor]:
    """All parameters that a layer owns, as one vector a layer, wherever their values lie."""
    for name, module in task.layers.items():
        with own_values(module) as values:
            yield _flat(_real_parameters(name, values.values()))


def loss_gradients(task: Task, sample: Sample, user: str) -> list[Tensor]:
    """Gradient of an image's loss with respect to every layer's own parameters, as one vector a layer.

    Args:
        task: Network, layers and loss.
        sample: The image.
        user: Name of what needs them, for the error message.

    Raises:
        ValueError: If the loss cannot be computed or is not finite.
    """
    refuse_gradients(task.model, user)
    with undisturbed(task.model):
        weights = {
            name: p.detach().requires_grad_() for name, p in task.model.named_parameters() if p.is_floating_point()
        }
        by_identity = {id(p): name for name, p in task.model.named_parameters()}
        loss = call_loss(task, sample, partial(call_with, task.model, weights), user)
        if not bool(loss.isfinite()):
            raise ValueError(f"the loss of {sample.name!r} is {float(loss)}: image or weights hold NaN or infinity.")
        known = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradients = dict(zip(weights, known, strict=True))
        return [
            _flat(
                [
                    dense_gradient(gradients[by_identity[id(p)]], p)
                    for p in _real_parameters(name, own_parameters(module).values())
                ]
            )
            for name, module in task.layers.items()
        ]


def call_loss(task: Task, sample: Sample, call: Callable[..., Any], user: str) -> Tensor:
    """Loss of one image, with a function to call in the network's place.

    Args:
        task: Network and loss.
        sample: The image.
        call: Takes the arguments of the network.
        user: Name of what needs the loss, for the error message.

    Raises:
        ValueError: If there is neither a loss nor a target.
    """
    arguments, keywords = task.call_arguments(sample)
    return task.loss_of(call(*arguments, **keywords), sample, user)


def gradient_moments(task: Task, samples: Sequence[Sample], user: str) -> list[tuple[Tensor, Tensor]]:
    """Mean and mean square of every layer's gradient over the images, in float64, as one vector a layer each.

    Args:
        task: Network, layers and loss.
        samples: Images.
        user: Name of what needs them, for the error message.

    Raises:
        ValueError: If the loss cannot be computed or is not finite.
    """
    sums: list[tuple[Tensor, Tensor]] = []
    for sample in samples:
        gradients = [h.double() for h in loss_gradients(task, sample, user)]
        if not sums:
            sums = [(torch.zeros_like(h), torch.zeros_like(h)) for h in gradients]
        for (first, second), h in zip(sums, gradients, strict=True):
            first.add_(h)
            second.addcmul_(h, h)
    return [(first / len(samples), second / len(samples)) for first, second in sums]


def _real_parameters(layer: str, parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those of a layer's parameters that have a gradient: constants of integers have none."""
    own = list(parameters)
    if any(p.is_complex() for p in own):
        raise ValueError(
            f"{layer!r} holds complex weights, which methods of the loss do not score: leave it out of `layers`, or "
            "rank by a method along a path, such as conductance."
        )
    if quantised := [p for p in own if not p.is_floating_point() and p.dim() > 1]:
        raise ValueError(
            f"{layer!r} holds {str(quantised[0].dtype).removeprefix('torch.')} values, which have no gradient: load "
            "the network without quantisation, or leave the layer out of `layers`."
        )
    return [parameter for parameter in own if parameter.is_floating_point()]


def _sums(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum of what was allocated to every parameter."""
    return {name: part.sum() for name, part in parts.items()}


def _by_layer(task: Task, sums: Mapping[str, Tensor]) -> list[float]:
    """Sums over the parameters that every layer owns; what layers share counts for each of them."""
    by_identity = {id(parameter): sums.get(name, 0.0) for name, parameter in task.model.named_parameters()}
    return [
        float(sum(by_identity[id(parameter)] for parameter in own_parameters(module).values()))
        for module in task.layers.values()
    ]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.zeros(0)
