"""The folder of a training run: checkpoints that survive crashes, weights, and a record of every start."""

__all__ = [
    "flat_settings",
    "latest_checkpoint",
    "record_start",
    "refuse_other_settings",
    "save_checkpoint",
    "save_weights",
]

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import nn

from macattr.atomic_files import sync_folder, write_atomically
from macattr.user_warnings import warn_user

CHECKPOINTS = "step-*.pt"

BUNDLED = ("ram_models", "weights")
"""Where the weights of the package lie in it."""


def _digest(file: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def save_checkpoint(state: Mapping[str, object], folder: Path, step: int, keep: int) -> Path:
    """Write ``step-STEP-HASH.pt``, then delete all but the newest ``keep`` checkpoints.

    The name holds the hash of the content, by which a damaged file is noticed.

    Args:
        state: Content that ``torch.load(weights_only=True)`` can read.
        folder: Folder of the checkpoints, which is made if needed.
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
    """The newest intact checkpoint, on the CPU; None if there are no checkpoints.

    Damaged checkpoints are skipped with a warning.

    Raises:
        ValueError: If there are checkpoints and every one is damaged.
    """
    files = sorted(folder.glob(CHECKPOINTS), reverse=True)
    for file in files:
        if file.stem.rpartition("-")[2] == _digest(file):
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return state
        warn_user(
            f"the checkpoint {str(file)!r} is damaged (its content does not match the hash in its name): "
            "going back to the one before."
        )
    if files:
        raise ValueError(
            f"all {len(files)} checkpoints in {str(folder)!r} are damaged: restore one, or choose another `out`."
        )
    return None


def save_weights(network: nn.Module, path: Path, settings: Mapping[str, str]) -> None:
    """Write a network's parameters as safetensors, with the settings of the run in its metadata.

    Args:
        network: Network whose parameters are saved.
        path: File to write.
        settings: Settings of the run as plain text.
    """
    parameters = {name: value.detach().cpu().contiguous() for name, value in network.named_parameters()}
    write_atomically(path, lambda file: file.write(save(parameters, {"settings": json.dumps(settings)})))


def flat_settings(config: object, prefix: str = "") -> dict[str, str]:
    """A nested configuration as plain text by dotted name."""
    flat: dict[str, str] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        flat |= flat_settings(value, f"{name}.") if is_dataclass(value) else {name: str(value)}
    return flat


def refuse_other_settings(stored: Mapping[str, str], settings: Mapping[str, str], out: Path) -> None:
    """Refuse to continue a run with other settings than its checkpoint was made with.

    Bundled weights are the same wherever the package lies, and files that the run is led to from its own folder as
    before: so a run continues in a checkout, and in a study with its networks, that was moved.

    Args:
        stored: Settings of the checkpoint.
        settings: Settings of the run that would continue.
        out: Folder of the run, for the message.

    Raises:
        ValueError: If a setting differs.
    """
    before = _folder_before(out)
    changed = [
        name
        for name in {**stored, **settings}
        if _in_package(stored, name) != _in_package(settings, name)
        and _from_folder(stored, name, before) != _from_folder(settings, name, out)
    ]
    if changed:
        name = changed[0]
        raise ValueError(
            f"the checkpoint in {str(out)!r} was made with {name} = {stored.get(name)}, got {settings.get(name)}: "
            "continue with the same settings or choose another `out`."
        )


def _in_package(settings: Mapping[str, str], name: str) -> str:
    """A setting, where it names bundled weights by their place in the package; "None" if it is not there."""
    value = settings.get(name, "None")  # of an earlier version, which had no such setting: it was off
    parts = Path(value).parts[-3:]
    return "/".join(parts) if parts[:2] == BUNDLED else value


def _folder_before(out: Path) -> Path:
    """Where the folder of a run was when the run last started, by its own record."""
    file = out / "config.yaml"
    recorded = yaml.safe_load(file.read_text()) if file.is_file() else None
    return Path(recorded.get("out") or out) if isinstance(recorded, dict) else out


def _from_folder(settings: Mapping[str, str], name: str, out: Path) -> str | None:
    """A setting, a path as it leads there from the folder of the run; None if it is not there."""
    value = settings.get(name)
    return os.path.relpath(value, out) if value and os.sep in value else value


def record_start(out: Path, config: object, step: int, conditions: Mapping[str, object]) -> None:
    """Write ``config.yaml``, and add this start (step, versions, machine) to ``starts.yaml``.

    Args:
        out: Folder of the run.
        config: The recipe's configuration.
        step: Step at which the run starts.
        conditions: Further facts about this start.
    """
    settings = _plain(asdict(config))  # type: ignore[call-overload]
    (out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    start = {"step": step, **conditions, "python": platform.python_version(), "platform": platform.platform()}
    start["versions"] = {name: _version(name) for name in ("torch", "accelerate", "numpy", "pillow", "macattr")}
    with (out / "starts.yaml").open("a") as file:
        yaml.safe_dump([start], file, sort_keys=False)


def _plain(value: object) -> object:
    """The value with paths as text and containers as lists and dictionaries, for YAML."""
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
