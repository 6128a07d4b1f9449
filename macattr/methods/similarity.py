r"""Layer scores from how far a layer's output differs from its input: forward passes alone.

Rank blocks with them, as ``layers="blocks.*"``. A layer whose input is no float tensor, such as an embedding of tokens,
scores 0, because there is nothing to compare. Of several inputs and outputs the first is taken.
"""

__all__ = ["Tokens", "cka_change", "cosine_change", "linear_cka"]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.sweep.guard import undisturbed
from macattr.sweep.probes import Site
from macattr.weights.values import values_of

Tokens = Literal["mean", "first", "last"]
"""What stands for a sequence: the mean over its tokens, the first (a CLS token) or the last one."""

FEWEST_SAMPLES = 3
"""Samples that centred kernel alignment needs: that of two is 1 whatever they are."""

CHANNELS_FIRST = (_ConvNd, _NormBase, nn.GroupNorm)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


def cka_change(task: Task, samples: Sequence[Sample], tokens: Tokens = "mean") -> list[float]:
    """1 - :func:`linear_cka` of every layer's input and output over the samples, in [0, 1].

    A sample stands there as one vector: of an image the mean over the positions, of a sequence as ``tokens`` says. With
    few samples and wide layers the alignment is biased towards 1: compare layers of one run alone. A layer that is
    called several times scores the mean over its calls. A constant output of an input that varies scores 1.

    Args:
        task: Network and layers.
        samples: At least 3.
        tokens: For other tokens than the mean, register a method of your own, see the example.

    Raises:
        ValueError: With fewer than 3 samples, or if a layer does not run as often on each.

    Source:
        arXiv:2602.05988; Kornblith et al. 2019 (CKA).

    Example:
        >>> from functools import partial
        >>> from macattr.methods.catalogue import METHODS, register_method
        >>> from macattr.methods.kinds import JointMethod
        >>> last = JointMethod("cka_last", "1 - CKA of the last token", "ours", partial(cka_change, tokens="last"))
        >>> register_method(last).name
        'cka_last'
        >>> _ = METHODS.pop("cka_last")
    """
    if len(samples) < FEWEST_SAMPLES:
        raise ValueError(f"the method 'cka' needs at least {FEWEST_SAMPLES} images, got {len(samples)}.")
    pairs: list[dict[str, list[tuple[Tensor, Tensor]]]] = []
    for sample in samples:
        calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in task.layers}

        def keep(
            name: str,
            before: Tensor,
            after: Tensor,
            calls: dict[str, list[tuple[Tensor, Tensor]]] = calls,
        ) -> None:
            axis = _channels(task.layers[name], before)
            calls[name].append((_vector(before, axis, tokens), _vector(after, axis, tokens)))

        _forward(task, sample, keep)
        pairs.append(calls)
    return [_mean_change(name, [calls[name] for calls in pairs]) for name in task.layers]


def linear_cka(x: Float[Tensor, "samples p"], y: Float[Tensor, "samples q"]) -> float:
    r"""Linear centred kernel alignment in [0, 1]: 1 if one is a rotation and scaling of the other.

    .. math:: \frac{\lVert X^\top Y\rVert^2}{\lVert X^\top X\rVert\,\lVert Y^\top Y\rVert}

    with columns centred over the samples. Two constants have 1, a constant and another 0.

    Source:
        Kornblith et al. 2019.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> round(linear_cka(x, 3 * x.flip(1) + 1), 6)
        1.0
    """
    # The first row first: so constants become 0 exactly, whatever the rounding of their mean.
    first, second = (rows.double() - rows[0].double() for rows in (x, y))
    kernels = [rows @ rows.mT for rows in (first - first.mean(0), second - second.mean(0))]
    norms = [float(kernel.norm()) for kernel in kernels]
    if not all(norms):
        return float(norms[0] == norms[1])
    return float((kernels[0] / norms[0] * (kernels[1] / norms[1])).sum())


def cosine_change(task: Task, sample: Sample) -> list[float]:
    """1 - cosine of every layer's input and output, mean over positions or tokens, in [0, 2].

    The cheap form of :func:`cka_change`: one image is enough. A layer that is called several times scores the mean.

    Raises:
        ValueError: If a layer's output has another shape than its input.

    Source:
        arXiv:2406.17415, there with the opposite sign.
    """
    found: dict[str, list[float]] = {name: [] for name in task.layers}

    def keep(name: str, before: Tensor, after: Tensor) -> None:
        if before.shape != after.shape:
            raise ValueError(
                f"{name!r} makes {tuple(after.shape)} of {tuple(before.shape)}, and a cosine needs equal shapes: rank "
                "blocks that keep them (`layers`), or take the method 'cka'."
            )
        axis = _channels(task.layers[name], before)
        found[name].append(1 - float(nn.functional.cosine_similarity(before, after, axis).mean()))

    _forward(task, sample, keep)
    return [sum(values) / len(values) if values else 0.0 for values in found.values()]


def _mean_change(name: str, samples: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> float:
    """1 - CKA of one layer, mean over its calls; 0 without any."""
    counts = {len(calls) for calls in samples}
    if len(counts) > 1:
        raise ValueError(f"{name!r} runs {min(counts)} to {max(counts)} times an image: leave it out of `layers`.")
    changes = []
    for calls in zip(*samples, strict=True):
        before, after = (torch.stack(rows) for rows in zip(*calls, strict=True))
        changes.append(max(1 - linear_cka(before, after), 0.0))  # in this order NaN stays NaN
    return sum(changes) / len(changes) if changes else 0.0


@torch.no_grad()
def _forward(task: Task, sample: Sample, keep: Callable[[str, Tensor, Tensor], None]) -> None:
    """Run the network on a sample; hand over every layer's name, input and output at every call."""

    def whole(name: str, before: Tensor, after: Tensor) -> None:
        keep(name, before, task.surveys.whole(Site(name, 0, 0), after))

    with undisturbed(task.model), torch.no_grad(), ExitStack() as stack:
        for name, module in task.layers.items():
            stack.enter_context(_watched(name, module, whole))
        arguments, keywords = task.call_arguments(sample)
        task.model(*arguments, **keywords)


@contextmanager
def _watched(name: str, module: nn.Module, keep: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """A layer whose calls are handed over. Its input is copied, since it may change it in place."""
    entered: list[Tensor | None] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        value = _first([*args, *kwargs.values()])
        entered.append(None if value is None else _wide(value).clone())

    def after(_: nn.Module, __: tuple[Any, ...], output: object) -> None:
        start, end = entered.pop(), _first([output])
        if start is not None and end is not None:
            keep(name, start, _wide(end))

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(values: Iterable[object]) -> Tensor | None:
    """The first tensor with real values, also inside of sequences and mappings."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.dim():
                return value
        elif isinstance(value, Mapping | list | tuple):
            inside = _first(value.values() if isinstance(value, Mapping) else value)
            if inside is not None:
                return inside
    return None


def _wide(tensor: Tensor) -> Tensor:
    """The values in at least float32, gathered where processes hold parts of a DTensor."""
    return values_of(tensor).to(torch.promote_types(tensor.dtype, torch.float32))


def _channels(module: nn.Module, entered: Tensor) -> int:
    """The dimension of a layer's input that holds the features.

    Where the number of dimensions does not tell, the first layer inside that reads features does.
    """
    known = next((part for part in module.modules() if isinstance(part, CHANNELS_FIRST + CHANNELS_LAST)), None)
    if entered.dim() < 3:
        return -1
    if isinstance(known, CHANNELS_FIRST):
        return 1
    if known is None or entered.dim() == 3:
        return 1 if entered.dim() > 3 else -1
    features = known.in_features if isinstance(known, nn.Linear) else known.normalized_shape[-1]
    return -1 if entered.shape[-1] == features else 1


def _vector(values: Tensor, axis: int, tokens: Tokens) -> Tensor:
    """One vector of features for a sample."""
    if tokens != "mean" and values.dim() == 3 and axis == -1:
        values = values[:, 0 if tokens == "first" else -1]
    features = values.movedim(axis if values.dim() > 1 else 0, -1)
    return features.reshape(-1, features.shape[-1]).double().mean(0)
