"""Compression: JPEG."""

__all__ = ["compress_jpeg"]

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ram_models.degradations.checks import require_between


def compress_jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """Image after a round trip through JPEG at ``quality``, by Pillow with its default chroma subsampling.

    Args:
        image: Values in [0, 1], rounded to 8 bits before.
        quality: Whole number in [1, 95]; above 95 the files grow with hardly any gain.

    Raises:
        ValueError: If ``quality`` is out of range.

    Source:
        Qin et al. 2024 (RAM), Eq. 12; training draws ``quality`` from [20, 90].
    """
    require_between("quality", quality, 1, 95, "the quality setting of the JPEG encoder")
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer), dtype=np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image)
