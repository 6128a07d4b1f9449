"""Metrics of a training run, on the terminal and in files that continue bit by bit."""

__all__ = ["MetricsLog"]

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from macattr.atomic_files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Progress of a run: a bar, ``metrics.csv``, ``timing.csv`` and TensorBoard.

    Everything in metrics.csv follows from the settings; wall-clock times are in timing.csv alone. Use it in a ``with``
    statement.

    Args:
        out: Folder of the run.
        names: Columns of metrics.csv after step, loss and lr, filled in where a row has them.
        metrics: Content of metrics.csv in the checkpoint from which the run continues; None at the beginning of a run.
        step: Number of finished steps.
        steps: Number of all steps.
        batch_size: Images in a step.
        tensorboard: Whether to write for TensorBoard too.
        active: Whether this process writes; the other processes of a run are silent.

    Raises:
        ValueError: If TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        out: Path,
        names: Sequence[str],
        metrics: str | None,
        step: int,
        steps: int,
        batch_size: int,
        tensorboard: bool = False,
        active: bool = True,
    ) -> None:
        self.metrics, self.timing = out / "metrics.csv", out / "timing.csv"
        self.columns, self.batch_size, self.active = ("step", "loss", "lr", *names), batch_size, active
        self.writer = _summary_writer(out / "tensorboard", step) if tensorboard and active else None
        if active:
            text = metrics or ",".join(self.columns) + "\n"
            write_atomically(self.metrics, lambda file: file.write(text.encode()))
            if not self.timing.exists():
                _append(self.timing, ["step", "seconds", "images_per_second"])
        total, done = steps * batch_size, step * batch_size
        self.bar = tqdm(total=total, initial=done, unit="image", disable=not active, smoothing=0.05)
        self.images, self.began, self.now = 0, time.monotonic(), time.monotonic()

    def step(self) -> None:
        """Count a finished step."""
        self.images, self.now = self.images + self.batch_size, time.monotonic()
        self.bar.update(self.batch_size)

    def row(self, step: int, values: Mapping[str, float], picture: Float[Tensor, "3 h w"] | None = None) -> None:
        """Add a row to the tables and to TensorBoard; its seconds are those since the row before.

        Args:
            step: Optimiser step.
            values: Measured values by column.
            picture: Picture for TensorBoard, RGB in [0, 1].
        """
        if not self.active:
            return
        seconds = self.now - self.began
        speed = self.images / seconds if seconds else 0.0
        _append(self.metrics, [step, *(values.get(name, "") for name in self.columns[1:])])
        _append(self.timing, [step, round(seconds, 3), round(speed, 3)])
        self.bar.set_postfix(loss=f"{values['loss']:.4f}")
        if self.writer is not None:
            for name, value in {**values, "images_per_second": speed}.items():
                self.writer.add_scalar(name, value, step)
            if picture is not None:
                self.writer.add_image("held-out crops", picture, step)
        self.images, self.began = 0, time.monotonic()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def _append(path: Path, row: Sequence[object]) -> None:
    """Add a row to a CSV file."""
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _summary_writer(folder: Path, step: int) -> "SummaryWriter":
    """TensorBoard's writer from ``step`` on. It is imported here because it is optional and slow to import."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"TensorBoard cannot be imported ({error}): install macattr[train], or set `log.tensorboard` to false."
        ) from error
    return SummaryWriter(folder, purge_step=step)
