"""Masked pre-training of a RAM network: half of the pixels of degraded images are hidden, their clean values predicted.

Run it with ``ram pretrain --config ram_models/configs/tiny-swinir.yaml --data.clean IMAGES --out RUN``. Every field of
:class:`Config` is also an option.
"""

__all__ = ["Config", "Masks", "Network", "main", "masked_loss", "masked_views"]

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ram_models.networks.checkpoints import create, load_weights
from ram_models.networks.masking import restore_with_twins
from ram_models.training.batches import Batch, Crops
from ram_models.training.config import Compute, Data, Log, Optim, check_run
from ram_models.training.crops import MaskedCrops, fingerprint, training_crops
from ram_models.training.loop import fit, start
from ram_models.training.losses import masked_l1, whole_l1
from ram_models.training.validation import Validation, whole_views


@dataclass(frozen=True)
class Network:
    """Network to train.

    Args:
        name: Name of the network: ram-swinir-tiny, ram-denoise-tiny, ram-swinir, ram-promptir-tiny or
            ram-promptir.
        weights: Weights to start from, a file or a Hugging Face repository as owner/name; null starts from a random
            initialisation.
        arguments: Constructor arguments that replace those of the name.
    """

    name: str = "ram-swinir-tiny"
    weights: str | None = None
    arguments: dict[str, int | float | list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Masks:
    """Masks of the hidden pixels.

    Args:
        ratio: Fraction of hidden pixels, in (0, 1); null hides none, which is the pair-wise baseline with its loss
            on all pixels.
        patch_size: Side of the hidden blocks in pixels.
    """

    ratio: float | None = 0.5
    patch_size: int = 1

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ValueError(
                f"`masks.ratio` must lie in (0, 1), got {self.ratio}: it is the fraction of hidden pixels."
            )
        if self.patch_size < 1:
            raise ValueError(f"`masks.patch_size` must be at least 1 pixel, got {self.patch_size}.")


@dataclass(frozen=True)
class Config:
    """Train a network to predict hidden pixels.

    A run continues from the last checkpoint in its folder when the same command is given again. Several processes share
    a run when the same options are given to torchrun --nproc-per-node 2 -m ram_models.cli pretrain, or to accelerate
    launch -m.

    Args:
        data: Training data.
        out: Folder for weights.safetensors, metrics.csv, timing.csv, config.yaml, starts.yaml, checkpoints/ and
            tensorboard/.
        network: Network to train.
        masks: Masks of the hidden pixels.
        optim: Optimiser and schedule.
        compute: Use of the machine.
        log: Records of the run.
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

    def __post_init__(self) -> None:
        check_run(self)
        if self.masks.ratio is not None and self.data.crop % self.masks.patch_size:
            raise ValueError(
                f"`masks.patch_size` {self.masks.patch_size} must divide `data.crop`, which is {self.data.crop}."
            )


def masked_loss(network: nn.Module, batch: Batch) -> Tensor:
    """L1 loss on the hidden pixels (Qin et al. 2024, Eq. 1)."""
    degraded, clean, mask = batch
    return masked_l1(network(degraded, mask), clean, mask)


def masked_views(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The input, its restoration as a whole, and its restoration with twin masks."""
    degraded, _, mask = batch
    return degraded, network(degraded), restore_with_twins(network, degraded, mask)


def main(config: Config) -> None:
    """Train, or continue."""
    accelerator = start(config.compute, config.seed)
    crops, held_out = training_crops(config.data, config.optim, config.compute, config.seed)
    network = create(config.network.name, config.network.arguments)
    if config.network.weights is not None:
        load_weights(network, config.network.weights)
    items: Crops = crops
    loss, validation = whole_l1, Validation(held_out, ("input", "whole"), whole_views)
    if config.masks.ratio is not None:
        masks = config.masks.ratio, config.masks.patch_size
        items, hidden_held_out = (MaskedCrops(unmasked, config.seed, *masks) for unmasked in (crops, held_out))
        loss, validation = masked_loss, Validation(hidden_held_out, ("input", "whole", "twins"), masked_views)
    fit(
        network=network,
        crops=items,
        loss=loss,
        validation=validation,
        run=config,
        accelerator=accelerator,
        data_id=fingerprint(crops),
    )
