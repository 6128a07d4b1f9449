"""Image files as tensors."""

__all__ = ["center_crop", "fit_to_multiple", "luminance", "read_image", "read_pixels"]

from pathlib import Path

import torch
from jaxtyping import Float, Num
from torch import Tensor

from macattr.image_files.pictures import read_picture


def read_image(path: Path | str, grey: bool = False) -> Float[Tensor, "c h w"]:
    """Image file as RGB, or as grey in one channel, in [0, 1].

    See :func:`read_pixels` for the kinds of files and the errors, and :func:`luminance` for the grey of colours.
    """
    pixels = read_pixels(path)
    image = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return luminance(image) if grey else image


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


def luminance(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "1 h w"]:
    """Grey of a colour image, 0.299 R + 0.587 G + 0.114 B as in ITU-R BT.601; equal channels stay exact."""
    red, green, blue = image.unbind()
    grey: Tensor = red + 0.587 * (green - red) + 0.114 * (blue - red)
    return grey[None]


def center_crop(image: Float[Tensor, "c h w"], size: int) -> Float[Tensor, "c ch cw"]:
    """The middle of an image, at most ``size`` pixels a side."""
    return _middle(image, size, size)


def fit_to_multiple(image: Float[Tensor, "c h w"], multiple: int) -> Float[Tensor, "c mh mw"]:
    """The middle of an image, its sides cut to multiples; a side shorter than one multiple is reflected up to it.

    Args:
        image: At least one pixel a side.
        multiple: Number that divides both sides of the result.

    Example:
        >>> fit_to_multiple(torch.tensor([[[0.1, 0.2, 0.3, 0.4, 0.5]]]), 2)
        tensor([[[0.1000, 0.2000, 0.3000, 0.4000],
                 [0.1000, 0.2000, 0.3000, 0.4000]]])
    """
    rows, columns = (max(side - side % multiple, multiple) for side in image.shape[-2:])
    middle = _middle(image, rows, columns)
    return middle[:, _reflected(middle.shape[1], rows)][:, :, _reflected(middle.shape[2], columns)]


def _middle(image: Tensor, rows: int, columns: int) -> Tensor:
    """The middle of an image, at most so many rows and columns."""
    top, left = max(0, image.shape[1] - rows) // 2, max(0, image.shape[2] - columns) // 2
    return image[:, top : top + rows, left : left + columns]


def _reflected(side: int, size: int) -> Tensor:
    """Indices into a side whose image continues beyond both ends as in mirrors, ``size`` in all."""
    period = max(1, 2 * (side - 1))
    places = (torch.arange(size, device="cpu") - (size - side) // 2) % period
    return torch.minimum(places, period - places) if side > 1 else torch.zeros_like(places)
