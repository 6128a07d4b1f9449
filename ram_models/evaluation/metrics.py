"""PSNR and SSIM of restored images, under conventions that are stated."""

__all__ = ["SSIM_WINDOW", "Convention", "luma", "psnr", "ssim"]

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11
"""Side in pixels of the Gaussian window of SSIM (sigma 1.5 pixels, cut off at 3.5 sigma)."""

K1, K2, HUGE = 0.01, 0.03, 1e4
"""Constants of SSIM, and a number so large that images do not matter next to it."""


@dataclass(frozen=True)
class Convention:
    """Convention of a comparison: papers that differ in any of these do not report the same quantity.

    Args:
        channels: ``rgb``: all three channels count alike. ``y``: luma alone, see :func:`luma`.
        border: Pixels that are cut off every side first.
        data_range: Value of white; images lie in [0, ``data_range``] and are clipped to it.
        rounded: Round to the 256 levels of an 8-bit file first (before luma is taken; luma is not rounded again).

    Raises:
        ValueError: If ``border`` is negative or ``data_range`` not positive.
    """

    channels: Literal["rgb", "y"] = "rgb"
    border: int = 0
    data_range: float = 1.0
    rounded: bool = True

    def __post_init__(self) -> None:
        if self.channels not in ("rgb", "y"):
            raise ValueError(f"`channels` must be 'rgb' or 'y', got {self.channels!r}.")
        if self.border < 0:
            raise ValueError(f"`border` must be at least 0 pixels, got {self.border}.")
        if not self.data_range > 0:
            raise ValueError(f"`data_range` must be positive, got {self.data_range}: it is the value of white.")

    def __str__(self) -> str:
        """The convention in words, for the head of a table."""
        return ", ".join(
            (
                "RGB" if self.channels == "rgb" else "Y of YCbCr (BT.601 as in MATLAB)",
                "rounded to 8 bits" if self.rounded else "not rounded",
                f"{self.border} border pixels cut" if self.border else "no border cut",
                f"data range {self.data_range:g}",
            )
        )

    def apply(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "c ch cw"]:
        """The compared part of an image: float64 on the scale [0, ``data_range``], one or three channels.

        Raises:
            ValueError: If a value is not finite, or the border leaves nothing.
        """
        if not image.isfinite().all():
            raise ValueError("an image holds values that are not finite: check the network and its weights.")
        if min(image.shape[-2:]) <= 2 * self.border:
            height, width = image.shape[-2:]
            raise ValueError(f"`border` {self.border} leaves nothing of an image of {height}x{width} pixels.")
        unit = (image.double() / self.data_range).clamp(0, 1)
        unit = (unit * 255).round() / 255 if self.rounded else unit
        inner = unit[:, self.border : unit.shape[1] - self.border, self.border : unit.shape[2] - self.border]
        return (luma(inner) if self.channels == "y" else inner) * self.data_range


def luma(image: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 1 h w"]:
    r"""Y of YCbCr for RGB in [0, 1], as MATLAB's ``rgb2ycbcr`` gives it for floating-point images.

    .. math:: Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255

    Returns:
        Luma in [16/255, 235/255].

    Source:
        ITU-R BT.601.

    Example:
        >>> luma(torch.ones(3, 1, 1)) * 255
        tensor([[[235.]]])
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=image.dtype, device=image.device)
    return (16 + (image * weights.reshape(3, 1, 1)).sum(-3, keepdim=True)) / 255


def psnr(
    restored: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], convention: Convention | None = None
) -> float:
    """Peak signal-to-noise ratio of one image in dB: the mean squared error over all compared values; inf if equal.

    Args:
        restored: Image to be judged.
        clean: Its ground truth.
        convention: Channels, border and range; default :class:`Convention` as it stands.

    Raises:
        ValueError: If the sizes differ or a value is not finite.

    Example:
        >>> grey = torch.full((3, 8, 8), 0.5)
        >>> round(psnr(grey + 0.1, grey, Convention(rounded=False)), 4)
        20.0
    """
    convention = convention or Convention()
    compared = _compared(restored, clean, convention)
    return float(peak_signal_noise_ratio(*compared, data_range=convention.data_range))


def ssim(
    restored: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"], convention: Convention | None = None
) -> float:
    """Structural similarity of one image, at most 1: mean over channels and over all windows inside the image.

    The window is a Gaussian of sigma 1.5 over 11 x 11 pixels, variances are those of the population, K1 = 0.01 and
    K2 = 0.03. Windows that would reach over the border are left out.

    Args:
        restored: Image to be judged.
        clean: Its ground truth.
        convention: Channels, border and range; default :class:`Convention` as it stands.

    Raises:
        ValueError: If the sizes differ, a value is not finite, or no window fits into the image.

    Source:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    convention = convention or Convention()
    compared = _compared(restored, clean, convention)
    height, width = compared[0].shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels a side, got {height}x{width} (border {convention.border} cut)."
        )
    # torchmetrics mirrors the image at its border; Wang et al. and scikit-image leave that out.
    margin = SSIM_WINDOW // 2
    local = _ssim_map(*compared, convention.data_range)[..., margin : height - margin, margin : width - margin]
    return float(local.double().mean())


def _ssim_map(
    restored: Float[Tensor, "c h w"], clean: Float[Tensor, "c h w"], white: float
) -> Float[Tensor, "1 c h w"]:
    """SSIM around every pixel, as the product of its two factors: luminance, and contrast with structure.

    The second does not change if both images are shifted, and is taken around middle grey: around 0, its variances as
    float32 differences of squares put the SSIM of flat bright images off by 2e-4. (In float64 one image of 1280x720
    pixels would take 5 GB.) A huge constant turns the other factor into 1.
    """
    preds, target = restored[None] / white, clean[None] / white

    def both(shift: float, k1: float, k2: float) -> Tensor:
        images = (preds - shift).float(), (target - shift).float()
        _, local = structural_similarity_index_measure(
            *images, sigma=1.5, data_range=1.0, k1=k1, k2=k2, return_full_image=True
        )
        out: Tensor = local
        return out

    return both(0.0, K1, HUGE) * both(0.5, HUGE, K2)


def _compared(restored: Tensor, clean: Tensor, convention: Convention) -> tuple[Tensor, Tensor]:
    """Both images under the convention."""
    if restored.shape != clean.shape:
        sizes = [f"{image.shape[-2]}x{image.shape[-1]}" for image in (restored, clean)]
        raise ValueError(f"the restored image has {sizes[0]} pixels, the clean one {sizes[1]}: they must be equal.")
    return convention.apply(restored), convention.apply(clean)
