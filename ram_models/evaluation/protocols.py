"""Test protocols: the images and degradations of the paper's settings, and of every set that is present."""

__all__ = ["NOISES", "PAPER", "PROTOCOLS", "SIGMAS", "UNSEEN_ON", "Evaluation", "Plan", "Setting", "plan"]

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from macattr.image_files import center_crop
from ram_models.data.layouts import LAYOUTS
from ram_models.data.sets import ImageSet, Pair
from ram_models.degradations import UNSEEN, add_gaussian_noise, compress_jpeg, degrade, gaussian_blur
from ram_models.seeds import seeded

Synthesis: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Setting:
    """A data set under a degradation, as it is tested.

    Args:
        name: Name in results.
        dataset: Name of the set in :data:`ram_models.data.layouts.LAYOUTS`.
        task: Degradation.
        synthesis: Degradation of clean images, a function of image and generator; None for the set's own pairs.
        split: Part of the set: "test" (then sets that are not divided serve too) or "val".
    """

    name: str
    dataset: str
    task: str
    synthesis: Synthesis | None = None
    split: str = "test"

    @property
    def complete(self) -> int | None:
        """Number of images of the whole set; None if it is not known."""
        return LAYOUTS[self.dataset].complete.get(self.split) if self.dataset in LAYOUTS else None


@dataclass(frozen=True)
class Evaluation:
    """A setting with the images that are present.

    Args:
        setting: Data set and degradation.
        pairs: Its images.
    """

    setting: Setting
    pairs: tuple[Pair, ...]

    def read(
        self, pair: Pair, seed: int = 0, crop: int | None = None
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """Degraded and clean image, RGB in [0, 1]; the same in every run.

        Args:
            pair: One of ``pairs``.
            seed: Seed of synthesised degradations, together with the names of setting and image.
            crop: Use the middle only, at most this many pixels a side; it is cut before a degradation is synthesised.

        Raises:
            ValueError: If a file cannot be read, or the two do not fit.
        """
        degraded, clean = pair.read()
        clean = clean if crop is None else center_crop(clean, crop)
        if self.setting.synthesis is not None:
            return self.setting.synthesis(clean, seeded(f"{self.setting.name}/{pair.name}", seed)), clean
        if degraded is None:
            raise ValueError(f"{str(pair.clean)!r} has no degraded image, and {self.setting.name!r} synthesises none.")
        return degraded if crop is None else center_crop(degraded, crop), clean


@dataclass(frozen=True)
class Plan:
    """The settings that can be tested, and the others.

    Args:
        tests: Settings with their images.
        missing: Settings of the protocol whose set is absent.
    """

    tests: tuple[Evaluation, ...]
    missing: tuple[Setting, ...] = ()


def _noise(sigma_255: float) -> Synthesis:
    """Gaussian noise of one strength."""
    return lambda image, generator: add_gaussian_noise(image, sigma_255, generator)


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur of 15 x 15 taps and sigma 2."""
    return gaussian_blur(image, 2.0, 15)


def _jpeg(image: Tensor, generator: torch.Generator) -> Tensor:
    """JPEG of quality 50."""
    return compress_jpeg(image, 50)


def _unseen(task: str) -> Synthesis:
    """One of the noises that are never trained with, at the strength of :mod:`ram_models.degradations`."""
    return lambda image, generator: degrade(image, task, generator)


SIGMAS = (15, 25, 50)
"""Standard deviations of the paper's denoising tests, on the 0-255 scale."""

UNSEEN_ON = "CBSD68"
"""The set for the unseen noises. The paper does not name its own; denoising is tested on this one otherwise."""

PAPER: tuple[Setting, ...] = (
    Setting("SOTS-outdoor", "SOTS-outdoor", "haze"),
    *(Setting(name, name, "rain") for name in ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800")),
    *(Setting(f"BSD68 sigma={sigma}", "CBSD68", "noise", _noise(float(sigma))) for sigma in SIGMAS),
    Setting("GoPro", "GoPro", "motion_blur"),
    Setting("LOL", "LOL", "lowlight"),
    Setting("LSDIR blur k=15 sigma=2", "LSDIR", "blur", _blur, "val"),
    Setting("LSDIR JPEG q=50", "LSDIR", "jpeg", _jpeg, "val"),
    *(Setting(f"Urban100 sigma={sigma}", "Urban100", "noise", _noise(float(sigma))) for sigma in SIGMAS),
    *(Setting(f"BSD68 {task}", UNSEEN_ON, task, _unseen(task)) for task in ("poisson", "pepper", "speckle")),
)
"""The paper's tests (Qin et al. 2024, Sec. 4.1 and Table 6)."""

NOISES: tuple[Setting, ...] = (
    *(Setting(f"BSD68 sigma={sigma}", "CBSD68", "noise", _noise(float(sigma))) for sigma in (*SIGMAS, 70)),
    *(Setting(f"BSD68 {task}", UNSEEN_ON, task, _unseen(task)) for task in UNSEEN),
)
"""Noise alone: as strong as in training, stronger, and every kind that is never trained with."""


def _pairs(setting: Setting, sets: Sequence[ImageSet]) -> tuple[Pair, ...]:
    """Images of a setting: of the largest set of that name, if it is there more than once."""
    splits = {setting.split, "all"}
    fitting = [s for s in sets if s.name == setting.dataset and s.split in splits]
    return max((s.pairs for s in fitting), key=len, default=())


def _fixed(settings: Sequence[Setting], sets: Sequence[ImageSet]) -> Plan:
    """These settings, whatever else there is."""
    evaluations = [Evaluation(setting, _pairs(setting, sets)) for setting in settings]
    return Plan(
        tests=tuple(evaluation for evaluation in evaluations if evaluation.pairs),
        missing=tuple(evaluation.setting for evaluation in evaluations if not evaluation.pairs),
    )


def _every(sets: Sequence[ImageSet], synthesise: bool) -> Plan:
    """Every set found that is not for training: real pairs, and clean ones with each synthesised task once."""
    tested = [image_set for image_set in sets if image_set.split != "train"]
    unique = itertools.groupby(sorted(tested, key=_identity), _identity)
    largest = [max(same, key=lambda s: len(s.pairs)) for _, same in unique]
    own = _names_of_own(largest)
    return Plan(
        tuple(
            evaluation
            for image_set in largest
            for evaluation in _evaluations(image_set, own.get(image_set.directory, image_set.name), synthesise)
        )
    )


def _is_own(image_set: ImageSet) -> bool:
    """Whether a set is a user's own, of which there may be many; its folder is called after the task."""
    return image_set.name in LAYOUTS and LAYOUTS[image_set.name].task == "folder"


def _identity(image_set: ImageSet) -> tuple[str, str, str]:
    """Name and split of a set, which two copies of it share; a user's own set is one by its folder."""
    return image_set.name, image_set.split, str(image_set.directory) if _is_own(image_set) else ""


def _names_of_own(sets: Sequence[ImageSet]) -> dict[Path, str]:
    """Names of a user's own sets by their folders: with as much of the folder's path as tells them apart."""
    folders = [image_set.directory for image_set in sets if _is_own(image_set)]
    places = {folder.resolve() for folder in folders}
    depth = next(n for n in itertools.count(1) if len({place.parts[-n:] for place in places}) == len(places))
    names = {image_set.directory: image_set.name for image_set in sets}
    return {folder: f"{names[folder]} {'/'.join(folder.resolve().parts[-depth:])}" for folder in folders}


def _evaluations(image_set: ImageSet, name: str, synthesise: bool) -> Iterator[Evaluation]:
    """All evaluations on one set, which is called by a name in results."""
    split = image_set.split
    label = f"{name} val" if split == "val" else name
    if image_set.task is not None:
        setting = Setting(name=label, dataset=image_set.name, task=image_set.task, split=split)
        yield Evaluation(setting, image_set.pairs)
    elif synthesise:
        for task, (strength, synthesis) in FIXED.items():
            setting = Setting(f"{label} {strength}", image_set.name, task=task, synthesis=synthesis, split=split)
            yield Evaluation(setting, image_set.pairs)


FIXED: Mapping[str, tuple[str, Synthesis]] = MappingProxyType(
    {"noise": ("sigma=25", _noise(25.0)), "blur": ("blur k=15 sigma=2", _blur), "jpeg": ("JPEG q=50", _jpeg)}
)
"""One strength of each task that the paper synthesises, for clean sets."""

PROTOCOLS: Mapping[str, Callable[[Sequence[ImageSet]], Plan]] = MappingProxyType(
    {
        "paper": partial(_fixed, PAPER),
        "noises": partial(_fixed, NOISES),
        "pairs": partial(_every, synthesise=False),
        "sets": partial(_every, synthesise=True),
    }
)
"""Protocols by name: the paper's settings; noise alone; sets with real pairs; these, and every clean set degraded."""


def plan(protocol: str, sets: Sequence[ImageSet]) -> Plan:
    """The evaluations of a protocol on the sets that are present.

    Args:
        protocol: Name in :data:`PROTOCOLS`.
        sets: As :func:`ram_models.data.recognition.read_sets` finds them.

    Raises:
        ValueError: If there is no such protocol, or none of its sets is present.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}.")
    planned = PROTOCOLS[protocol](sets)
    if not planned.tests:
        present = ", ".join(f"{s.name} ({s.split})" for s in sets) or "none"
        raise ValueError(f"no set of the protocol {protocol!r} is present; found were {present}.")
    return planned
