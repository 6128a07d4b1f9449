"""What the training recipes share: schedule, order of the data, validation, and a loop that can be resumed."""

__all__ = [
    "Compute",
    "Data",
    "Log",
    "MaskedCrops",
    "Optim",
    "Run",
    "State",
    "UnreadableData",
    "Validation",
    "crop_numbers",
    "divide",
    "fingerprint",
    "fit",
    "learning_rate",
    "masked_l1",
    "optimise",
    "read",
    "start",
    "stop_requests",
    "training_crops",
    "validate",
    "whole_l1",
    "whole_views",
]

import hashlib
import math
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, set_seed
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.image import peak_signal_noise_ratio

from ram_models.data.crops import MixedCrops
from ram_models.data.recognition import read_sets
from ram_models.data.sets import ImageSet, clean_folder
from ram_models.degradations import TASKS
from ram_models.networks.masking import random_mask
from ram_models.optimisers import optimiser
from ram_models.runs import (
    Journal,
    flat_settings,
    latest_checkpoint,
    random_state,
    record_start,
    refuse_other_settings,
    restore_random_state,
    save_checkpoint,
    save_weights,
)

Batch = Sequence[Tensor]
Crops = Dataset[tuple[Tensor, ...]]
Loss = Callable[[nn.Module, Batch], Tensor]

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


def start(compute: Compute, seed: int) -> Accelerator:
    """The devices and processes that ``accelerate launch`` or ``torchrun`` gave; seeds all random numbers.

    Raises:
        ValueError: If the device cannot compute in this precision.
    """
    cpu = compute.cpu or not torch.accelerator.is_available()
    if cpu and compute.precision == "fp16":  # without the scaling of the loss, which exists on GPUs, it underflows
        raise ValueError("`compute.precision` fp16 needs a GPU, and there is none (or `compute.cpu`): choose bf16.")
    AcceleratorState._reset_state()  # the precision belongs to a run, not to the process
    accelerator = Accelerator(
        # without this, processes of torchrun on a machine without GPU would not know of each other
        cpu=cpu,
        mixed_precision="no" if compute.precision == "fp32" else compute.precision,
        gradient_accumulation_steps=compute.accumulate,
        # the mask token of RAM networks never gets a gradient: the mean colour is passed in its place
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(seed)
    return accelerator


def learning_rate(step: int, optim: Optim) -> float:
    """Learning rate of optimiser step ``step`` (from 0): linear warm-up, then cosine."""
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    progress = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
    return optim.lr_final + (optim.lr - optim.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))


def masked_l1(
    restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Mean absolute error over the hidden pixels alone.

    As every mask of :func:`ram_models.networks.masking.random_mask` hides the same number of pixels, the mean of
    these means over processes and accumulated passes is the mean over all hidden pixels of the step.

    Args:
        restored: What the network made of the input.
        clean: What it should be.
        mask: 1 where a pixel was hidden.

    Source:
        Qin et al. 2024 (RAM), Eq. 1.
    """
    return ((restored - clean).abs().mean(1) * mask).sum() / mask.sum()


def whole_l1(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean absolute error over all pixels, nothing hidden: fine-tuning, and the pair-wise baseline."""
    loss: Tensor = (network(batch[0]) - batch[1]).abs().mean()
    return loss


def whole_views(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The input, and the image restored from it."""
    return batch[0], network(batch[0])


def crop_numbers(
    first_step: int, optim: Optim, accumulate: int = 1, rank: int = 0, processes: int = 1
) -> Iterator[list[int]]:
    """Which crops one process reads in each pass: step t takes crops t B ... (t + 1) B - 1, every process its slice.

    So a step sees the same crops however many processes and passes it is divided into.

    Args:
        first_step: Step to begin with.
        optim: Batch size and number of steps.
        accumulate: Passes of a step.
        rank: Number of this process.
        processes: Number of all processes.

    Raises:
        ValueError: If the batch cannot be divided.

    Example:
        >>> list(crop_numbers(1, Optim(steps=3, batch_size=4), rank=1, processes=2))
        [[6, 7], [10, 11]]
    """
    parts = processes * accumulate
    if optim.batch_size % parts:
        raise ValueError(
            f"`optim.batch_size` {optim.batch_size} must be a multiple of {processes} processes x {accumulate} "
            "accumulated passes."
        )
    size = optim.batch_size // parts
    for step in range(first_step, optim.steps):
        for number in range(accumulate):
            begin = step * optim.batch_size + (number * processes + rank) * size
            yield list(range(begin, begin + size))


class MaskedCrops(Crops):
    """Crops (degraded, clean) with the mask of pixels to hide; item ``i`` depends on ``seed`` and ``i`` alone.

    Args:
        crops: Pairs of tensors (3, h, w).
        seed: Seed of the masks.
        ratio: Share of hidden pixels, in (0, 1).
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
    """All crops of a run, and those that it is validated with: two of every held-out image.

    Args:
        data: What is trained on.
        optim: Batch size and number of steps.
        compute: Use of the machine.
        seed: Seed of the crops.

    Raises:
        ValueError: If there are no images for training or none for validation, or a task cannot be made from them.
    """
    parts = [divide(one, data.held_out) for one in data.sets()]
    training, held_out = ([one for one in sets if one.pairs] for sets in zip(*parts, strict=True))
    if not held_out:
        raise ValueError(
            f"`data.held_out` {data.held_out} leaves no image to validate with: it must be at least 1, and a set must "
            "have 4 clean images or more."
        )
    count = 2 * len({pair.clean for one in held_out for pair in one.pairs})
    crops = partial(
        MixedCrops, crop=data.crop, tasks=data.tasks, target=data.target, synthesised=data.synthesised,
        cache_megabytes=compute.cache_megabytes, grey=data.grey,
    )  # fmt: skip
    return crops(training, optim.steps * optim.batch_size, seed=seed), crops(held_out, count, seed=seed + 1)


def divide(images: ImageSet, held_out: int) -> tuple[ImageSet, ImageSet]:
    """A set without the pairs of its last ``held_out`` clean images (a quarter at most), and the set of those pairs."""
    clean = sorted({pair.clean for pair in images.pairs})
    last = set(clean[len(clean) - min(held_out, len(clean) // 4) :])
    parts = (tuple(pair for pair in images.pairs if (pair.clean in last) == wanted) for wanted in (False, True))
    training, validation = (replace(images, pairs=part) for part in parts)
    return training, validation


def fingerprint(crops: MixedCrops) -> str:
    """Changes if other images are trained on, wherever they are; their content is not read."""
    pairs = [pair for group in (crops.clean, *crops.real.values()) for pair in group]
    return hashlib.sha256("\n".join(pair.name for pair in pairs).encode()).hexdigest()


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


@dataclass
class State:
    """Everything that decides how a run goes on.

    Args:
        network: Bare network.
        trained: The same as prepared by ``accelerator``.
        average: Moving average of its weights, if there is one.
        optimiser: As prepared by ``accelerator``.
        accelerator: Devices and processes.
        step: Finished optimiser steps.
        losses: Loss of every step since the last row of metrics.csv.
    """

    network: nn.Module
    trained: nn.Module
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    accelerator: Accelerator
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def begin(cls, network: nn.Module, optim: Optim, accelerator: Accelerator) -> "State":
        """Before the first step; the optimiser takes the parameters that require a gradient.

        Args:
            network: What is trained.
            optim: Optimiser and schedule.
            accelerator: From :func:`start`.
        """
        average = None
        if optim.ema is not None:
            average = AveragedModel(network, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(optim.ema))
        made = optimiser(network, optim.lr, optim.betas, optim.muon)
        trained, prepared = accelerator.prepare(network.train(), made)
        return cls(network, trained, average, prepared, accelerator)

    @property
    def result(self) -> nn.Module:
        """The network that is validated and written."""
        return self.network if self.average is None else self.average.module

    def mean_loss(self) -> float:
        """Mean over the steps since the last row.

        Raises:
            ValueError: If it is not finite.
        """
        mean = float(torch.stack(self.losses).double().mean()) if self.losses else 0.0
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss is {mean} within the {len(self.losses)} steps up to {self.step}: lower `optim.lr`, or set "
                "`optim.clip`; the last checkpoint is from before."
            )
        return mean

    def to_dict(self) -> dict[str, Any]:
        """All of it, for :func:`ram_models.runs.save_checkpoint`; every process must call it."""
        self.mean_loss()
        return {
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
            "step": self.step,
            "losses": [float(loss) for loss in self.losses],
            "random": gather_object([random_state()]),
        }

    def load(self, stored: Mapping[str, Any]) -> None:
        """Undo everything since :meth:`to_dict`."""
        self.network.load_state_dict(stored["network"])
        if self.average is not None:
            self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        self.step = stored["step"]
        self.losses = [torch.tensor(loss, device=self.accelerator.device) for loss in stored["losses"]]
        if self.accelerator.process_index < len(stored["random"]):
            restore_random_state(stored["random"][self.accelerator.process_index])


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """The SIGTERM and Ctrl-C that arrive meanwhile, instead of their effect; a second one acts at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_requests(_: int) -> None:
    """In a loading process: a signal to the whole group is for the training process, which ends the others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class UnreadableData(ValueError):
    """An item of the training data that cannot be had."""


def read(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device; what goes wrong in a loading process becomes one line.

    Raises:
        UnreadableData: If an item cannot be read.
    """
    try:
        for batch in loader:
            yield [tensor.to(device, non_blocking=True) for tensor in batch]
    except (ValueError, OSError, RuntimeError) as error:
        raise UnreadableData(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


def optimise(state: State, batches: Iterable[Batch], loss: Loss, optim: Optim) -> Iterator[None]:
    """Train on the batches; comes back after every optimiser step, when all passes of the step are done.

    Args:
        state: Network, optimiser, average; changed in place.
        batches: One for each pass.
        loss: Mean loss of the network on a batch.
        optim: Optimiser and schedule.
    """
    accelerator, parts = state.accelerator, []
    for batch in batches:
        with accelerator.accumulate(state.trained):
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate(state.step, optim) * group["relative_lr"]
            value = loss(state.trained, batch)
            accelerator.backward(value)
            if accelerator.sync_gradients and optim.clip is not None:
                accelerator.clip_grad_norm_(state.network.parameters(), optim.clip)
            state.optimiser.step()
            state.optimiser.zero_grad()
        parts.append(value.detach())
        if accelerator.sync_gradients:
            if state.average is not None:
                state.average.update_parameters(state.network)
            state.losses.append(accelerator.reduce(torch.stack(parts).mean(), "mean"))
            state.step += 1
            parts.clear()
            yield


def fit(
    network: nn.Module,
    crops: Crops,
    loss: Loss,
    validation: Validation,
    run: Run,
    accelerator: Accelerator,
    data_id: str,
) -> None:
    """Train, or continue, the parameters that require a gradient; ``weights.safetensors`` is written at the end.

    A run that is killed at any time and started again ends with the weights, the optimiser and the metrics.csv that it
    would have had, bit by bit (CPU, one process, one thread, same versions).

    Args:
        network: On the CPU.
        crops: All items of the run in their order; see :func:`crop_numbers`.
        loss: Mean loss of the network on a batch; the mean of those of parts of a batch must be that of the batch.
        validation: Held-out crops.
        run: The recipe's configuration.
        accelerator: From :func:`start`.
        data_id: Fingerprint of the data, to notice that they changed.

    Raises:
        ValueError: If an image cannot be read (the finished steps are saved), the loss is not finite, or a checkpoint
            in the folder has other settings.
        OSError: If a file cannot be written.

    Warns:
        UserWarning: If the images are not those that the run began with.
    """
    optim, log = run.optim, run.log
    settings = {name: value for name, value in flat_settings(run).items() if not name.startswith(FREE)}
    run.out.mkdir(parents=True, exist_ok=True)
    state = State.begin(network, optim, accelerator)
    set_seed(run.seed, device_specific=True)  # so that processes drop different paths of a stochastic network
    stored, metrics = latest_checkpoint(run.out / "checkpoints"), None
    if stored is not None:
        refuse_other_settings(stored["settings"], settings, run.out)
        if stored["data"] != data_id:
            warnings.warn("the images are not those that the run began with; it goes on with these.", stacklevel=2)
        state.load(stored)
        metrics = stored["metrics"]
        stored.clear()  # as large as all that is trained
    journal = Journal(
        run.out, [f"psnr_{name}" for name in validation.names], metrics, state.step, optim.steps, optim.batch_size,
        log.tensorboard, accelerator.is_main_process,
    )  # fmt: skip
    if accelerator.is_main_process:
        used = {"processes": accelerator.num_processes, "device": str(accelerator.device), "seed": run.seed}
        record_start(run.out, run, state.step, used | {"threads": torch.get_num_threads()})

    def save() -> None:
        content = state.to_dict() | {"settings": settings, "data": data_id}
        if accelerator.is_main_process:
            content["metrics"] = journal.metrics.read_text()
            save_checkpoint(content, run.out / "checkpoints", state.step, log.keep)

    def report(validated: bool) -> None:
        values, picture = {"loss": state.mean_loss(), "lr": learning_rate(state.step - 1, optim)}, None
        if accelerator.is_main_process and validated:
            with accelerator.autocast():
                psnr, picture = validate(state.result.eval(), validation, optim.batch_size, accelerator.device)
            values |= psnr
            network.train()
        journal.row(state.step, values, picture)
        state.losses.clear()

    batches = read(_loader(crops, run, state.step, accelerator), accelerator.device)
    with journal, stop_requests() as received:
        try:
            for _ in optimise(state, batches, loss, optim):
                journal.step()
                stopping, last = anywhere(accelerator, bool(received)), state.step == optim.steps
                validated = last or state.step % log.validate_every == 0
                if validated or state.step % log.every == 0:
                    report(validated)
                if last or stopping or state.step % log.save_every == 0:
                    save()
                if stopping:
                    break
        except UnreadableData:
            if accelerator.num_processes == 1:  # the others could not be waited for
                save()
            raise
    if state.step < optim.steps:
        accelerator.print(f"stopped after step {state.step} of {optim.steps}; the same command goes on from there")
    elif accelerator.is_main_process:
        save_weights(state.result, run.out / "weights.safetensors", settings)
    accelerator.wait_for_everyone()


def _loader(crops: Crops, run: Run, step: int, accelerator: Accelerator) -> DataLoader[tuple[Tensor, ...]]:
    """The batches of this process from ``step`` on."""
    passes, rank, processes = run.compute.accumulate, accelerator.process_index, accelerator.num_processes
    return DataLoader(
        crops,
        batch_sampler=crop_numbers(step, run.optim, passes, rank, processes),
        num_workers=run.compute.workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=ignore_stop_requests,
        generator=torch.Generator(),  # else it would draw from the generator of the training itself
    )


def anywhere(accelerator: Accelerator, claim: bool) -> bool:
    """Whether it is true in any of the processes; they wait for each other."""
    if accelerator.num_processes == 1:
        return claim
    count: Tensor = accelerator.reduce(torch.tensor(float(claim), device=accelerator.device), "sum")
    return bool(count > 0)
