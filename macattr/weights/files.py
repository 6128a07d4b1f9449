"""Weights in files of many kinds, by name; nothing in a file is run."""

__all__ = ["ENTRIES", "SUFFIXES", "copy_weights", "read_weights"]

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ENTRIES = (
    "params_ema",
    "ema",
    "average",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "netG",
    "net_g",
    "generator",
)
"""Where files keep weights, averaged ones first; ``average`` and ``network`` are those of this project's runs."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Suffixes of weights files."""

STATISTICS = ("running_mean", "running_var")
"""Ends of the names of buffers that are learned as weights are; averages of parameters alone lack them."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def read_weights(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors of a file by name, and the names of the entries inside each other that hold them.

    Args:
        file: safetensors, or a checkpoint of torch, which is read as tensors only.

    Raises:
        ValueError: If the file is missing or damaged, holds anything but tensors, or holds no weights.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    return _weights_in(_read(file), file)


def copy_weights(network: nn.Module, file: Path) -> None:
    """Copy the weights of a file into a network, all of them or none.

    Args:
        network: Network that takes the weights, on any device.
        file: See :func:`read_weights`. ``module.`` and ``_orig_mod.`` are taken off names that all have it, and any
            other beginning, such as Lightning's ``model.``, if the names without it are just those of the network.

    Raises:
        ValueError: If the file cannot be read, or a parameter or running statistic is missing, unknown or of another
            shape.
    """
    state, _ = read_weights(file)
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in state)), None):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
    own = network.state_dict()
    if state.keys() != own.keys():
        inside = [_below(state, prefix) for prefix in {f"{name.partition('.')[0]}." for name in state}]
        fitting = [some for some in inside if some.keys() == own.keys()]
        state = fitting[0] if len(fitting) == 1 else state
    needed = [name for name in own if name.endswith(STATISTICS)]
    differences = {
        "missing": [n for n in (*(n for n, _ in network.named_parameters()), *needed) if n not in state],
        "unknown": [name for name in state if name not in own],
        "of another shape": [name for name in state if name in own and own[name].shape != state[name].shape],
    }
    if any(differences.values()):
        listed = ", ".join(f"{kind}: {_listed(names)}" for kind, names in differences.items() if names)
        raise ValueError(f"{str(file)!r} does not fit {type(network).__name__} and was not loaded ({listed}).")
    network.load_state_dict(state, strict=False)  # other buffers may be missing


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have a beginning, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _read(file: Path) -> object:
    """Content of a weights file."""
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{str(file)!r} is not a weights file by its name, which should end in {', '.join(SUFFIXES)}.")
    if not file.stat().st_size:
        raise ValueError(f"{str(file)!r} is empty: copy or download it again.")
    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        _check_sums(file)
        with warnings.catch_warnings(action="ignore"):  # about how it was pickled, which nobody here can change
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files give errors of many types, among them KeyError and OSError
        raise ValueError(_refusal(file, error)) from error


def _refusal(file: Path, error: Exception) -> str:
    """Why a file was not read, without torch's advice to run the code in it."""
    text = str(error)
    if refused := re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", text):
        return (
            f"{str(file)!r} holds more than tensors ({refused[1]}) and is not loaded, as that could run any code: "
            "if you trust it, save its weights alone."
        )
    if "TorchScript" in text:
        return f"{str(file)!r} is a TorchScript archive, which holds code: save its state_dict() alone."
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        reason = "its content is not that of one"
    else:
        reason = f"{type(error).__name__} {' '.join(text.split())[:200].rstrip('. ')}".rstrip()
    kind = "safetensors" if file.suffix.lower() == ".safetensors" else "a torch checkpoint"
    return f"{str(file)!r} cannot be read as {kind}, it may be damaged or incomplete: {reason}."


def _check_sums(file: Path) -> None:
    """Compare a checkpoint with the checksums in it, which torch.load ignores."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {damaged} in it is wrong")


def _weights_in(content: object, file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file, and the entries that held them."""
    entries: list[str] = []
    for _ in range(2):  # frameworks nest once, saved again twice; deeper is not a weights file
        inner = [key for key in ENTRIES if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
        if isinstance(content, Mapping) and inner:
            key = next((key for key in inner if content[key]), inner[0])  # an average may be there and empty
            entries, content = [*entries, key], content[key]
    if not isinstance(content, Mapping) or not content:
        kind = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(f"{str(file)!r} holds no weights by name but {kind}: give the file of a network.")
    other = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other:
        raise ValueError(
            f"{str(file)!r} holds no weights where they are looked for: {_listed(other)} are not tensors; "
            f"expected names with tensors, bare or under {', '.join(ENTRIES)}."
        )
    return dict(content), tuple(entries)


def _listed(names: Sequence[str]) -> str:
    """Such as "2 entries (a, b)"; long lists are cut."""
    shown = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
    return f"{len(names)} entries ({shown})"
