"""Several runs at the same time on one machine."""

__all__ = ["in_parallel"]

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from tqdm.auto import tqdm

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Task], Result], tasks: Sequence[Task], processes: int, unit: str
) -> Iterator[tuple[Task, Result]]:
    """Every task with its result, as they are finished, under a progress bar.

    Args:
        work: A function that a fresh process can import, or a partial of one.
        tasks: Its arguments, in the order in which they are begun.
        processes: Tasks at the same time, one thread each; 1 works in this process with all its threads.
        unit: What the progress bar counts.
    """
    with tqdm(total=len(tasks), unit=unit, disable=not tasks) as bar:
        if processes == 1:
            for task in tasks:
                yield task, work(task)
                bar.update()
            return
        workers = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)
        try:
            futures = {workers.submit(work, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
        finally:
            workers.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a worker: one thread, because more of them would wait for each other; no bars among those of the others."""
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
