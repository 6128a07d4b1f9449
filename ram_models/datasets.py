"""Image data: clean folders with synthesised degradations, and the photographs that come with scikit-image."""

__all__ = ["LOW_COST", "SyntheticCrops", "clean_photographs", "sample"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from skimage import data as photographs
from skimage.transform import downscale_local_mean
from torch import Tensor
from torch.utils.data import Dataset

from macattr.images import center_crop, read_image
from ram_models.degradations import degrade

LOW_COST = ("noise", "blur", "jpeg")
"""The tasks whose degraded images the paper synthesises, too; the bundled network was trained with them."""


class SyntheticCrops(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (degraded, clean) of random crops from clean image files.

    Item ``i`` depends on ``seed`` and ``i`` alone, never on workers or on what was read before: a run that resumes at
    item ``i`` sees what it would have seen.

    Args:
        files: Clean images, at least ``crop`` pixels a side.
        length: Number of items.
        crop: Side of the crops in pixels.
        tasks: Degradations to draw from, uniformly; see :data:`ram_models.degradations.TASKS`.
        seed: Seed of everything random.
    """

    def __init__(self, files: Sequence[Path], length: int, crop: int, tasks: Sequence[str] = LOW_COST, seed: int = 0):
        self.files, self.length, self.crop, self.tasks, self.seed = list(files), length, crop, list(tasks), seed

    def __len__(self) -> int:
        """Number of items."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """Crop number ``index``: degraded and clean, RGB in [0, 1].

        Raises:
            IndexError: If there is no such item; so a loop over the crops ends.
            ValueError: If the image is smaller than the crops.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"there are {self.length} crops, got index {index}.")
        seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(seed)

        def pick(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        file = self.files[pick(len(self.files))]
        image = read_image(file)
        height, width = image.shape[1:]
        if min(height, width) < self.crop:
            raise ValueError(f"{str(file)!r} has {height}x{width} pixels, less than a crop of {self.crop}x{self.crop}.")
        top, left = pick(height - self.crop + 1), pick(width - self.crop + 1)
        clean = image[:, top : top + self.crop, left : left + self.crop]
        clean = clean.rot90(pick(4), (1, 2))
        clean = clean.flip(2) if pick(2) else clean
        return degrade(clean, self.tasks[pick(len(self.tasks))], generator), clean.contiguous()


def clean_photographs(size: int) -> dict[str, Float[Tensor, "3 h w"]]:
    """The colour photographs in scikit-image's wheel by name: the middle ``size`` pixels at half their resolution."""
    images = {}
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        pixels = getattr(photographs, name)().astype(np.float32) / 255
        halved = downscale_local_mean(pixels, (2, 2, 1)).astype(np.float32)  # type: ignore[no-untyped-call]
        images[name] = center_crop(torch.from_numpy(halved).permute(2, 0, 1), size).contiguous()
    return images


def sample(size: int = 64, seed: int = 0) -> list[dict[str, Tensor | str]]:
    """Photographs that come with scikit-image, each degraded by noise, blur and JPEG: nothing is downloaded.

    Args:
        size: Side of the images in pixels.
        seed: Seed of the degradations' strengths and noise.

    Returns:
        For each of 4 photographs and 3 degradations ``image`` (3, size, size), ``name`` and ``degradation``.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        {"image": degrade(clean, task, generator), "name": f"{name}, {task}", "degradation": task}
        for name, clean in clean_photographs(size).items()
        for task in LOW_COST
    ]
