"""Validation during training: PSNR on held-out crops and a picture of the first ones."""

__all__ = ["Validation", "validate", "whole_views"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.functional.image import peak_signal_noise_ratio

from macattr.user_warnings import warn_user
from ram_models.psnr_means import MeanPSNR, mean_psnr
from ram_models.training.batches import Batch, Crops, read


def whole_views(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The input and its restoration as a whole."""
    return batch[0], network(batch[0])


@dataclass(frozen=True)
class Validation:
    """Held-out crops and the images that are compared with them during training.

    Args:
        crops: Held-out items; the first two entries of each are the degraded and the clean crop.
        names: Names of the images that are compared with the clean crops, such as "whole".
        views: Function from the network and a batch to the images of these names.
    """

    crops: Crops
    names: tuple[str, ...]
    views: Callable[[nn.Module, Batch], tuple[Tensor, ...]]


@torch.no_grad()
def validate(
    network: nn.Module, validation: Validation, batch_size: int, device: torch.device, shown: int = 4
) -> tuple[dict[str, float], Float[Tensor, "3 h w"]]:
    """Mean PSNR in dB by name, such as ``psnr_whole``, and a picture with one crop a row: its views and the clean crop.

    A crop that was not degraded equals the clean one. Its PSNR is infinite and left out of that mean, with a warning.

    Args:
        network: Network in eval mode.
        validation: Crops and compared images.
        batch_size: Crops in a forward pass.
        device: Device of the network.
        shown: Rows of the picture.
    """
    psnr: dict[str, list[Tensor]] = {name: [] for name in validation.names}
    rows: list[Tensor] = []
    for batch in read(DataLoader(validation.crops, batch_size, generator=torch.Generator()), device):
        images = [image.float().clamp(0, 1) for image in validation.views(network, batch)]
        for values, image in zip(psnr.values(), images, strict=True):
            values.append(peak_signal_noise_ratio(image, batch[1], 1.0, dim=(1, 2, 3), reduction="none"))
        framed = [F.pad(image, (0, 2, 0, 2), value=1.0) for image in (*images, batch[1])]
        rows += list(torch.cat(framed, dim=3)[: max(0, shown - len(rows))].cpu())
    means = {name: mean_psnr(torch.cat(values).cpu().numpy()) for name, values in psnr.items()}
    _warn_of_identical(means, sum(map(len, next(iter(psnr.values())))))
    return {f"psnr_{name}": round(mean.db, 3) for name, mean in means.items()}, torch.cat(rows, dim=1)


def _warn_of_identical(means: Mapping[str, MeanPSNR], count: int) -> None:
    """Say how many of the crops are left out of which mean."""
    if found := {name: mean.identical for name, mean in means.items() if mean.identical}:
        parts = ", ".join(f"{identical} of psnr_{name}" for name, identical in found.items())
        warn_user(
            f"of the {count} held-out crops, these equal the clean ones: {parts}. Their PSNR is infinite; "
            "the mean is that of the others."
        )
