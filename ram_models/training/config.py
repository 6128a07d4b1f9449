"""Settings that the training recipes share: data, optimiser, use of the machine, logging."""

__all__ = ["FREE", "Compute", "Data", "Log", "Optim", "Run", "check_run"]

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ram_models.data.recognition import read_sets
from ram_models.data.sets import ImageSet, clean_folder
from ram_models.degradations import TASKS
from ram_models.seeds import check_seed

FREE = (
    "out",
    "log.",
    "data.folders",
    "data.clean",
    "compute.accumulate",
    "compute.workers",
    "compute.cache_megabytes",
    "compute.cpu",
)
"""Beginnings of the names of settings that may differ when a run continues: they change no crop and no formula."""


@dataclass(frozen=True)
class Data:
    """Training data.

    Args:
        folders: Folder or folders with data sets of known layout (docs/datasets.md); their test splits are left out.
        clean: Folder or folders of clean images in any layout.
        crop: Side of the crops in pixels.
        tasks: Degradations, in equal shares; from real pairs where "folders" has them, else synthesised.
        target: "paired" predicts the clean image from the degraded one, "ground_truth" from the clean image itself.
        synthesised: For tasks with real pairs, fraction in [0, 1] of the items that is synthesised anyway.
        held_out: Clean images at the end of every set, at most a quarter of it, that are kept with all their pairs for
            validation and never trained on.
        grey: Fraction in [0, 1] of the items that lose their colours before they are degraded, for networks that also
            restore grey images; null keeps all colours.
    """

    folders: Path | list[Path] = field(default_factory=list)
    clean: Path | list[Path] = field(default_factory=list)
    crop: int = 64
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    target: Literal["paired", "ground_truth"] = "paired"
    synthesised: float = 0.0
    held_out: int = 24
    grey: float | None = None

    def __post_init__(self) -> None:
        _check("data", self, ("crop",), least=1)
        _check("data", self, ("held_out",), least=0)
        _check("data", self, ("synthesised", "grey"), least=0, most=1)
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"`data.tasks` has no {unknown[0]!r}: choose from {', '.join(TASKS)}.")
        if not self.tasks:
            raise ValueError(f"`data.tasks` is empty: choose from {', '.join(TASKS)}.")

    def sets(self) -> list[ImageSet]:
        """All sets of images to train on.

        Raises:
            ValueError: If there are no images, or a folder holds no data set.
        """
        folders, clean = (given if isinstance(given, list) else [given] for given in (self.folders, self.clean))
        sets = [images for folder in folders for images in read_sets(folder) if images.split in ("train", "all")]
        sets += [clean_folder(folder) for folder in clean]
        if not sets:
            where = f"only test sets below {', '.join(map(str, folders))}" if folders else "neither is given"
            raise ValueError(f"`data.folders` and `data.clean` hold no training images: {where}.")
        return sets


@dataclass(frozen=True)
class Optim:
    """Optimiser: Adam, optionally with Muon for the matrices, with a warm-up and a cosine schedule.

    Args:
        steps: Optimiser steps.
        batch_size: Crops in an optimiser step, over all processes and accumulated passes.
        lr: Peak learning rate, reached after "warmup" steps; then it falls as a cosine to "lr_final".
        lr_final: Learning rate at the end.
        warmup: Steps of linear warm-up.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Peak learning rate of Muon, which trains the weights of the linear layers by the same schedule; null
            trains them with Adam too. Needs torch 2.9.
        clip: Largest norm of the gradient; null does not clip.
        ema: Decay, in [0, 1), of the exponential moving average of the weights, which is then validated and written;
            null takes the weights themselves.
    """

    steps: int = 4000
    batch_size: int = 4
    lr: float = 1e-3
    lr_final: float = 1e-5
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.999)
    muon: float | None = None
    clip: float | None = 1.0
    ema: float | None = None

    def __post_init__(self) -> None:
        _check("optim", self, ("steps", "batch_size"), least=1)
        _check("optim", self, ("warmup", "lr_final"), least=0)
        _check("optim", self, ("lr", "muon", "clip"), above=0)
        _check("optim", self, ("ema",), least=0, below=1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`optim.betas` must lie in [0, 1), got {self.betas}.")


@dataclass(frozen=True)
class Compute:
    """Use of the machine; the result is the same up to rounding.

    Args:
        precision: Precision of the computation; weights stay float32. "fp16" needs a GPU.
        accumulate: Forward and backward passes in an optimiser step, to save memory.
        workers: Processes that read and degrade images for each training process.
        cache_megabytes: Memory for decoded images in each of these processes.
        cpu: Do not use a GPU.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    workers: int = 0
    cache_megabytes: float = 256.0
    cpu: bool = False

    def __post_init__(self) -> None:
        _check("compute", self, ("accumulate",), least=1)
        _check("compute", self, ("workers", "cache_megabytes"), least=0)


@dataclass(frozen=True)
class Log:
    """Records of a run; steps are optimiser steps.

    Args:
        every: Steps between rows of metrics.csv and timing.csv.
        validate_every: Steps between validations.
        save_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        tensorboard: Whether scalars and samples are written for TensorBoard too.
    """

    every: int = 50
    validate_every: int = 500
    save_every: int = 500
    keep: int = 3
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check("log", self, ("every", "validate_every", "save_every", "keep"), least=1)


def _check(
    group: str,
    settings: object,
    names: Iterable[str],
    least: int | float = -math.inf,
    above: int | float = -math.inf,
    most: int | float = math.inf,
    below: int | float = math.inf,
) -> None:
    """Refuse settings outside of their range, or not finite; None is always allowed."""
    bounds = {f"at least {least}": least, f"above {above}": above, f"at most {most}": most, f"below {below}": below}
    words = " and ".join(text for text, bound in bounds.items() if math.isfinite(bound))
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most and above < value < below):
            raise ValueError(f"`{group}.{name}` must be {words}, got {value}.")


@runtime_checkable
class Run(Protocol):
    """Settings that every training recipe has."""

    @property
    def out(self) -> Path:
        """Folder of the run."""

    @property
    def optim(self) -> Optim:
        """Optimiser and schedule."""

    @property
    def compute(self) -> Compute:
        """Use of the machine."""

    @property
    def log(self) -> Log:
        """Records of the run."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""


def check_run(run: Run) -> None:
    """Refuse settings that contradict each other, before anything is read.

    Args:
        run: The recipe's configuration.

    Raises:
        ValueError: If the seed is out of range, or the batch cannot be divided into passes.
    """
    check_seed(run.seed)
    if run.optim.batch_size % run.compute.accumulate:
        raise ValueError(
            f"`compute.accumulate` {run.compute.accumulate} must divide `optim.batch_size` {run.optim.batch_size}."
        )
