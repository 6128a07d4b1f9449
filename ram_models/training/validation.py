"""Validation during training: PSNR on held-out crops, and a picture of some of them."""

__all__ = ["Validation", "validate", "whole_views"]

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.functional.image import peak_signal_noise_ratio

from ram_models.training.batches import Batch, Crops, read


def whole_views(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The input, and the image restored from it."""
    return batch[0], network(batch[0])


@dataclass(frozen=True)
class Validation:
    """What a network is judged by while it is trained.

    Args:
        crops: Held-out items; the first two entries of each are the degraded and the clean crop.
        names: What is compared with the clean crops, as "whole".
        views: The images of these names from the network and a batch.
    """

    crops: Crops
    names: tuple[str, ...]
    views: Callable[[nn.Module, Batch], tuple[Tensor, ...]]


@torch.no_grad()
def validate(
    network: nn.Module, validation: Validation, batch_size: int, device: torch.device, shown: int = 4
) -> tuple[dict[str, float], Float[Tensor, "3 h w"]]:
    """Mean PSNR in dB by name, as ``psnr_whole``, and a picture: a crop a row, its views and the clean crop in it.

    A crop that came out undegraded equals the clean one, and its PSNR is infinite: it is left out of that mean.

    Args:
        network: In eval mode.
        validation: Crops and what is compared.
        batch_size: Crops in a forward pass.
        device: Where the network is.
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
    means = {f"psnr_{name}": round(_mean_without_infinite(torch.cat(values)), 3) for name, values in psnr.items()}
    return means, torch.cat(rows, dim=1)


def _mean_without_infinite(values: Tensor) -> float:
    """Mean of all but the infinite values, infinity if there is no other; NaN, a diverged network's, stays NaN."""
    others = values[~values.isinf()]
    return float(others.mean()) if len(others) else float("inf")
