"""Training crops of a run, with masks, and the held-out crops that it is validated with."""

__all__ = ["MaskedCrops", "divide", "fingerprint", "training_crops"]

import hashlib
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ram_models.data.crops import MixedCrops
from ram_models.data.sets import ImageSet
from ram_models.networks.masking import random_mask
from ram_models.training.batches import Crops
from ram_models.training.config import Compute, Data, Optim


class MaskedCrops(Crops):
    """Crops (degraded, clean) with a mask of the pixels to hide; item ``i`` depends on ``seed`` and ``i`` alone.

    Args:
        crops: Pairs of tensors (3, h, w).
        seed: Seed of the masks.
        ratio: Fraction of hidden pixels, in (0, 1).
        patch_size: Side of the hidden blocks in pixels.
    """

    def __init__(self, crops: Crops, seed: int, ratio: float = 0.5, patch_size: int = 1):
        self.crops, self.seed, self.ratio, self.patch_size = crops, seed, ratio, patch_size

    def __len__(self) -> int:
        """Number of items."""
        return len(self.crops)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Degraded and clean crop, and the mask: 1 where hidden."""
        degraded, clean = self.crops[index]
        sequence = np.random.SeedSequence([self.seed, index], spawn_key=(1,))  # apart from the crop's own
        generator = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
        height, width = degraded.shape[-2:]
        return degraded, clean, random_mask(1, height, width, generator, self.ratio, self.patch_size)[0]


def training_crops(data: Data, optim: Optim, compute: Compute, seed: int) -> tuple[MixedCrops, MixedCrops]:
    """All training crops of a run, and its validation crops: two of every held-out image.

    Args:
        data: Training data.
        optim: Batch size and number of steps.
        compute: Use of the machine.
        seed: Seed of the crops.

    Raises:
        ValueError: If there are no images for training or none for validation, or a task cannot be made from them.
    """
    parts = [divide(images, data.held_out) for images in data.sets()]
    last = {pair.clean.resolve() for _, images in parts for pair in images.pairs}
    apart = ((_without(images, last), validation) for images, validation in parts)  # one file may lie in two sets
    training, held_out = ([images for images in sets if images.pairs] for sets in zip(*apart, strict=True))
    if not held_out:
        raise ValueError(
            f"`data.held_out` {data.held_out} leaves no image to validate with: it must be at least 1, and a set must "
            "have 4 clean images or more."
        )
    count = 2 * len({pair.clean for images in held_out for pair in images.pairs})
    crops = partial(
        MixedCrops,
        crop=data.crop,
        tasks=data.tasks,
        target=data.target,
        synthesised=data.synthesised,
        cache_megabytes=compute.cache_megabytes,
        grey=data.grey,
    )
    return crops(training, optim.steps * optim.batch_size, seed=seed), crops(held_out, count, seed=seed + 1)


def _without(images: ImageSet, files: Collection[Path]) -> ImageSet:
    """A set without the pairs of some clean images."""
    return replace(images, pairs=tuple(pair for pair in images.pairs if pair.clean.resolve() not in files))


def divide(images: ImageSet, held_out: int) -> tuple[ImageSet, ImageSet]:
    """A set without the pairs of its last ``held_out`` clean images (a quarter at most), and the set of those pairs."""
    clean = sorted({pair.clean for pair in images.pairs})
    last = set(clean[len(clean) - min(held_out, len(clean) // 4) :])
    parts = (tuple(pair for pair in images.pairs if (pair.clean in last) == wanted) for wanted in (False, True))
    training, validation = (replace(images, pairs=part) for part in parts)
    return training, validation


def fingerprint(crops: MixedCrops) -> str:
    """Hash of the names of all images, wherever they are; their content is not read."""
    pairs = [pair for group in (crops.clean, *crops.real.values()) for pair in group]
    return hashlib.sha256("\n".join(pair.name for pair in pairs).encode()).hexdigest()
