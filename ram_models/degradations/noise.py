"""Noise: Gaussian, white or correlated, Poisson, pepper, salt and pepper, and speckle."""

__all__ = [
    "add_correlated_noise",
    "add_gaussian_noise",
    "add_pepper",
    "add_poisson_noise",
    "add_salt_and_pepper",
    "add_speckle",
]

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ram_models.degradations.checks import require_between


def add_gaussian_noise(
    image: Float[Tensor, "*b c h w"], sigma_255: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image plus white Gaussian noise, clipped to [0, 1].

    Args:
        image: Values in [0, 1].
        sigma_255: Standard deviation of the noise on the 0-255 scale, at least 0.
        generator: Source of randomness.

    Raises:
        ValueError: If ``sigma_255`` is out of range.

    Source:
        Qin et al. 2024 (RAM), Eq. 10; training draws ``sigma_255`` from (0, 50].
    """
    require_between("sigma_255", sigma_255, 0, math.inf, "the standard deviation of the noise on the 0-255 scale")
    return (image + _normal_like(image, generator) * (sigma_255 / 255)).clamp(0, 1)


def add_correlated_noise(
    image: Float[Tensor, "*b c h w"], sigma_255: float, reach: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image plus Gaussian noise of neighbouring pixels that resemble each other, clipped to [0, 1].

    White noise is smoothed by a Gaussian and scaled back to its strength. Two pixels at a distance d have the
    correlation exp(-q^2) with q = d / (2 ``reach``); channels are independent.

    Args:
        image: Values in [0, 1].
        sigma_255: Standard deviation of the noise on the 0-255 scale, at least 0.
        reach: Standard deviation of the Gaussian in pixels, in [1, 20].
        generator: Source of randomness.

    Raises:
        ValueError: If a parameter is out of range.
    """
    require_between("sigma_255", sigma_255, 0, math.inf, "the standard deviation of the noise on the 0-255 scale")
    require_between("reach", reach, 1, 20, "the standard deviation of the smoothing in pixels")
    border = math.ceil(4 * reach)
    taps = torch.exp(-0.5 * (torch.arange(-border, border + 1, dtype=image.dtype, device=image.device) / reach) ** 2)
    taps = taps / taps.norm()  # white noise keeps its variance
    height, width = image.shape[-2:]
    white = _normal_like(image.new_empty(*image.shape[:-2], height + 2 * border, width + 2 * border), generator)
    planes = white.reshape(-1, 1, *white.shape[-2:])
    noise = F.conv2d(F.conv2d(planes, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1)).reshape(image.shape)
    return (image + noise * (sigma_255 / 255)).clamp(0, 1)


def add_poisson_noise(
    image: Float[Tensor, "*b c h w"], peak: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image as counted with ``peak`` photons for a value of 1, clipped to [0, 1].

    Before clipping, a value x has mean x and variance x / ``peak``.

    Args:
        image: Values in [0, 1].
        peak: Expected count at the value 1; the fewer, the noisier. 30 takes photographs to about 19 dB.
        generator: Source of randomness.

    Raises:
        ValueError: If ``peak`` is out of range.

    Source:
        One of the unseen noises of Qin et al. 2024 (RAM), Table 6, which does not state its strength.
    """
    require_between("peak", peak, 0.01, math.inf, "the expected count of photons at the value 1")
    expected = (image.clamp(0, 1) * peak).to(generator.device)
    return (torch.poisson(expected, generator=generator) / peak).clamp(max=1).to(image.device)


def add_pepper(image: Float[Tensor, "*b c h w"], share: float, generator: torch.Generator) -> Float[Tensor, "*b c h w"]:
    """Image with a random ``share`` of its values set to 0.

    Every channel of a pixel is hit or missed on its own, as by ``skimage.util.random_noise(mode="pepper")``.

    Args:
        image: Values in [0, 1].
        share: Probability of a value to turn black, in [0, 1].
        generator: Source of randomness.

    Raises:
        ValueError: If ``share`` is out of range.

    Source:
        One of the unseen noises of Qin et al. 2024 (RAM), Table 6, which does not state its strength.
    """
    require_between("share", share, 0, 1, "the fraction of values that turn black")
    black: Bool[Tensor, "*b c h w"] = torch.rand(image.shape, generator=generator, device=generator.device) < share
    return image.masked_fill(black.to(image.device), 0)


def add_salt_and_pepper(
    image: Float[Tensor, "*b c h w"], share: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image with a random ``share`` of its values set to 0 or 1, either as often as the other.

    Every channel of a pixel is hit or missed on its own, as by ``skimage.util.random_noise(mode="s&p")``.

    Args:
        image: Values in [0, 1].
        share: Probability of a value to turn black or white, in [0, 1].
        generator: Source of randomness.

    Raises:
        ValueError: If ``share`` is out of range.
    """
    require_between("share", share, 0, 1, "the fraction of values that turn black or white")
    drawn = torch.rand(image.shape, generator=generator, device=generator.device).to(image.device)
    return image.masked_fill(drawn < share, 1).masked_fill(drawn < share / 2, 0)


def add_speckle(
    image: Float[Tensor, "*b c h w"], sigma: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image with multiplicative Gaussian noise, x (1 + ``sigma`` n), clipped to [0, 1].

    Before clipping, a value x has mean x and standard deviation ``sigma`` x.

    Args:
        image: Values in [0, 1].
        sigma: Standard deviation relative to the value, at least 0.
        generator: Source of randomness.

    Raises:
        ValueError: If ``sigma`` is out of range.

    Source:
        One of the unseen noises of Qin et al. 2024 (RAM), Table 6, which does not state its strength.
    """
    require_between("sigma", sigma, 0, math.inf, "the standard deviation of the noise relative to the value")
    return (image + image * _normal_like(image, generator) * sigma).clamp(0, 1)


def _normal_like(image: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn where the generator lives and moved to the image."""
    return torch.randn(image.shape, generator=generator, dtype=image.dtype, device=generator.device).to(image.device)
