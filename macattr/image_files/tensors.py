"""Image files as tensors."""

__all__ = ["center_crop", "read_image", "read_pixels"]

from pathlib import Path

import torch
from jaxtyping import Float, Num
from torch import Tensor

from macattr.image_files.pictures import read_picture


def read_image(path: Path | str) -> Float[Tensor, "3 h w"]:
    """Image file as RGB in [0, 1]; see :func:`read_pixels` for the kinds of files and the errors."""
    pixels = read_pixels(path)
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def read_pixels(path: Path | str) -> Num[Tensor, "3 h w"]:
    """Image file as RGB bytes 0-255, or as float in [0, 1] if it has 16 bits.

    The file is read by :func:`read_picture`. Grey images get three equal channels; an alpha channel that is opaque
    everywhere is dropped.

    Raises:
        ValueError: If the file cannot be read, or the image is partly transparent.
    """
    picture = read_picture(path)
    if picture.alpha and (picture.pixels[..., -1] < picture.white).any():
        raise ValueError(f"{str(path)!r} is partly transparent: flatten it onto a background first.")
    if picture.white > 255:
        return picture.rgb()
    colours = torch.from_numpy(picture.pixels[..., : picture.colours]).permute(2, 0, 1)
    return colours if picture.colours == 3 else colours.expand(3, -1, -1).clone()


def center_crop(image: Float[Tensor, "c h w"], size: int) -> Float[Tensor, "c ch cw"]:
    """The middle of an image, at most ``size`` pixels a side."""
    top, left = (max(0, side - size) // 2 for side in image.shape[-2:])
    return image[:, top : top + size, left : left + size]
