r"""Objectives: what of a model's output is explained, as one scalar per sample."""

__all__ = [
    "PLAIN_OBJECTIVES",
    "CrossEntropy",
    "Distance",
    "GradientMagnitude",
    "HiddenDistance",
    "Objective",
    "OutputMean",
    "OutputNorm",
    "OutputSum",
    "PlainObjectiveName",
    "Similarity",
    "Target",
    "TargetType",
    "Window",
]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TargetType = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None
"""Which output is attributed, as Captum's ``target``."""

Metric = Literal["l1", "l2", "psnr"]


@runtime_checkable
class Objective(Protocol):
    """Any function from outputs to one scalar per sample that never mixes samples; plain functions fit."""

    def __call__(self, output: Tensor, /) -> Tensor:
        """(B, ...) to (B,)."""


@dataclass(frozen=True)
class GradientMagnitude:
    r"""Total gradient magnitude of images, MAC's objective: how much edge and texture a network produces.

    .. math:: J(t) = \sum_{c,h,w} \sqrt{(t_{h,w} - t_{h+1,w})^2 + (t_{h,w} - t_{h,w+1})^2 + \varepsilon^2}

    over the (H-1) x (W-1) positions that have both neighbours.

    Args:
        eps: Smoothing, in units of the image. With 0 (the authors' script) the gradient is NaN wherever two
            neighbours below and to the right are equal; the default keeps it finite and bounds the change of J by
            1e-6 per position and channel.

    Source:
        Gu & Dong 2021 (LAM), the "attr_grad" of Qin et al. 2024 (RAM).

    Example:
        >>> image = torch.tensor([[[[0.0, 4.0], [3.0, 9.0]]]])
        >>> GradientMagnitude()(image)
        tensor([5.])
    """

    eps: float = 1e-6

    def __call__(self, output: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Gradient magnitude of every image.

        Raises:
            ValueError: If the output is not a batch of images of at least 2x2 pixels.
        """
        if output.dim() != 4 or min(output.shape[-2:]) < 2:
            raise ValueError(
                f"gradient magnitude needs an output of images (B, C, H, W) of at least 2x2 pixels, got shape "
                f"{tuple(output.shape)}: choose another `objective`, such as 'class' for scores of classes, 'norm' "
                "or 'similarity' for embeddings, 'loss' with a target, or `target` in the attribution classes."
            )
        down = output[..., :-1, :-1] - output[..., 1:, :-1]
        right = output[..., :-1, :-1] - output[..., :-1, 1:]
        return (down.square() + right.square() + self.eps**2).sqrt().sum((1, 2, 3))


@dataclass(frozen=True)
class OutputSum:
    """Sum of a sample's outputs."""

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Sum over everything but the batch."""
        return output.flatten(1).sum(1)


@dataclass(frozen=True)
class OutputMean:
    """Mean of a sample's outputs."""

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Mean over everything but the batch."""
        return output.flatten(1).mean(1)


@dataclass(frozen=True, eq=False)
class Distance:
    """Distance of every output to a reference of the same shape.

    Args:
        reference: Image that the output is compared with, (B, ...) or (1, ...).
        metric: ``l1`` (mean absolute error), ``l2`` (mean squared error) or ``psnr`` (dB, for values in [0, 1]; its
            gradient does not exist where the error is 0).
    """

    reference: Tensor
    metric: Metric = "l1"

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise ValueError(f"`metric` must be one of {', '.join(get_args(Metric))}, got {self.metric!r}.")

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Distance of every sample.

        Raises:
            ValueError: If the reference does not fit the output.
        """
        if self.reference.shape[1:] != output.shape[1:] or self.reference.shape[0] not in (1, output.shape[0]):
            raise ValueError(
                f"the reference of shape {tuple(self.reference.shape)} does not fit the output {tuple(output.shape)}."
            )
        error = (output - self.reference.to(output)).flatten(1)
        if self.metric == "l1":
            return error.abs().mean(1)
        mse = error.square().mean(1)
        return mse if self.metric == "l2" else -10 * mse.log10()


@dataclass(frozen=True)
class OutputNorm:
    """Euclidean norm of a sample's outputs, such as an embedding; its gradient at 0 is 0, the least subgradient.

    So a path may start where a network returns 0. The first node then adds nothing, which the input residual shows.
    """

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Norm over everything but the batch."""
        norm: Tensor = torch.linalg.vector_norm(output.flatten(1), dim=1)
        return norm


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosine similarity of a sample's outputs to a reference, such as the embedding of the whole input.

    Args:
        reference: What the output is compared with, (B, ...) or (1, ...); not 0.

    Example:
        >>> Similarity(torch.tensor([[1.0, 0.0]]))(torch.tensor([[3.0, 4.0]]))
        tensor([0.6000])
    """

    reference: Tensor

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Similarity of every sample, in [-1, 1].

        Raises:
            ValueError: If the reference does not fit the output.
        """
        if self.reference.shape[1:] != output.shape[1:] or self.reference.shape[0] not in (1, output.shape[0]):
            raise ValueError(
                f"the reference of shape {tuple(self.reference.shape)} does not fit the output {tuple(output.shape)}."
            )
        return functional.cosine_similarity(output.flatten(1), self.reference.to(output).flatten(1))


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Mean cross-entropy of scores to labels of integers.

    Args:
        labels: Class of every sample, (B,), or of every token or pixel, (B, ...); (1, ...) stands for every sample.
            Negative ones do not count.

    Example:
        >>> CrossEntropy(torch.tensor([1]))(torch.tensor([[0.0, 0.0]]))
        tensor([0.6931])
    """

    labels: Tensor

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """Cross-entropy of every sample.

        The classes are the last dimension for (B, classes) and (B, n, classes), the second for pixels
        (B, classes, H, W).

        Raises:
            ValueError: If the labels do not fit the output, or none counts.
        """
        scores = output if output.dim() < 4 else output.movedim(1, -1)
        labels = self.labels.expand(output.shape[0], *self.labels.shape[1:]).long()
        if scores.dim() < 2 or labels.shape != scores.shape[:-1]:
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} do not fit an output of shape {tuple(output.shape)}: pass "
                "a `loss` of (output, target)."
            )
        counts = (labels >= 0).reshape(len(labels), -1)
        if not bool(counts.any(1).all()):
            raise ValueError("a sample has no label that counts: all are negative.")
        each = functional.cross_entropy(scores.flatten(0, -2), labels.clamp(min=0).flatten(), reduction="none")
        return (each.reshape(counts.shape) * counts).sum(1) / counts.sum(1)


@dataclass(frozen=True, eq=False)
class HiddenDistance:
    """Mean absolute error over the hidden pixels alone: the loss of masked pre-training.

    Args:
        reference: Clean images, (B, C, H, W).
        hidden: 1 where a pixel was hidden, else 0, (B, H, W); not all 0.

    Source:
        Qin et al. 2024 (RAM), Eq. 1.

    Example:
        >>> loss = HiddenDistance(torch.zeros(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
        >>> loss(torch.tensor([[[[0.25, 9.0]]]]))
        tensor([0.2500])
    """

    reference: Tensor
    hidden: Tensor

    def __call__(self, output: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Error of every sample.

        Raises:
            ValueError: If the output is not an image of the reference's size.
        """
        if output.shape != self.reference.shape:
            raise ValueError(
                f"the output of shape {tuple(output.shape)} does not fit the clean image {tuple(self.reference.shape)}."
            )
        error = (output - self.reference.to(output)).abs().mean(1) * self.hidden.to(output)
        return error.sum((1, 2)) / self.hidden.to(output).sum((1, 2))


@dataclass(frozen=True, eq=False)
class Window:
    """Another objective, read inside a rectangle of the image only.

    Args:
        objective: Objective inside the window. A :class:`Distance` needs a reference of the window's size.
        top: First row.
        left: First column.
        height: Rows, in pixels.
        width: Columns, in pixels.
    """

    objective: Objective
    top: int
    left: int
    height: int
    width: int

    def __call__(self, output: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Objective of the cropped output.

        Raises:
            ValueError: If the rectangle leaves the image.
        """
        bottom, right = self.top + self.height, self.left + self.width
        inside = 0 <= self.top < bottom <= output.shape[-2] and 0 <= self.left < right <= output.shape[-1]
        if not inside:
            raise ValueError(
                f"the window rows {self.top}-{bottom}, columns {self.left}-{right} leaves the output of "
                f"{output.shape[-2]}x{output.shape[-1]} pixels."
            )
        return self.objective(output[..., self.top : bottom, self.left : right])


@dataclass(frozen=True, eq=False)
class Target:
    """One output per sample, selected as Captum's ``target`` does.

    Args:
        target: None for models with one output per sample; an index, or a tuple of indices into the output's
            dimensions after the batch; or one of these for every sample (list, or 1-d tensor).
    """

    target: TargetType = None

    def __call__(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
        """The selected output of every sample.

        Raises:
            ValueError: If the target does not fit the output.
        """
        batch = output.shape[0] if output.dim() else 0
        if self.target is None:
            if not batch or output.numel() != batch:
                raise ValueError(
                    f"the output of shape {tuple(output.shape)} is not one number per sample: pass `target` or "
                    "`objective`."
                )
            return output.reshape(batch)
        chosen = self.target.flatten().tolist() if isinstance(self.target, Tensor) else self.target
        if isinstance(chosen, list):
            chosen = chosen * batch if len(chosen) == 1 else chosen
            if len(chosen) != batch:
                raise ValueError(f"`target` has {len(chosen)} entries for {batch} samples.")
            return torch.stack([self._select(sample, one, ()) for sample, one in zip(output, chosen, strict=True)])
        return self._select(output.movedim(0, -1), chosen, (batch,))  # type: ignore[arg-type]

    def _select(self, output: Tensor, index: int | tuple[int, ...], left: tuple[int, ...]) -> Tensor:
        """Entry at ``index`` of the leading dimensions, with the shape ``left``."""
        position = index if isinstance(index, tuple) else (index,)
        shape = tuple(output.shape[: output.dim() - len(left)])
        try:
            selected: Tensor = output[position]
        except IndexError as error:
            raise ValueError(f"`target` {index} is out of range of outputs of shape {shape}.") from error
        if selected.shape != left:
            raise ValueError(
                f"`target` {index} does not select one number of outputs of shape {shape}: give one index for each "
                "dimension after the batch."
            )
        return selected


PlainObjectiveName = Literal["gradient_magnitude", "sum", "mean", "norm"]
"""Names of objectives that look at nothing but the output."""

PLAIN_OBJECTIVES: Mapping[PlainObjectiveName, Callable[[], Objective]] = {
    "gradient_magnitude": GradientMagnitude,
    "sum": OutputSum,
    "mean": OutputMean,
    "norm": OutputNorm,
}
"""These objectives by name: edges and texture of images; sum, mean and norm of the output."""
