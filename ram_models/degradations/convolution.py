"""Convolution with one kernel of any size."""

__all__ = ["convolve_valid"]

import torch
from jaxtyping import Float
from torch import Tensor


def convolve_valid(image: Float[Tensor, "*b h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "*b vh vw"]:
    """Image convolved with ``kernel`` wherever the kernel lies inside of it, by Fourier transform.

    Direct convolution costs the square of ``k`` for every pixel: too much for streaks of 100 pixels.

    Args:
        image: float32 or float64, sides at least ``k``.
        kernel: Taps.

    Returns:
        Sides shorter by ``k`` - 1, exact to rounding.
    """
    size = image.shape[-2:]
    spectrum = torch.fft.rfft2(image) * torch.fft.rfft2(kernel.to(image), s=size)
    reach = len(kernel) - 1  # earlier values have wrapped around
    whole: Tensor = torch.fft.irfft2(spectrum, s=size)
    return whole[..., reach:, reach:]
