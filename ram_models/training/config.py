"""Settings that the training recipes share: data, optimiser, use of the machine, logging."""

__all__ = ["FREE", "Compute", "Data", "Log", "Optim", "Run"]

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ram_models.data.recognition import read_sets
from ram_models.data.sets import ImageSet, clean_folder
from ram_models.degradations import TASKS

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
"""Settings (or how their names begin) that may differ when a run is continued: they change no crop and no formula."""


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Args:
        folders: Folder or folders with data sets of known layout (``docs/datasets.md``), without their test splits.
        clean: Folder or folders of clean images in any layout.
        crop: Side of the crops in pixels.
        tasks: Degradations, in equal shares; from real pairs where ``folders`` has them, else synthesised.
        target: ``paired`` predicts the clean image from the degraded one; ``ground_truth`` from itself.
        synthesised: Share in [0, 1] of the items of a task with real pairs that are synthesised nevertheless.
        held_out: Clean images at the end of every set, a quarter of it at most, that are never trained on but validated
            with, and all their pairs with them.
        grey: Share in [0, 1] of the items that lose their colours before they are degraded, for networks that are to
            restore grey images as well; null keeps all colours.
    """

    folders: Path | list[Path] = field(default_factory=list)
    clean: Path | list[Path] = field(default_factory=list)
    crop: int = 64
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    target: Literal["paired", "ground_truth"] = "paired"
    synthesised: float = 0.0
    held_out: int = 24
    grey: float | None = None

    def sets(self) -> list[ImageSet]:
        """What there is to train on.

        Raises:
            ValueError: If there is nothing, or a folder holds no data set.
        """
        folders, clean = (given if isinstance(given, list) else [given] for given in (self.folders, self.clean))
        found = [one for folder in folders for one in read_sets(folder) if one.split in ("train", "all")]
        found += [clean_folder(folder) for folder in clean]
        if not found:
            where = f"only test sets below {', '.join(map(str, folders))}" if folders else "neither is given"
            raise ValueError(f"`data.folders` and `data.clean` hold no training images: {where}.")
        return found


@dataclass(frozen=True)
class Optim:
    """Adam, with Muon for the matrices if wanted, with a warm-up and a cosine schedule.

    Args:
        steps: Optimiser steps.
        batch_size: Crops in an optimiser step, all processes and accumulated passes together.
        lr: Peak learning rate, reached after ``warmup`` steps, then cosine down to ``lr_final``.
        lr_final: Learning rate at the end.
        warmup: Steps of linear warm-up.
        betas: Adam's decay rates of the gradient's mean and square.
        muon: Peak learning rate of Muon, which then trains the weights of the linear layers, by the same schedule; null
            trains them with Adam too. Needs torch 2.9.
        clip: Largest norm of the gradient; null does not clip.
        ema: Decay of the exponential moving average of the weights, in [0, 1): it is validated and written; null takes
            the weights themselves.
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
        for name in ("steps", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`optim.{name}` must be above 0, got {getattr(self, name)}.")
        if self.muon is not None and not self.muon > 0:
            raise ValueError(f"`optim.muon` must be above 0 or null, got {self.muon}.")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"`optim.ema` must lie in [0, 1), got {self.ema}: it is the share that is kept in a step.")


@dataclass(frozen=True)
class Compute:
    """How the machine is used; the result is the same up to rounding.

    Args:
        precision: Of the computation; weights stay float32. ``fp16`` needs a GPU.
        accumulate: Forward and backward passes in an optimiser step, to save memory.
        workers: Processes that read and degrade images beside each training process.
        cache_megabytes: Memory for decoded images in each of these processes.
        cpu: Do not use a GPU.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    workers: int = 0
    cache_megabytes: float = 256.0
    cpu: bool = False


@dataclass(frozen=True)
class Log:
    """What is written, and when; steps are optimiser steps.

    Args:
        every: Steps between rows of metrics.csv and timing.csv.
        validate_every: Steps between validations.
        save_every: Steps between checkpoints.
        keep: Checkpoints that are kept.
        tensorboard: Also write scalars and samples for TensorBoard.
    """

    every: int = 50
    validate_every: int = 500
    save_every: int = 500
    keep: int = 3
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("every", "validate_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"`log.{name}` must be at least 1, got {getattr(self, name)}.")


@runtime_checkable
class Run(Protocol):
    """What the configuration of every recipe holds."""

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
        """What is written."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""
