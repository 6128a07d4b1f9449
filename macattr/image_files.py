"""Image files as tensors, with a clear word about every file that is not what it should be."""

__all__ = ["SUFFIXES", "center_crop", "find_images", "read_image", "read_pixels"]

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num
from PIL import Image
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""


def find_images(source: Path | str) -> list[Path]:
    """The image file ``source``, or all image files below the folder, sorted.

    Raises:
        ValueError: If there is none.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(source)!r}.")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"the folder {str(source)!r} holds no image: looked for {', '.join(SUFFIXES)}.")
    return found


def read_image(path: Path | str) -> Float[Tensor, "3 h w"]:
    """Image file as RGB in [0, 1]; see :func:`read_pixels` for the kinds of files and the errors."""
    pixels = read_pixels(path)
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def read_pixels(path: Path | str) -> Num[Tensor, "3 h w"]:
    """Image file as RGB bytes 0-255, or as float in [0, 1] if it has more than 8 bits.

    Grey images get three equal channels, 16-bit grey ones keep their precision, an alpha channel that is opaque
    everywhere is dropped.

    Raises:
        ValueError: If the file is empty, truncated, no image, partly transparent, or of a kind without RGB values.
    """
    file = Path(path)
    if file.is_file() and file.stat().st_size == 0:
        raise ValueError(f"the file {str(path)!r} is empty.")
    try:
        with Image.open(file) as opened:
            opened.load()
            image = opened.copy()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}.") from error
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32) / 65535
        return torch.from_numpy(values).expand(3, -1, -1).clone()
    if image.mode == "F":
        raise ValueError(f"{str(path)!r} holds floating-point pixels of unknown range: save it with 8 or 16 bits.")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if (alpha < 255).any():
            raise ValueError(f"{str(path)!r} is partly transparent: flatten it onto a background first.")
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def center_crop(image: Float[Tensor, "c h w"], size: int) -> Float[Tensor, "c ch cw"]:
    """The middle of an image, at most ``size`` pixels a side."""
    top, left = (max(0, side - size) // 2 for side in image.shape[-2:])
    return image[:, top : top + size, left : left + size]
