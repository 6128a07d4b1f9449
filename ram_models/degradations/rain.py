"""Rain: bright oriented streaks."""

__all__ = ["add_rain", "rain_streaks"]

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.checks import require_between
from ram_models.degradations.convolution import convolve_valid

SCALES = (0.5, 1.0, 2.0)
"""Size of the streaks in the layers, far to near, relative to the middle one."""


def add_rain(
    image: Float[Tensor, "*b c h w"], streaks: Float[Tensor, "h w"], strength: float
) -> Float[Tensor, "*b c h w"]:
    """Image plus ``strength`` times the light of ``streaks`` in every channel, clipped at 1.

    Args:
        image: Values in [0, 1].
        streaks: Values in [0, 1], see :func:`rain_streaks`.
        strength: Light of the brightest streaks, in [0, 1].

    Raises:
        ValueError: If ``strength`` is out of range.

    Source:
        The additive model of Yang et al. 2017 (Rain100), where streaks of several directions overlap.
    """
    require_between("strength", strength, 0, 1, "the light of the brightest streaks")
    return (image + strength * streaks.to(image)).clamp(max=1)


def rain_streaks(
    height: int, width: int, angle: float, length: float, coverage: float, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """Three layers of streaks, small and far to large and near, in directions within a few degrees of ``angle``.

    Args:
        height: Pixels from top to bottom.
        width: Pixels from left to right.
        angle: Mean direction in degrees from the vertical; positive falls to the right.
        length: Length of the streaks in the middle layer, in pixels, in [1, 200].
        coverage: Mean number of streaks over a pixel, all layers together, in [0, 10].
        generator: Source of randomness.

    Returns:
        Light in [0, 1].

    Raises:
        ValueError: If a parameter is out of range.
    """
    require_between("angle", angle, -math.inf, math.inf, "the direction of the streaks in degrees from the vertical")
    require_between("length", length, 1, 200, "the length of the streaks in pixels")
    require_between("coverage", coverage, 0, 10, "the mean number of streaks over a pixel")
    tilt = 5 * torch.randn(len(SCALES), generator=generator, device=generator.device)
    layers = [
        _streak_layer(
            height,
            width,
            angle=angle + float(extra),
            length=length * scale,
            thickness=0.55 * scale**0.5,
            coverage=coverage / len(SCALES),
            generator=generator,
        )
        for scale, extra in zip(SCALES, tilt, strict=True)
    ]
    return torch.stack(layers).sum(0).clamp(max=1)


def _streak_layer(
    height: int,
    width: int,
    angle: float,
    length: float,
    thickness: float,
    coverage: float,
    generator: torch.Generator,
) -> Float[Tensor, "height width"]:
    """Equal, parallel streaks of random brightness in [0, 1] at random places; overlapping ones add up.

    The mean is ``coverage`` / 2, apart from chance.

    Args:
        height: Pixels from top to bottom.
        width: Pixels from left to right.
        angle: Direction in degrees from the vertical; positive falls to the right.
        length: Length in pixels; the light falls off as a parabola towards both ends.
        thickness: Standard deviation of the Gaussian cross-section, in pixels.
        coverage: Mean number of streaks over a pixel.
        generator: Source of randomness.
    """
    streak = _streak(angle, length, thickness)
    border = len(streak) // 2
    # The canvas is wider than the image, so that streaks reach into it from outside.
    canvas = (height + 2 * border, width + 2 * border)
    share = coverage / float(streak.sum())
    drops = torch.rand(canvas, generator=generator, device=generator.device) < share
    light = drops * torch.rand(canvas, generator=generator, device=generator.device)
    return convolve_valid(light, streak).clamp(min=0)


def _streak(angle: float, length: float, thickness: float) -> Tensor:
    """One streak of brightness 1 that fades towards its ends, in a square with an odd number of pixels a side."""
    radius = math.ceil(max(length / 2, 3 * thickness))
    rows, columns = torch.meshgrid(*[torch.arange(-radius, radius + 1, dtype=torch.float32)] * 2, indexing="ij")
    down, right = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = rows * down + columns * right, columns * down - rows * right
    return (1 - (2 * along / length) ** 2).clamp(min=0) * torch.exp(-0.5 * (across / thickness) ** 2)
