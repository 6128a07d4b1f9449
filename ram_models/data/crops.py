"""Training crops from real pairs and synthesised degradations, and the photographs that come with scikit-image."""

__all__ = ["LOW_COST", "DecodedImages", "MixedCrops", "SyntheticCrops", "clean_photographs", "sample", "unit_range"]

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from skimage import data as photographs
from skimage.transform import downscale_local_mean
from torch import Tensor
from torch.utils.data import Dataset

from macattr.image_files import center_crop, read_image, read_pixels
from ram_models.data.sets import ImageSet, Pair
from ram_models.degradations import DEGRADATIONS, TASKS, degrade

LOW_COST = ("noise", "blur", "jpeg")
"""The tasks whose degraded images the paper synthesises, too; the bundled network was trained with them."""


def _generator(*key: int) -> torch.Generator:
    """Source of randomness that depends on ``key`` alone."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def _pick(count: int, generator: torch.Generator) -> int:
    """One of ``count`` numbers from 0, uniformly."""
    return int(torch.randint(count, (), generator=generator))


def _cut(images: Sequence[Tensor], crop: int, generator: torch.Generator) -> list[Tensor]:
    """Copies of the same random window of every image, in the same of its eight orientations."""
    height, width = images[0].shape[1:]
    top, left = _pick(height - crop + 1, generator), _pick(width - crop + 1, generator)
    turns, mirrored = _pick(4, generator), _pick(2, generator)
    turned = [image[:, top : top + crop, left : left + crop].rot90(turns, (1, 2)) for image in images]
    return [image.flip(2) if mirrored else image for image in turned]


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
        generator = _generator(self.seed, index)
        file = self.files[_pick(len(self.files), generator)]
        image = read_image(file)
        height, width = image.shape[1:]
        if min(height, width) < self.crop:
            raise ValueError(f"{str(file)!r} has {height}x{width} pixels, less than a crop of {self.crop}x{self.crop}.")
        (clean,) = _cut([image], self.crop, generator)
        return degrade(clean, self.tasks[_pick(len(self.tasks), generator)], generator), clean.contiguous()


class DecodedImages:
    """Reader of image files that keeps the pixels of the latest ones in memory.

    Decoding a whole photograph for one small crop costs more than everything else that is done to the crop. It pays
    where the images fit: an 8-bit one takes 3 bytes a pixel (481x321: 0.46 MB). Every worker of a loader keeps images
    of its own; a copy in another process starts empty.

    Args:
        megabytes: Most memory for kept pixels, in 10^6 bytes; 0 keeps nothing.
    """

    def __init__(self, megabytes: float):
        self.megabytes = megabytes
        self.kept: OrderedDict[Path, Tensor] = OrderedDict()
        self.bytes = 0

    def __call__(self, file: Path) -> Tensor:
        """Pixels of ``file`` (3, h, w) from :func:`macattr.image_files.tensors.read_pixels`. Do not write to them."""
        if file in self.kept:
            self.kept.move_to_end(file)
            return self.kept[file]
        pixels = read_pixels(file)
        if pixels.nbytes <= self.megabytes * 1e6:
            self.kept[file] = pixels
            self.bytes += pixels.nbytes
            while self.bytes > self.megabytes * 1e6:
                self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return pixels

    def __reduce__(self) -> tuple[type["DecodedImages"], tuple[float]]:
        return DecodedImages, (self.megabytes,)


class MixedCrops(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (degraded, clean) of random crops, balanced over tasks, from real pairs where there are some.

    - Every ``len(tasks)`` items in a row, from item 0 on, hold each task once, in an order of their own.
    - A task that ``sets`` has pairs of takes one of them, each as likely as any other. If there is none, or with
      probability ``synthesised``, a clean image is degraded instead. Clean images are those of the sets without a
      task; if there is no such set, the clean sides of all pairs.
    - The task "clean" leaves the crop as it is, as one in eight training items of the authors' code does.
    - Both sides get the same window and one of its eight orientations. Images smaller than the window are continued by
      their mirror image.

    Item ``i`` depends on ``seed`` and ``i`` alone (given the sets), never on workers, on the number of processes or on
    what was read before: a run that resumes at item ``i`` sees what it would have seen.

    Args:
        sets: Real pairs and clean images, see :func:`ram_models.data.recognition.read_sets`.
        length: Number of items.
        crop: Side of the crops in pixels.
        tasks: Tasks to balance; one that is named twice comes twice as often.
        seed: Seed of everything random.
        target: "paired" for (degraded, clean); "ground_truth" for (clean, clean), pre-training that never sees a
            degradation. The clean crop is the same either way.
        synthesised: Share in [0, 1] of the items of a task with real pairs that are synthesised anyway.
        cache_megabytes: Memory for decoded images in each worker, see :class:`DecodedImages`.
        grey: Share in [0, 1] of the items that lose their colours before they are degraded; None keeps all colours.

    Raises:
        ValueError: If there is no task, or one of them has neither pairs nor a synthesis with clean images.

    Source:
        Qin et al. 2024 (RAM), Sec. 4.1: paired sets for haze, rain, motion blur and low light, synthesis on LSDIR for
        noise, blur and JPEG. Table 4 compares the two targets.
    """

    def __init__(
        self,
        sets: Sequence[ImageSet],
        length: int,
        crop: int,
        tasks: Sequence[str] = tuple(TASKS),
        seed: int = 0,
        target: Literal["paired", "ground_truth"] = "paired",
        synthesised: float = 0.0,
        cache_megabytes: float = 256.0,
        grey: float | None = None,
    ):
        if target not in ("paired", "ground_truth"):
            raise ValueError(f"`target` must be 'paired' or 'ground_truth', got {target!r}.")
        for name, share in (("synthesised", synthesised), ("grey", grey or 0.0)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {share}: it is a share of the items.")
        self.length, self.crop, self.tasks, self.seed = length, crop, list(tasks), seed
        self.target, self.synthesised, self.grey = target, synthesised, grey or 0.0
        self.real = {
            task: [pair for image_set in sets if image_set.task == task for pair in image_set.pairs]
            for task in self.tasks
        }
        self.clean = [pair for image_set in sets if image_set.task is None for pair in image_set.pairs] or _clean_sides(
            sets
        )
        self.reader = DecodedImages(cache_megabytes)
        self._refuse_what_cannot_be_made()

    def _refuse_what_cannot_be_made(self) -> None:
        """Raise unless every task has pairs, or a synthesis and clean images."""
        if not self.tasks:
            raise ValueError("`tasks` must name at least one degradation.")
        for task, pairs in self.real.items():
            if not pairs and task not in {*DEGRADATIONS, "clean"}:
                raise ValueError(
                    f"the task {task!r} has no pairs in the sets given and cannot be synthesised; there is a synthesis "
                    f"of {', '.join(DEGRADATIONS)}, and 'clean'."
                )
        if not self.clean:
            raise ValueError("there are no images in `sets`.")

    def __len__(self) -> int:
        """Number of items."""
        return self.length

    def task(self, index: int) -> str:
        """Task of item ``index``."""
        block, place = divmod(index, len(self.tasks))
        return self.tasks[int(torch.randperm(len(self.tasks), generator=_generator(self.seed, block, 1))[place])]

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """Crop number ``index``: degraded and clean, RGB in [0, 1].

        Raises:
            IndexError: If there is no such item; so a loop over the crops ends.
            ValueError: If an image cannot be read, or two sides differ in size; ``ram data check`` finds these before.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"there are {self.length} crops, got index {index}.")
        task, generator = self.task(index), _generator(self.seed, index)
        pairs = self.real[task]
        if float(torch.rand((), generator=generator)) < self.synthesised or not pairs:
            pairs = self.clean
        pair = pairs[_pick(len(pairs), generator)]
        if self.target == "ground_truth" or pairs is self.clean:
            pair = replace(pair, degraded=None)
        images = [_mirrored(image, self.crop) for image in reversed(pair.read(self.reader)) if image is not None]
        images = [unit_range(image) for image in _cut(images, self.crop, generator)]
        if self.grey and float(torch.rand((), generator=_generator(self.seed, index, 2))) < self.grey:
            images = [_without_colours(image) for image in images]
        clean, *degraded = images
        if degraded:
            return degraded[0], clean
        if self.target == "ground_truth" or task == "clean":
            return clean.clone(), clean
        return degrade(clean, task, generator), clean


def _clean_sides(sets: Sequence[ImageSet]) -> list[Pair]:
    """Every clean image of some pairs once."""
    pairs = {
        pair.clean: replace(pair, name=pair.clean.stem, degraded=None) for image_set in sets for pair in image_set.pairs
    }
    return list(pairs.values())


def _mirrored(image: Tensor, size: int) -> Tensor:
    """Image of at least ``size`` pixels a side, continued by its mirror image below and to the right."""
    for dim in (1, 2):
        side = image.shape[dim]
        if side < size:
            places = torch.arange(size) % (2 * side)
            image = image.index_select(dim, torch.minimum(places, 2 * side - 1 - places))
    return image


def unit_range(pixels: Tensor) -> Tensor:
    """Pixels of :func:`macattr.image_files.tensors.read_pixels` in [0, 1].

    Args:
        pixels: Bytes from 0 to 255, or numbers in [0, 1].
    """
    return (pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels).contiguous()


def _without_colours(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Three equal channels: the luma of Rec. 601, full range."""
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    return (image * weights).sum(0, keepdim=True).expand_as(image).contiguous()


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
        For each of 4 photographs and 3 degradations ``image`` and ``clean`` (3, size, size), ``name`` and
        ``degradation``.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        {"image": degrade(clean, task, generator), "clean": clean, "name": f"{name}, {task}", "degradation": task}
        for name, clean in clean_photographs(size).items()
        for task in LOW_COST
    ]
