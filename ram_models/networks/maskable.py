"""Base of the RAM networks: pixels hidden by a mask, and inputs of any size."""

__all__ = ["Maskable", "reflect_pad"]

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.masking import hide


class Maskable(nn.Module):
    """A restoration network whose input pixels can be hidden; subclasses give :meth:`restore` and the two attributes.

    Hidden pixels are replaced first, then the image is padded, restored and cropped back.
    """

    size_multiple: int
    """Both sides of the input of :meth:`restore` are multiples of this, in pixels."""
    mask_token: Tensor | float
    """Value shown in place of hidden pixels by default."""

    def restore(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restored image of the same shape; both sides are multiples of ``size_multiple``.

        Raises:
            NotImplementedError: In this class; networks implement it.
        """
        raise NotImplementedError

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        mask: Float[Tensor, "b h w"] | None = None,
        mask_tokens: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Restored image.

        Args:
            image: Network input (ImageNet-normalised for the released weights), larger than the padding it needs.
            mask: 1 where a pixel is hidden, 0 where visible; fractions blend.
            mask_tokens: Values shown in place of hidden pixels; default ``mask_token``.

        Returns:
            Output of the same shape as ``image``.

        Raises:
            ValueError: If the image is too small to be padded by reflection or does not fit mask or token.
        """
        height, width = image.shape[-2:]
        if mask is not None:
            image = hide(image, mask, self.mask_token if mask_tokens is None else mask_tokens)
        return self.restore(reflect_pad(image, self.size_multiple))[..., :height, :width]


def reflect_pad(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c ph pw"]:
    """Image mirrored at its bottom and right border until both sides are multiples of ``multiple``.

    Raises:
        ValueError: If the image is too small to be mirrored.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom >= height or right >= width:
        raise ValueError(
            f"image of {height}x{width} pixels is too small to be reflect-padded to a multiple of {multiple}: "
            f"give at least {multiple // 2 + 1} pixels a side."
        )
    return F.pad(image, (0, right, 0, bottom), mode="reflect") if bottom or right else image
