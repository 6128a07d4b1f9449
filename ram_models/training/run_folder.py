"""The folder of a training run: checkpoints that survive crashes, metrics that continue bit by bit, provenance."""

__all__ = [
    "Journal",
    "flat_settings",
    "latest_checkpoint",
    "random_state",
    "record_start",
    "refuse_other_settings",
    "restore_random_state",
    "save_checkpoint",
    "save_weights",
    "write_atomically",
]

import csv
import hashlib
import importlib.metadata
import json
import platform
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from macattr.atomic_files import sync_folder, write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINTS = "step-*.pt"


def _digest(file: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def save_checkpoint(state: Mapping[str, object], folder: Path, step: int, keep: int) -> Path:
    """Write ``step-STEP-HASH.pt``, then delete all but the newest ``keep`` checkpoints.

    The hash of the content stands in the name, so that a damaged file is known for what it is.

    Args:
        state: Anything that ``torch.load(weights_only=True)`` takes back.
        folder: Where checkpoints are; made if needed.
        step: Finished optimiser steps.
        keep: Number of checkpoints to keep, at least 1.

    Raises:
        OSError: If it cannot be written; the checkpoints before are then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / "new.pt"
    write_atomically(unnamed, lambda file: torch.save(dict(state), file))
    path = unnamed.replace(folder / f"step-{step:08d}-{_digest(unnamed)}.pt")
    sync_folder(folder)
    for old in sorted(folder.glob(CHECKPOINTS))[:-keep]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest intact checkpoint, on the CPU; None if none was ever written.

    Damaged ones are passed over, with a warning.

    Raises:
        ValueError: If there are checkpoints and every one is damaged.
    """
    files = sorted(folder.glob(CHECKPOINTS), reverse=True)
    for file in files:
        if file.stem.rpartition("-")[2] == _digest(file):
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return state
        warnings.warn(
            f"the checkpoint {str(file)!r} is damaged (its content is not what the hash in its name says): "
            "going back to the one before.",
            stacklevel=2,
        )
    if files:
        raise ValueError(
            f"all {len(files)} checkpoints in {str(folder)!r} are damaged: restore one, or choose another `out`."
        )
    return None


def save_weights(network: nn.Module, path: Path, settings: Mapping[str, str]) -> None:
    """Write a network's parameters as safetensors, with the settings of the run in its metadata.

    Args:
        network: What is saved.
        path: File.
        settings: Of the run, as plain text.
    """
    parameters = {name: value.detach().cpu().contiguous() for name, value in network.named_parameters()}
    write_atomically(path, lambda file: file.write(save(parameters, {"settings": json.dumps(settings)})))


class Journal:
    """What a run tells while it goes on: progress bar, ``metrics.csv``, ``timing.csv``, TensorBoard.

    Everything in metrics.csv follows from the settings; wall-clock times stand in timing.csv alone. Use it in a
    ``with`` statement.

    Args:
        out: Folder of the run.
        names: Columns of metrics.csv beside step, loss and lr, filled in where a row has them.
        metrics: What metrics.csv held when the run was saved, None at its beginning; what came later is dropped.
        step: Finished steps.
        steps: All steps.
        batch_size: Images in a step.
        tensorboard: Also write for TensorBoard.
        active: Whether this process writes; the others of a run are silent.

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
        """One more step is done."""
        self.images, self.now = self.images + self.batch_size, time.monotonic()
        self.bar.update(self.batch_size)

    def row(self, step: int, values: Mapping[str, float], picture: Float[Tensor, "3 h w"] | None = None) -> None:
        """Add a row to the tables and to TensorBoard; its seconds are those of the steps since the row before.

        Args:
            step: Optimiser step.
            values: What was measured, by column.
            picture: For TensorBoard: RGB in [0, 1].
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

    def __enter__(self) -> "Journal":
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
    """TensorBoard's writer, from ``step`` on; imported here, because it is optional and slow to import."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"TensorBoard cannot be imported ({error}): install macattr[train], or set `log.tensorboard` to false."
        ) from error
    return SummaryWriter(folder, purge_step=step)


def random_state() -> dict[str, Any]:
    """State of all random number generators of this process: torch, its CUDA devices, numpy, Python."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": json.dumps(numpy_state, default=np.ndarray.tolist),
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Undo what happened to the random number generators since :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(json.loads(state["numpy"]))
    random.setstate(state["python"])


def flat_settings(config: object, prefix: str = "") -> dict[str, str]:
    """A nested configuration as plain text by dotted name."""
    flat: dict[str, str] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        flat |= flat_settings(value, f"{name}.") if is_dataclass(value) else {name: str(value)}
    return flat


def refuse_other_settings(stored: Mapping[str, str], settings: Mapping[str, str], out: Path) -> None:
    """Raise if a checkpoint comes from settings under which the continued run would be another one.

    Args:
        stored: Settings of the checkpoint.
        settings: Those of the run that would continue.
        out: Folder of the run, for the message.

    Raises:
        ValueError: If one differs that matters.
    """
    changed = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"the checkpoint in {str(out)!r} was made with {name} = {stored.get(name)}, got {settings.get(name)}: "
            "continue with the same settings or choose another `out`."
        )


def record_start(out: Path, config: object, step: int, conditions: Mapping[str, object]) -> None:
    """Write ``config.yaml``, and add this start (step, versions, machine) to ``starts.yaml``.

    Args:
        out: Folder of the run.
        config: The recipe's configuration.
        step: Where the run starts.
        conditions: What else is worth knowing of this start.
    """
    settings = _plain(asdict(config))  # type: ignore[call-overload]
    (out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    start = {"step": step, **conditions, "python": platform.python_version(), "platform": platform.platform()}
    start["versions"] = {name: _version(name) for name in ("torch", "accelerate", "numpy", "pillow", "macattr")}
    with (out / "starts.yaml").open("a") as file:
        yaml.safe_dump([start], file, sort_keys=False)


def _plain(value: object) -> object:
    """Paths as text, containers as lists and dictionaries: what YAML knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _version(name: str) -> str:
    """Installed version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
