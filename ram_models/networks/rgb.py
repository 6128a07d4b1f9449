"""RAM networks with plain RGB as input and output; they normalise by ImageNet statistics inside, as in training."""

__all__ = ["ImageNetRGB", "RGBPromptIR", "RGBSwinIR"]

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ram_models.networks.promptir import PromptIR
from ram_models.networks.swinir import SwinIR


class ImageNetRGB(nn.Module):
    """Mixin before a RAM network: RGB in [0, 1] at its border, ImageNet-normalised values inside.

    It inherits instead of containing, so that layer names and checkpoint keys stay those of the bare network.
    Hidden pixels show 0 in the normalised space, i.e. the mean colour (``reference_input``), as in RAM's pre-training.
    The output is not clamped, so that gradients exist everywhere.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1), persistent=False)

    @property
    def reference_input(self) -> Float[Tensor, "3 1 1"]:
        """Colour of hidden pixels as seen from outside: the mean colour, RGB in [0, 1]."""
        return self.mean

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        mask: Float[Tensor, "b h w"] | None = None,
        mask_tokens: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Restored image, RGB, nominally in [0, 1].

        Args:
            image: Degraded image, RGB in [0, 1].
            mask: 1 where a pixel is hidden, 0 where visible.
            mask_tokens: RGB values shown in place of hidden pixels; default the mean colour.
        """
        tokens = self.mean.expand_as(image) if mask_tokens is None else mask_tokens
        normalised, normalised_tokens = (image - self.mean) / self.std, (tokens - self.mean) / self.std
        out: Tensor = super().forward(normalised, mask, normalised_tokens) * self.std + self.mean
        return out


class RGBSwinIR(ImageNetRGB, SwinIR):
    """:class:`~ram_models.networks.swinir.SwinIR` with RGB in [0, 1] at its border."""


class RGBPromptIR(ImageNetRGB, PromptIR):
    """:class:`~ram_models.networks.promptir.PromptIR` with RGB in [0, 1] at its border."""
