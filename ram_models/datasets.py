"""Image data: clean folders with synthesised degradations, and the photographs that come with scikit-image."""

__all__ = ["SyntheticCrops", "find_images", "read_rgb", "sample"]

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ram_models.degradations import TASKS, degrade

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def find_images(folder: Path | str) -> list[Path]:
    """All image files below ``folder``, sorted.

    Raises:
        ValueError: If there is none.
    """
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"no image below {folder}: files end in {', '.join(SUFFIXES)}.")
    return found


def read_rgb(path: Path | str) -> Float[Tensor, "3 h w"]:
    """Image file as RGB in [0, 1]."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


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

    def __init__(
        self, files: Sequence[Path], length: int, crop: int, tasks: Sequence[str] = tuple(TASKS), seed: int = 0
    ):
        self.files, self.length, self.crop, self.tasks, self.seed = list(files), length, crop, list(tasks), seed

    def __len__(self) -> int:
        """Number of items."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """Crop number ``index``: degraded and clean, RGB in [0, 1]."""
        seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(seed)

        def pick(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        image = read_rgb(self.files[pick(len(self.files))])
        top, left = pick(image.shape[1] - self.crop + 1), pick(image.shape[2] - self.crop + 1)
        clean = image[:, top : top + self.crop, left : left + self.crop]
        clean = clean.rot90(pick(4), (1, 2))
        clean = clean.flip(2) if pick(2) else clean
        return degrade(clean, self.tasks[pick(len(self.tasks))], generator), clean.contiguous()
