"""Restoration with a network by name, of images of any size: large ones in tiles, tiny ones padded."""

__all__ = [
    "Restorer",
    "check_device",
    "check_tiles",
    "network_by_name",
    "restore_any_size",
    "restorer",
    "tile_count",
]

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.checkpoints import BUNDLED, create, load_weights
from ram_models.networks.masking import random_mask, restore_with_twins

Restorer: TypeAlias = Callable[[Tensor], Tensor]
"""Degraded images (b, 3, h, w) to restored ones of the same shape, RGB nominally in [0, 1]."""

GRID = 16
"""Tiles begin at multiples of this many pixels, so that attention windows and strides fall as in the whole image."""


class Identity(nn.Module):
    """The identity: its output is the degraded image."""

    def forward(self, image: Float[Tensor, "b 3 h w"], mask: Tensor | None = None) -> Float[Tensor, "b 3 h w"]:
        """The same image; a mask has no effect."""
        return image


def network_by_name(
    name: str, weights: Path | str | None, device: str, twins: bool = False
) -> tuple[nn.Module, str | None]:
    """A network with trained weights, in eval mode, on the device; and the SHA-256 of its weights.

    Args:
        name: See :func:`ram_models.networks.checkpoints.build`; or ``identity``, whose output is its input.
        weights: See :func:`ram_models.networks.checkpoints.load_weights`; None for the bundled ones.
        device: Device to compute on, such as "cpu" or "cuda".
        twins: Whether it will be given twin masks, see :func:`restorer`.

    Raises:
        ValueError: If there is no such network, file or device, or a network would have random weights; or if weights
            or twin masks are given to ``identity``.
    """
    check_device(device)
    if name == "identity":
        if twins:
            raise ValueError("`twins` has no effect on `network` identity: leave it out.")
        if weights is not None:
            raise ValueError(f"`weights` {str(weights)!r} have no effect on `network` identity: leave them out.")
        return Identity(), None
    network, bundled = create(name), BUNDLED / f"{name}.safetensors"
    if weights is None and not bundled.is_file():
        raise ValueError(f"`network` {name!r} comes without weights: give a file of them as `weights`.")
    report = load_weights(network, bundled if weights is None else weights)
    return network.to(device).eval(), report.sha256


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Args:
        device: Name of a device, such as "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: If there is no such device.
    """
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    types = ["cpu", *([here.type] if here else [])]
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"`device` {device!r} does not exist: choose from {', '.join(types)}.") from error
    if wanted.type not in types:
        raise ValueError(
            f"`device` is {device!r}, but torch finds no {wanted.type} device here: leave it out to use the CPU."
        )
    count = torch.accelerator.device_count() if wanted.type != "cpu" else 1
    if wanted.index is not None and wanted.index >= count:
        raise ValueError(f"`device` is {device!r}, but there are {count} of that type here, numbered from 0.")


def restorer(
    network: nn.Module, twins: bool, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Restorer:
    """The network as a function of the degraded image alone.

    Args:
        network: On ``device``; called as ``network(image)``, or ``network(image, mask)`` with twin masks.
        twins: Predict every pixel while it is hidden, see :func:`ram_models.networks.masking.restore_with_twins`.
        generator: Source of the twin masks (half of the pixels hidden, one by one); on the CPU.
        device: Device of the network.
    """

    def restore(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        if not twins:
            out: Tensor = network(image.to(device))
            return out
        batch, _, height, width = image.shape
        mask = random_mask(batch, height, width, generator)
        return restore_with_twins(network, image.to(device), mask.to(device))

    return restore


def check_tiles(tile: int, overlap: int) -> None:
    """Refuse a tile or overlap that cannot cover an image.

    Raises:
        ValueError: If one of them is not a multiple of 16, or the overlap is negative or more than half of the tile.
    """
    if tile < GRID or tile % GRID:
        raise ValueError(f"`tile` must be a positive multiple of {GRID} pixels, got {tile}.")
    if overlap % GRID or not 0 <= overlap <= tile // 2:
        raise ValueError(
            f"`overlap` must be a multiple of {GRID} pixels from 0 to half of `tile` {tile}, got {overlap}."
        )


def _tile_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles that cover ``length`` pixels in one direction.

    All have ``tile`` pixels and overlap by ``overlap``, but the last: it ends with the image, is up to 15 pixels
    shorter, and overlaps by more.

    Example:
        >>> _tile_spans(100, 48, 16)
        [(0, 48), (32, 80), (64, 100)]
    """
    last = max(0, -(-(length - tile) // GRID) * GRID)
    starts = [*range(0, last, tile - overlap), last]
    return [(start, min(start + tile, length)) for start in starts]


def tile_count(height: int, width: int, tile: int, overlap: int) -> int:
    """Number of tiles in which an image is restored.

    Args:
        height: Rows in pixels.
        width: Columns in pixels.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share.
    """
    return len(_tile_spans(height, tile, overlap)) * len(_tile_spans(width, tile, overlap))


def _tile_weights(spans: list[tuple[int, int]], overlap: int) -> Float[Tensor, "tiles length"]:
    """Share of every tile in every pixel of one direction; the shares of a pixel add up to 1.

    Towards a neighbour, the outer quarter of the overlap has no share (there a tile lacks context) and the middle half
    fades linearly, so tiling is exact for a network that sees at most ``overlap // 4`` pixels far.
    """
    length, margin = spans[-1][1], overlap // 4
    position = torch.arange(length) + 0.5
    weights = torch.zeros(len(spans), length)
    for row, (begin, end) in zip(weights, spans, strict=True):
        inside = (position > begin) & (position < end)
        fade_in = (position - begin - margin) / max(1, overlap - 2 * margin) if begin else torch.ones(length)
        fade_out = (end - position - margin) / max(1, overlap - 2 * margin) if end < length else torch.ones(length)
        row.copy_(torch.minimum(fade_in, fade_out).clamp(0, 1) * inside if overlap else inside.float())
    return weights / weights.sum(0)


@torch.no_grad()
def restore_any_size(
    restore: Restorer,
    image: Float[Tensor, "3 h w"],
    tile: int | None = None,
    overlap: int = 64,
    progress: Callable[[int], object] = lambda count: None,
) -> Float[Tensor, "3 h w"]:
    """Restored image, clipped to [0, 1].

    An image with a side of more than ``tile`` pixels is restored tile by tile and blended; memory then is that of one
    tile plus two images. A side below 16 pixels is padded by repeating the border and cut back.

    Args:
        restore: See :func:`restorer`.
        image: Degraded image, RGB in [0, 1].
        tile: Largest side in pixels that is restored at once, a multiple of 16; None for the whole image.
        overlap: Pixels that neighbouring tiles share, a multiple of 16, at most half of ``tile``.
        progress: Called with 1 after every tile.

    Raises:
        ValueError: If tile and overlap do not fit, or the network gives another size or values that are not finite.
    """
    height, width = image.shape[-2:]
    if tile is None:
        tile, overlap = -(-max(height, width) // GRID) * GRID, 0
    check_tiles(tile, overlap)
    rows, columns = _tile_spans(height, tile, overlap), _tile_spans(width, tile, overlap)
    down, across = _tile_weights(rows, overlap), _tile_weights(columns, overlap)
    out = torch.zeros(image.shape)
    for (top, bottom), vertical in zip(rows, down, strict=True):
        for (left, right), horizontal in zip(columns, across, strict=True):
            restored = _restore_tile(restore, image[:, top:bottom, left:right])
            share = vertical[top:bottom, None] * horizontal[None, left:right]
            out[:, top:bottom, left:right] += restored * share
            progress(1)
    return out.clamp_(0, 1)


def _restore_tile(restore: Restorer, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """One tile, on the CPU; padded up to 16 pixels a side for the network if it is smaller."""
    height, width = image.shape[-2:]
    padded = F.pad(image[None], (0, max(0, GRID - width), 0, max(0, GRID - height)), mode="replicate")
    try:
        restored = restore(padded).float().cpu()
    except RuntimeError as error:  # a size that does not fit its strides, or too little memory
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the network cannot restore {height}x{width} pixels at once ({reason}): set `tile` to a size that fits."
        ) from error
    if restored.shape != padded.shape:
        shapes = tuple(restored.shape), tuple(padded.shape)
        raise ValueError(f"the network returned shape {shapes[0]} for an image of shape {shapes[1]}: it must keep it.")
    if not restored.isfinite().all():
        raise ValueError("the network returned values that are not finite: check its weights.")
    return restored[0, :, :height, :width]
