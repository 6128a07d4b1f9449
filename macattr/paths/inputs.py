"""Paths through the input: from the reference to the image, along a line, by revealing pixels, or by deblurring."""

__all__ = [
    "BlurPath",
    "Gate",
    "LinearPath",
    "MaskAttributePath",
    "Path",
    "Reference",
    "check_masked_fraction",
    "order_by_score",
    "random_order",
    "resolve_reference",
    "reveal_gate",
    "visible_count",
]

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

Gate = Literal["fade", "sigmoid", "one_sided"]
"""How pixels appear along a mask path."""

Reference = float | Tensor | Callable[[Tensor], Tensor]
"""A reference input: a number, a tensor, or a function of the inputs."""


@runtime_checkable
class Path(Protocol):
    r"""A curve :math:`X(\alpha)` through input space. Implementations draw no random numbers."""

    @property
    def interval(self) -> tuple[float, float]:
        """Start and end of alpha."""

    @property
    def groups(self) -> int:
        """Equal parts of the interval between which the curve has a kink; nodes should fall on their borders."""

    def at(self, alpha: Float[Tensor, " k"]) -> tuple[Tensor, ...]:
        """Model inputs at the ``k`` positions ``alpha``, each (k*B, ...) with the position as the slower index."""


def resolve_reference(reference: Reference | None, inputs: Tensor) -> Tensor:
    """The reference input with the shape of ``inputs``.

    Args:
        reference: Number, tensor that broadcasts to ``inputs``, function of ``inputs``, or None for zeros.
        inputs: Tensor whose shape, dtype and device the result has.

    Raises:
        ValueError: If a tensor does not broadcast.
    """
    value = reference(inputs) if callable(reference) else reference
    tensor = torch.as_tensor(0.0 if value is None else value, dtype=inputs.dtype, device=inputs.device)
    try:
        return tensor.expand_as(inputs)
    except RuntimeError as error:
        raise ValueError(
            f"the reference input of shape {tuple(tensor.shape)} does not broadcast to inputs of shape "
            f"{tuple(inputs.shape)}."
        ) from error


@dataclass(frozen=True)
class LinearPath:
    r"""The straight line :math:`X(\alpha) = x' + \alpha\,(x - x')`.

    Args:
        inputs: End of the line at alpha = 1: one tensor (B, ...) for each model input.
        baselines: The reference :math:`x'` at alpha = 0, same shapes.
        interval: Part of the line that is walked; (0, 1) is all of it, (1 - r, 1) what the paper's Table 5 used.
        groups: Parts of the interval whose borders are to be nodes; a line needs none.

    Source:
        Sundararajan et al. 2017 (integrated gradients); Qin et al. 2024 (RAM), Eq. 2.

    Example:
        >>> path = LinearPath((torch.ones(1, 2),), (torch.zeros(1, 2),))
        >>> path.at(torch.tensor([0.25, 1.0]))[0]
        tensor([[0.2500, 0.2500],
                [1.0000, 1.0000]])
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    interval: tuple[float, float] = (0.0, 1.0)
    groups: int = 1

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.baselines):
            raise ValueError(f"{len(self.inputs)} inputs need as many baselines, got {len(self.baselines)}.")
        _check_floating(*self.inputs)
        _check_interval(self.interval)

    def at(self, alpha: Float[Tensor, " k"]) -> tuple[Tensor, ...]:
        """Inputs at positions ``alpha``, each (k*B, ...)."""
        return tuple(
            torch.cat([torch.lerp(start, end, position) for position in alpha.tolist()])
            for start, end in zip(self.baselines, self.inputs, strict=True)
        )


@dataclass(frozen=True)
class MaskAttributePath:
    r"""The mask attribute path: hidden pixels are revealed one after another until the image is whole.

    .. math:: X_i(\alpha) = x'_i + g_i(\alpha)\,(x_i - x'_i),\qquad \alpha \in [1 - r, 1]

    The gate :math:`g_i` of the pixel of rank :math:`k_i` among :math:`n` (0 = revealed first):

    - ``fade``: the pixels hidden at :math:`1 - r` are split, in reveal order, into ``groups``; each group fades in
      linearly over its share of the interval. Continuous, so that sums along the path converge.
    - ``sigmoid``: :math:`\sigma(\delta(\alpha - a_i))` with :math:`a_i = (k_i + 1/2)/n`, except at both ends of the
      interval, where it is exactly 0 or 1 (Eq. 6 as meant).
    - ``one_sided``: the authors' script: 0 for :math:`k_i \ge \lceil n\alpha \rceil`, else
      :math:`\sigma(\delta(\alpha - k_i/n))`. Its ends are *not* exact.

    Args:
        inputs: Whole images (B, C, H, W).
        order: Reveal order, (n,) for all images or (B, n) for each: ``order[k]`` is the flat index of the pixel, or
            of the block if ``patch_size > 1``, that is revealed as the k-th. n = ceil(H/p) * ceil(W/p).
        baselines: Values of hidden pixels, same shape as ``inputs``.
        r: Share of pixels that is hidden at the start, in (0, 1].
        gate: How a pixel changes from hidden to visible.
        delta: Sharpness of the sigmoid gates, per unit of alpha.
        groups: Number of groups of the ``fade`` gate, equal parts of [1 - r, 1]. On another ``interval`` their borders
            need not be nodes.
        patch_size: Side in pixels of the blocks that are revealed together.
        interval: Part of the path that is walked; by default all of it, (1 - r, 1).

    Raises:
        ValueError: If an argument is out of its range or the order is not a permutation.

    Source:
        Qin et al. 2024 (RAM), Eq. 5-8.

    Example:
        >>> image = torch.ones(1, 1, 2, 2)
        >>> path = MaskAttributePath(image, torch.tensor([3, 0, 2, 1]), 0 * image, groups=1)
        >>> path.at(torch.tensor([0.5, 0.75]))[0].flatten(1)
        tensor([[1.0000, 0.0000, 0.0000, 1.0000],
                [1.0000, 0.5000, 0.5000, 1.0000]])
    """

    inputs: Tensor
    order: Tensor
    baselines: Tensor
    r: float = 0.5
    gate: Gate = "fade"
    delta: float = 1e4
    groups: int = 5
    patch_size: int = 1
    interval: tuple[float, float] = (math.nan, math.nan)

    def __post_init__(self) -> None:
        check_masked_fraction(self.r)
        if self.gate not in get_args(Gate):
            raise ValueError(f"`gate` must be one of {', '.join(get_args(Gate))}, got {self.gate!r}.")
        if not self.delta > 0 or math.isinf(self.delta):
            raise ValueError(f"`delta` must be positive, got {self.delta}: it is the sharpness of the sigmoid gates.")
        if self.patch_size < 1 or self.groups < 1:
            raise ValueError(f"`patch_size` and `groups` must be at least 1, got {self.patch_size} and {self.groups}.")
        _check_images(self.inputs, "a mask path")
        if math.isnan(self.interval[0]):
            object.__setattr__(self, "interval", (1 - self.r, 1.0))
        _check_interval(self.interval)
        count = math.prod(self._grid())
        if visible_count(count, self.r) == count:
            raise ValueError(f"`r` = {self.r} hides none of the {count} pixels (blocks for patch_size > 1): raise it.")
        order = self.order.reshape(-1, self.order.shape[-1])
        expected = torch.arange(count, device=order.device)
        if order.shape[-1] != count or not torch.equal(order.sort(-1).values, expected.expand_as(order)):
            raise ValueError(
                f"`order` must be a permutation of the {count} pixels (blocks for patch_size > 1) of the image, got "
                f"shape {tuple(self.order.shape)} with values from {int(order.min())} to {int(order.max())}."
            )
        if order.shape[0] not in (1, self.inputs.shape[0]):
            raise ValueError(
                f"`order` has {order.shape[0]} rows for {self.inputs.shape[0]} images: give one or as many."
            )

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        height, width = self.inputs.shape[-2:]
        return math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)

    def at(self, alpha: Float[Tensor, " k"]) -> tuple[Tensor, ...]:
        """Partly revealed images at positions ``alpha``: one tensor (k*B, C, H, W)."""
        batch, _, height, width = self.inputs.shape
        gate = reveal_gate(alpha.to(self.order.device), self.order.reshape(-1, self.order.shape[-1]).argsort(-1), self)
        gate = gate.reshape(*gate.shape[:2], 1, *self._grid())
        if self.patch_size > 1:
            gate = gate.repeat_interleave(self.patch_size, -2).repeat_interleave(self.patch_size, -1)
        gate = gate[..., :height, :width].to(self.inputs)
        images = torch.lerp(self.baselines, self.inputs, gate)  # exact at both ends
        return (images.expand(-1, batch, -1, -1, -1).flatten(0, 1),)

    def reversed(self) -> "MaskAttributePath":
        """The path in opposite order, for twin masks.

        At r = 0.5 and an even number of pixels, its start hides what the start of the other shows. Of an odd number one
        pixel is visible in both; at another r the two hide that share of the pixels each, from both ends of the order.
        """
        return replace(self, order=self.order.flip(-1))

    def hidden(self) -> Float[Tensor, "b h w"]:
        """1 where a pixel is hidden at the start of the path, 0 where it is visible."""
        seen = replace(self, inputs=torch.ones_like(self.inputs), baselines=torch.zeros_like(self.inputs))
        return 1 - seen.at(torch.tensor(self.interval[:1], dtype=torch.float64, device="cpu"))[0][:, 0]


def visible_count(count: int, r: float) -> int:
    """Number of pixels or tokens that are visible at the start of a mask path.

    Args:
        count: Number of all.
        r: Masked fraction, in (0, 1].

    Example:
        >>> visible_count(5, 0.5)
        3
    """
    return math.floor(count * (1 - r) + 0.5)


def reveal_gate(
    alpha: Float[Tensor, " k"], rank: Int[Tensor, "b n"], path: MaskAttributePath
) -> Float[Tensor, "k b n"]:
    r"""Fraction in [0, 1] of every pixel that is revealed at positions ``alpha``, in float64.

    Args:
        alpha: Positions in [0, 1].
        rank: Place of every pixel in the reveal order, from 0.
        path: Gate and its parameters; see :class:`MaskAttributePath`.
    """
    count = rank.shape[-1]
    position = alpha.double()[:, None, None]
    if path.gate == "one_sided":
        revealed = rank < torch.ceil(count * position - 1e-9)
        return torch.sigmoid(path.delta * (position - rank / count)) * revealed
    visible = visible_count(count, path.r)
    if path.gate == "sigmoid":
        gate = torch.sigmoid(path.delta * (position - (rank + 0.5) / count))
        gate = torch.where(position <= 1 - path.r, (rank < visible).double(), gate)
        return torch.where(position >= 1, torch.ones_like(gate), gate)
    group = (rank - visible) * path.groups // max(1, count - visible)
    fade = (position - (1 - path.r)) * path.groups / path.r - group
    return torch.where((rank < visible) | (position >= 1), 1.0, fade.clamp(0, 1))


@dataclass(frozen=True)
class BlurPath:
    r"""From a blurred image to the sharp one: the blur's width shrinks as :math:`(1 - \alpha)\,\sigma`.

    At alpha = 1 it is exactly the image. Computed on the CPU in float64, whatever the device and dtype of the inputs.

    Args:
        inputs: Sharp images (B, C, H, W).
        sigma: Standard deviation of the blur at alpha = 0, in pixels; the demo of LAM's authors takes 1.2.
        interval: Part of the path that is walked.
        groups: Parts of the interval whose borders are to be nodes; a smooth path needs none.

    Raises:
        ValueError: If ``sigma`` is not positive and finite, or the inputs are not floating-point images.

    Source:
        Gu & Dong 2021 (LAM), the progressive blurring path. The kernel's radius is that of 4 sigma at every alpha, as
        theirs is fixed: a radius that shrank with alpha would make the path jump. Borders are mirrored with the edge
        pixel repeated, which keeps every channel's mean; theirs are mirrored without.

    Example:
        >>> dot = torch.tensor([[[[0.0, 0.0, 1.0, 0.0, 0.0]]]])
        >>> BlurPath(dot, sigma=1.0).at(torch.tensor([0.5, 1.0]))[0].squeeze()
        tensor([[2.6388e-04, 1.0645e-01, 7.8657e-01, 1.0645e-01, 2.6388e-04],
                [0.0000e+00, 0.0000e+00, 1.0000e+00, 0.0000e+00, 0.0000e+00]])
    """

    inputs: Tensor
    sigma: float
    interval: tuple[float, float] = (0.0, 1.0)
    groups: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"`sigma` must be positive and finite, got {self.sigma}: it is the blur in pixels.")
        if self.groups < 1:
            raise ValueError(f"`groups` must be at least 1, got {self.groups}.")
        _check_images(self.inputs, "a blur path")
        _check_interval(self.interval)

    def at(self, alpha: Float[Tensor, " k"]) -> tuple[Tensor, ...]:
        """Blurred images at positions ``alpha``: one tensor (k*B, C, H, W)."""
        sharp = self.inputs.detach().cpu().double().numpy()
        radius = math.ceil(4 * self.sigma)
        images = [
            torch.from_numpy(gaussian_filter(sharp, (1 - position) * self.sigma, radius=radius, axes=(-2, -1)))
            for position in alpha.tolist()
        ]
        return (torch.cat(images).to(self.inputs),)


def random_order(count: int, seed: int) -> Int[Tensor, " n"]:
    """A uniformly random reveal order of ``count`` pixels.

    Example:
        >>> random_order(5, seed=0).sort().values
        tensor([0, 1, 2, 3, 4])
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")


def order_by_score(
    score: Float[Tensor, "*b h w"] | Int[Tensor, "*b h w"] | Bool[Tensor, "*b h w"],
    patch_size: int = 1,
    descending: bool = True,
) -> Int[Tensor, "*b n"]:
    """The reveal order that any score of the pixels gives: a saliency map, a learned mask, a distance.

    Args:
        score: Score of every pixel, (H, W) for all images or (B, H, W) for each.
        patch_size: Side in pixels of the blocks that are revealed together; their mean score counts. Blocks that
            stick out of the image count the pixels inside.
        descending: Whether the highest score is revealed first. Equal scores keep their position's order.

    Returns:
        Order for :class:`MaskAttributePath`, (n,) or (B, n) with n = ceil(H/p) * ceil(W/p).

    Raises:
        ValueError: If the score has another number of dimensions or holds NaN, or the patch size is below 1.

    Example:
        >>> order_by_score(torch.tensor([[0.1, 0.9], [0.5, 0.9]]))
        tensor([1, 3, 2, 0])
    """
    if score.dim() not in (2, 3):
        raise ValueError(f"`score` must be (H, W) or (B, H, W), got shape {tuple(score.shape)}: one number per pixel.")
    if patch_size < 1:
        raise ValueError(f"`patch_size` must be at least 1, got {patch_size}.")
    blocks = F.avg_pool2d(score.detach().double().reshape(-1, 1, *score.shape[-2:]), patch_size, ceil_mode=True)
    if bool(blocks.isnan().any()):
        raise ValueError("`score` holds NaN, or both infinities in a block, which have no place in an order.")
    return blocks.reshape(*score.shape[:-2], -1).argsort(dim=-1, descending=descending, stable=True)


def check_masked_fraction(r: float) -> None:
    """Raise for a masked fraction outside (0, 1]: a ValueError."""
    if not 0 < r <= 1:
        raise ValueError(f"`r` must lie in (0, 1], got {r}: it is the masked fraction at the start of the path.")


def _check_images(inputs: Tensor, path: str) -> None:
    """Only batches of images have pixels."""
    if inputs.dim() != 4:
        raise ValueError(f"{path} needs images (B, C, H, W), got inputs of shape {tuple(inputs.shape)}.")
    _check_floating(inputs)


def _check_floating(*inputs: Tensor) -> None:
    """Only floating-point inputs can be walked to."""
    if not all(tensor.is_floating_point() for tensor in inputs):
        raise ValueError(
            f"inputs must be floating-point tensors, got {', '.join(str(tensor.dtype) for tensor in inputs)}: integers "
            "have no path and no gradient."
        )


def _check_interval(interval: tuple[float, float]) -> None:
    """Alpha runs forwards inside [0, 1]."""
    if not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError(f"`interval` must satisfy 0 <= start < end <= 1, got {interval}.")
