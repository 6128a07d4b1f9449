"""Masked image modelling: random masks, tokens in place of hidden pixels, and twin masks."""

__all__ = ["hide", "random_mask", "restore_with_twins"]

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def random_mask(
    batch: int, height: int, width: int, generator: torch.Generator, ratio: float = 0.5, patch_size: int = 1
) -> Float[Tensor, "b h w"]:
    """Masks that hide a fixed fraction of every image, block by block.

    Args:
        batch: Number of masks.
        height: Rows in pixels, a multiple of ``patch_size``.
        width: Columns in pixels, a multiple of ``patch_size``.
        generator: Source of randomness; the result is on its device.
        ratio: Fraction of blocks that is hidden, in (0, 1).
        patch_size: Side of the blocks in pixels; RAM uses 1.

    Returns:
        1.0 where hidden, 0.0 where visible; every mask hides ``round(ratio * blocks)`` blocks.

    Raises:
        ValueError: If the ratio leaves nothing hidden or nothing visible, or the blocks do not tile the image.

    Source:
        Qin et al. 2024 (RAM), Sec. 3.2.

    Example:
        >>> random_mask(2, 4, 4, torch.Generator().manual_seed(0), ratio=0.25).sum((1, 2))
        tensor([4., 4.])
    """
    if patch_size < 1:
        raise ValueError(f"`patch_size` must be at least 1 pixel, got {patch_size}.")
    if height % patch_size or width % patch_size:
        raise ValueError(f"`patch_size` {patch_size} must divide the image, got {height}x{width}.")
    rows, columns = height // patch_size, width // patch_size
    hidden = round(ratio * rows * columns)
    if not 0 < hidden < rows * columns:
        raise ValueError(f"`ratio` must leave hidden and visible blocks, got {ratio} of {rows * columns}.")
    noise = torch.rand(batch, rows * columns, generator=generator, device=generator.device)
    mask = torch.zeros_like(noise).scatter_(1, noise.argsort(1)[:, :hidden], 1.0).reshape(batch, rows, columns)
    return mask.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)


def hide(
    image: Float[Tensor, "b c h w"], mask: Float[Tensor, "b h w"], token: Float[Tensor, "#b c #h #w"] | float = 0.0
) -> Float[Tensor, "b c h w"]:
    """Image with ``token`` in place of hidden pixels; fractional masks blend linearly.

    Args:
        image: Image to hide in part.
        mask: 1 where a pixel is hidden, 0 where it is visible.
        token: Values in place of hidden pixels.

    Raises:
        ValueError: If the mask has a channel dimension, or mask or token do not fit the image.
    """
    if mask.shape != (image.shape[0], *image.shape[-2:]):
        expected = (image.shape[0], *image.shape[-2:])
        raise ValueError(f"`mask` must have shape {tuple(expected)} (batch, height, width), got {tuple(mask.shape)}.")
    if isinstance(token, Tensor) and any(t not in (1, i) for t, i in zip(token.shape, image.shape, strict=True)):
        raise ValueError(
            f"the mask token of shape {tuple(token.shape)} does not fit an image of shape {tuple(image.shape)}: "
            "pass `mask_tokens` explicitly (RAM's pre-training passes zeros)."
        )
    hidden = mask.unsqueeze(1)
    return image * (1 - hidden) + token * hidden


def restore_with_twins(
    restore: Callable[[Tensor, Tensor], Tensor], image: Float[Tensor, "b c h w"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    """Every pixel as predicted while it was hidden: one run with ``mask``, one with its complement.

    Args:
        restore: Network, called as ``restore(image, mask)``.
        image: Degraded image.
        mask: 1 where hidden in the first run, 0 where hidden in the second; binary.

    Source:
        Qin et al. 2024 (RAM), Sec. 3.3, "twin-masks".
    """
    hidden = mask.unsqueeze(1)
    return restore(image, mask) * hidden + restore(image, 1 - mask) * (1 - hidden)
