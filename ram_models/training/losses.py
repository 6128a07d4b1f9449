"""Losses: mean absolute error over hidden pixels, or over all pixels."""

__all__ = ["Loss", "masked_l1", "whole_l1"]

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ram_models.training.batches import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
"""Mean loss of a network on a batch."""


def masked_l1(
    restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Mean absolute error over the hidden pixels.

    As every mask of :func:`ram_models.networks.masking.random_mask` hides the same number of pixels, the mean of
    these means over processes and accumulated passes is the mean over all hidden pixels of the step.

    Args:
        restored: Output of the network.
        clean: Clean image.
        mask: 1 where a pixel was hidden.

    Source:
        Qin et al. 2024 (RAM), Eq. 1.
    """
    return ((restored - clean).abs().mean(1) * mask).sum() / mask.sum()


def whole_l1(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean absolute error over all pixels without a mask, for fine-tuning and the pair-wise baseline."""
    loss: Tensor = (network(batch[0]) - batch[1]).abs().mean()
    return loss
