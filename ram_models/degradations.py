"""The degradations that RAM synthesises, as functions of an image in [0, 1] and their parameters."""

__all__ = ["TASKS", "add_gaussian_noise", "compress_jpeg", "degrade", "gaussian_blur"]

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def add_gaussian_noise(
    image: Float[Tensor, "*b c h w"], sigma_255: float, generator: torch.Generator
) -> Float[Tensor, "*b c h w"]:
    """Image plus white Gaussian noise, clipped to [0, 1].

    Args:
        image: Values in [0, 1].
        sigma_255: Standard deviation of the noise on the 0-255 scale, at least 0.
        generator: Source of randomness.

    Source:
        Qin et al. 2024 (RAM), Eq. 10; training draws ``sigma_255`` from (0, 50].
    """
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype, device=generator.device)
    return (image + noise.to(image.device) * (sigma_255 / 255)).clamp(0, 1)


def gaussian_blur(image: Float[Tensor, "*b c h w"], sigma: float, kernel_size: int = 15) -> Float[Tensor, "*b c h w"]:
    """Image convolved with a Gaussian of ``kernel_size`` x ``kernel_size`` taps, mirrored at the border.

    Args:
        image: Values in [0, 1], sides above ``kernel_size // 2``.
        sigma: Standard deviation in pixels, above 0.
        kernel_size: Odd number of taps a side.

    Source:
        Qin et al. 2024 (RAM), Eq. 11; training draws ``sigma`` from [0.1, 3.1].
    """
    offsets = torch.arange(kernel_size, dtype=image.dtype, device=image.device) - kernel_size // 2
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    planes = image.reshape(-1, 1, *image.shape[-2:])
    padded = F.pad(planes, (kernel_size // 2,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1)).reshape(image.shape)


def compress_jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """Image after a round trip through JPEG at ``quality`` (1-95), by Pillow with its default chroma subsampling.

    Source:
        Qin et al. 2024 (RAM), Eq. 12; training draws ``quality`` from [20, 90].
    """
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer), dtype=np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of a random strength."""
    return add_gaussian_noise(image, 50 - _uniform(0.0, 50.0, generator), generator)


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur of a random width."""
    return gaussian_blur(image, _uniform(0.1, 3.1, generator))


def _jpeg(image: Tensor, generator: torch.Generator) -> Tensor:
    """JPEG of a random quality."""
    return compress_jpeg(image, int(_uniform(20.0, 91.0, generator)))


TASKS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {"noise": _noise, "blur": _blur, "jpeg": _jpeg}
)
"""Degradations by name with the paper's parameter ranges, each called as ``task(image, generator)``."""


def degrade(image: Float[Tensor, "3 h w"], task: str, generator: torch.Generator) -> Float[Tensor, "3 h w"]:
    """Image after the degradation ``task``, its strength drawn from the paper's range.

    Raises:
        ValueError: If there is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"no degradation {task!r}; there are {', '.join(TASKS)}.")
    return TASKS[task](image, generator)
