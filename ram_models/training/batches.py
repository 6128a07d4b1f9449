"""Batches of a process: the numbers of its crops, and their loading to the device."""

__all__ = ["Batch", "Crops", "UnreadableData", "crop_numbers", "make_loader", "read"]

from collections.abc import Iterable, Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ram_models.training.config import Optim, Run
from ram_models.training.stop_requests import ignore_stop_requests

Batch = Sequence[Tensor]
"""Tensors of several items, the first two the degraded and the clean crops."""


Crops = Dataset[tuple[Tensor, ...]]
"""Items of a run, each a tuple of tensors."""


def crop_numbers(
    first_step: int, optim: Optim, accumulate: int = 1, rank: int = 0, processes: int = 1
) -> Iterator[list[int]]:
    """Numbers of the crops that a process reads in each pass.

    Step t takes crops t B ... (t + 1) B - 1 for batch size B, and every process a slice of them. So a step sees
    the same crops however many processes and passes it is divided into.

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
    if optim.batch_size % (processes * accumulate):
        raise ValueError(
            f"`optim.batch_size` {optim.batch_size} must be a multiple of {processes} processes x {accumulate} "
            "accumulated passes."
        )
    size = optim.batch_size // (processes * accumulate)
    begins = (
        step * optim.batch_size + (number * processes + rank) * size
        for step in range(first_step, optim.steps)
        for number in range(accumulate)
    )
    return (list(range(begin, begin + size)) for begin in begins)


class UnreadableData(ValueError):
    """An item of the training data that cannot be read."""


def read(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device; an error in a loading process becomes one line.

    Raises:
        UnreadableData: If an item cannot be read.
    """
    try:
        for batch in loader:
            yield [tensor.to(device, non_blocking=True) for tensor in batch]
    except (ValueError, OSError, RuntimeError) as error:
        raise UnreadableData(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


def make_loader(crops: Crops, run: Run, step: int, accelerator: Accelerator) -> DataLoader[tuple[Tensor, ...]]:
    """The batches of this process from a step on.

    Args:
        crops: All items of the run in their order.
        run: The recipe's configuration.
        step: First step.
        accelerator: Processes and device.
    """
    return DataLoader(
        crops,
        batch_sampler=crop_numbers(
            first_step=step,
            optim=run.optim,
            accumulate=run.compute.accumulate,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
        ),
        num_workers=run.compute.workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=ignore_stop_requests,
        generator=torch.Generator(),  # otherwise it would draw from the generator of the training
    )
