"""Masked pre-training of a RAM network: hide half of the pixels of degraded images, predict the clean ones there.

``ram pretrain --config ram_models/configs/tiny-swinir.yaml --data.clean IMAGES --out RUN``; every field of
:class:`Config` is also an option. A run continues from the last checkpoint of its folder. Several processes:
``torchrun --nproc-per-node 2 -m ram_models.cli pretrain`` with the same options, or ``accelerate launch -m``.
"""

__all__ = ["Config", "Masks", "Network", "main", "masked_loss", "masked_views"]

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ram_models.networks.checkpoints import create, load_weights
from ram_models.networks.masking import restore_with_twins
from ram_models.training.batches import Batch
from ram_models.training.config import Compute, Data, Log, Optim
from ram_models.training.crops import MaskedCrops, fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.losses import masked_l1, whole_l1
from ram_models.training.validation import Validation, whole_views


@dataclass(frozen=True)
class Network:
    """What is trained.

    Args:
        name: See :func:`ram_models.networks.checkpoints.create`.
        weights: Where to start, as :func:`ram_models.networks.checkpoints.load_weights` takes it; null starts from a
            random initialisation.
        arguments: Constructor arguments in place of those of that name.
    """

    name: str = "ram-swinir-tiny"
    weights: str | None = None
    arguments: dict[str, int | float | list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Masks:
    """Which pixels are hidden.

    Args:
        ratio: Share of hidden pixels, in (0, 1); null hides none: the pair-wise baseline, whose loss is on all pixels.
        patch_size: Side of the hidden blocks in pixels.
    """

    ratio: float | None = 0.5
    patch_size: int = 1


@dataclass(frozen=True)
class Config:
    """One pre-training run.

    Args:
        data: What is trained on.
        out: Folder of the run; appears there: weights.safetensors, metrics.csv, timing.csv, config.yaml, starts.yaml,
            checkpoints/, tensorboard/.
        network: What is trained.
        masks: Which pixels are hidden.
        optim: Optimiser and schedule.
        compute: Use of the machine.
        log: What is written, and when.
        seed: Seed of initialisation, data and masks.
    """

    data: Data
    out: Path
    network: Network = field(default_factory=Network)
    masks: Masks = field(default_factory=Masks)
    optim: Optim = field(default_factory=Optim)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)
    seed: int = 0


def masked_loss(network: nn.Module, batch: Batch) -> Tensor:
    """L1 on the pixels that the network does not see (Qin et al. 2024, Eq. 1)."""
    degraded, clean, mask = batch
    return masked_l1(network(degraded, mask), clean, mask)


def masked_views(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The input; restored whole; restored with twin masks, every pixel from the run that did not see it."""
    degraded, _, mask = batch
    return degraded, network(degraded), restore_with_twins(network, degraded, mask)


def main(config: Config) -> None:
    """Train, or continue."""
    accelerator = start(config.compute, config.seed)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    network = create(config.network.name, config.network.arguments)
    if config.network.weights is not None:
        load_weights(network, config.network.weights)
    if config.masks.ratio is None:
        validation = Validation(held_out, ("input", "whole"), whole_views)
        fit(network, crops, whole_l1, validation, config, accelerator, fingerprint(crops))
    else:
        masks = config.masks.ratio, config.masks.patch_size
        hidden, hidden_held_out = (MaskedCrops(c, config.seed, *masks) for c in (crops, held_out))
        validation = Validation(hidden_held_out, ("input", "whole", "twins"), masked_views)
        fit(network, hidden, masked_loss, validation, config, accelerator, fingerprint(crops))
