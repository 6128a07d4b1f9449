"""Blur: by a Gaussian, and by a camera that moves while the shutter is open."""

__all__ = ["camera_shake", "gaussian_blur", "motion_blur", "motion_kernel"]

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.checks import require_between, require_size
from ram_models.degradations.convolution import convolve_valid

LONGEST_SHAKE = 100.0
"""Longest path of a camera shake in pixels. Kernels fitted to GoPro pairs of 1280x720 pixels span at most 36."""


def gaussian_blur(image: Float[Tensor, "*b c h w"], sigma: float, kernel_size: int = 15) -> Float[Tensor, "*b c h w"]:
    """Image convolved with a Gaussian of ``kernel_size`` x ``kernel_size`` taps, mirrored at the border.

    Args:
        image: Values in [0, 1], sides above ``kernel_size // 2``.
        sigma: Standard deviation in pixels, at least 0.01.
        kernel_size: Odd number of taps a side.

    Raises:
        ValueError: If a parameter is out of range or the image too small.

    Source:
        Qin et al. 2024 (RAM), Eq. 11; training draws ``sigma`` from [0.1, 3.1].
    """
    require_between("sigma", sigma, 0.01, math.inf, "the standard deviation of the blur in pixels")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` must be a positive odd number, got {kernel_size}: it has a middle tap.")
    border = kernel_size // 2
    require_size(image, border)
    offsets = torch.arange(kernel_size, dtype=image.dtype, device=image.device) - border
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    planes = image.reshape(-1, 1, *image.shape[-2:])
    padded = F.pad(planes, (border,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1)).reshape(image.shape)


def camera_shake(
    length: float, turn: float, generator: torch.Generator, points: int = 512
) -> Float[Tensor, "points 2"]:
    """Positions of a shaking camera, equally spaced in time: a path of constant speed whose heading wanders.

    The heading starts anywhere and performs a Brownian motion, so that the path is smooth: nearly straight where
    ``turn`` is small, like the blur of GoPro, with hooks where it is large, like the kernels of Levin et al. 2009.

    Args:
        length: Length of the path in pixels, in [0, 100].
        turn: Standard deviation of the heading at the end against that at the start, in radians, at least 0.
        generator: Source of randomness.
        points: Number of positions.

    Returns:
        Row and column of every position in pixels, from the first on.

    Raises:
        ValueError: If a parameter is out of range.
    """
    require_between("length", length, 0, LONGEST_SHAKE, "the length of the camera's path in pixels")
    require_between("turn", turn, 0, math.inf, "by how many radians the camera's heading wanders")
    device = generator.device
    start = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64, device=device)
    wander = torch.randn(points, generator=generator, dtype=torch.float64, device=device).cumsum(0) / points**0.5
    heading = start + turn * wander
    return torch.stack([heading.sin(), heading.cos()], 1).cumsum(0) * (length / points)


def motion_kernel(positions: Float[Tensor, "points 2"]) -> Float[Tensor, "k k"]:
    """Point spread function of a camera that spends equal times at all ``positions``.

    Every position adds equal light, shared among the four nearest taps by bilinear weights. The centre of mass lies on
    the middle tap, so that the blur does not shift the image on average.

    Args:
        positions: Rows and columns in pixels.

    Returns:
        Odd number of taps a side, just as many as are needed; they sum to 1.

    Example:
        >>> motion_kernel(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
        tensor([[0.0000, 0.0000, 0.0000],
                [0.5000, 0.0000, 0.5000],
                [0.0000, 0.0000, 0.0000]])
    """
    offsets = positions - positions.mean(0)
    # Rounding of the mean must not add a ring of taps.
    radius = math.ceil(float(offsets.abs().max()) - 1e-6)
    size = 2 * radius + 1
    corner = offsets.floor()
    fraction = offsets - corner
    kernel = positions.new_zeros(size * size)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (fraction[:, 0] if down else 1 - fraction[:, 0]) * (fraction[:, 1] if right else 1 - fraction[:, 1])
        place = corner.long() + radius + torch.tensor([down, right], device=positions.device)
        place = place.clamp(0, size - 1)  # only taps of weight 0, or 1e-6 by rounding, lie outside
        kernel.index_add_(0, place[:, 0] * size + place[:, 1], weight / len(positions))
    return kernel.reshape(size, size)


def motion_blur(image: Float[Tensor, "*b c h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "*b c h w"]:
    """Image convolved with ``kernel``, mirrored at the border.

    Args:
        image: Values in [0, 1], sides above ``k // 2``.
        kernel: Odd number of taps a side, see :func:`motion_kernel`.

    Raises:
        ValueError: If the image is too small.
    """
    border = len(kernel) // 2
    require_size(image, border)
    planes = F.pad(image.reshape(-1, 1, *image.shape[-2:]), (border,) * 4, mode="reflect")
    return convolve_valid(planes, kernel).reshape(image.shape).clamp(0, 1)
