"""Shifts: what the bench does to photographs, and what a network is to make of them."""

__all__ = ["SHIFTS", "Shift"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ram_models.degradations.blur import gaussian_blur
from ram_models.degradations.compression import compress_jpeg
from ram_models.degradations.noise import add_gaussian_noise

Degrade = Callable[[Float[Tensor, "3 h w"], torch.Generator], Float[Tensor, "3 oh ow"]]


@dataclass(frozen=True)
class Shift:
    """Data that a network was not made for.

    Args:
        name: In results.
        words: On the page.
        degrade: From a clean crop to the network's input; the network is to give the clean crop back.
        scale: Factor between the sides of both.
    """

    name: str
    words: str
    degrade: Degrade
    scale: int = 1


def _small(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 oh ow"]:
    """The image at half its size, every pixel the mean of four."""
    return F.avg_pool2d(image, 2)


SHIFTS: Mapping[str, Shift] = MappingProxyType(
    {
        shift.name: shift
        for shift in (
            Shift("jpeg-20", "photographs, JPEG of quality 20", lambda image, _: compress_jpeg(image, 20)),
            Shift("jpeg-50", "photographs, JPEG of quality 50", lambda image, _: compress_jpeg(image, 50)),
            Shift(
                "noise-15", "photographs, noise sigma 15", lambda image, source: add_gaussian_noise(image, 15.0, source)
            ),
            Shift(
                "noise-25", "photographs, noise sigma 25", lambda image, source: add_gaussian_noise(image, 25.0, source)
            ),
            Shift(
                "x2-blurred",
                "photographs blurred with sigma 1.5, then halved in size",
                lambda image, _: _small(gaussian_blur(image, 1.5)),
                scale=2,
            ),
            Shift(
                "x2-noisy",
                "photographs of half the size, noise sigma 15",
                lambda image, source: add_gaussian_noise(_small(image), 15.0, source),
                scale=2,
            ),
        )
    }
)
"""Every shift by its name."""
