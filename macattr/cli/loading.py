"""From what was typed to networks, images, weights and rankings."""

__all__ = [
    "ImageFiles",
    "load_images",
    "load_network",
    "load_object",
    "load_ranking",
    "load_weights",
    "short_names",
    "shuffled",
]

import importlib
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from macattr.image_files import center_crop, find_images, read_image
from macattr.methods.samples import Item
from macattr.ranking.importance import LayerImportance


class ImageFiles:
    """Image files, each read when it is reached.

    Args:
        files: Where they are.
        crop: Largest side in pixels, cut from the middle; None for whole images.
        clean: The clean image of every file; None if unknown.
    """

    def __init__(self, files: Sequence[Path], crop: int | None, clean: Sequence[Path] | None = None) -> None:
        self.files, self.crop, self.clean = files, crop, clean

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        """Images with their names, and their clean images if known."""
        for number, file in enumerate(self.files):
            item = {"image": self._read(file), "name": str(file)}
            yield item if self.clean is None else item | {"clean": self._read(self.clean[number])}

    def _read(self, file: Path) -> Tensor:
        """An image, cropped."""
        image = read_image(file)
        return center_crop(image, self.crop) if self.crop else image


def load_object(source: str) -> object:
    """What an import string MODULE:NAME or FILE.py:NAME stands for.

    Raises:
        ValueError: If it is none, or there is no such file or name.
    """
    module_name, colon, name = source.rpartition(":")
    if not colon:
        raise ValueError(f"{source!r} is no import string: write MODULE:NAME, as in ram_models:ram_swinir_tiny.")
    if module_name.endswith(".py"):
        file = Path(module_name)
        if not file.is_file():
            raise ValueError(f"there is no file {module_name!r}.")
        sys.path.insert(0, str(file.parent))
        module_name = file.stem
    elif "" not in sys.path:
        sys.path.insert(0, "")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        public = ", ".join(n for n in getattr(module, "__all__", vars(module)) if not n.startswith("_"))
        raise ValueError(f"module {module_name!r} has no {name!r}; it has {public}.")
    return getattr(module, name)


def load_network(source: str, device: str = "cpu") -> nn.Module:
    """The network that an import string stands for, or that its function returns, in eval mode.

    Raises:
        ValueError: If it is no network, or the device is not there.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but torch finds no CUDA device here.")
    network = load_object(source)
    if callable(network) and not isinstance(network, nn.Module):
        network = network()
    if not isinstance(network, nn.Module):
        raise ValueError(f"`model` {source!r} gives a {type(network).__name__}: it must be a torch.nn.Module.")
    return network.to(device).eval()


def load_images(
    source: str, model: str, crop: int | None, limit: int | None, clean: str | None = None
) -> ImageFiles | list[Item]:
    """Images of a folder or file, or what a named function returns.

    Raises:
        ValueError: If there is none, or the clean images do not correspond.
    """
    for name, value in {"crop": crop, "limit": limit}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if Path(source).exists() or ("/" in source and ":" not in source):
        files = find_images(source)[:limit]
        return ImageFiles(files, crop, None if clean is None else _partners(files, Path(source), Path(clean)))
    if ":" not in source:
        module = model.rpartition(":")[0]
        try:
            return load_images(f"{module}:{source}", model, crop, limit, clean)
        except ValueError as error:
            raise ValueError(f"there is no file or folder {source!r}, and {error}") from error
    for name, given in {"crop": crop, "clean": clean}.items():
        if given is not None:
            raise ValueError(f"`{name}` = {given} has no effect on {source!r}: it applies to image files.")
    factory = load_object(source)
    images = factory() if callable(factory) else factory
    if not isinstance(images, Sequence) or not images:
        raise ValueError(f"{source!r} must give a non-empty list of images, got {type(images).__name__}.")
    return list(images)[:limit]


def shuffled(inputs: ImageFiles | list[Item], seed: int) -> ImageFiles | list[Item]:
    """The same images in a random order: the first of a sorted folder are no sample of it."""
    order = random.Random(seed).sample(range(len(inputs)), len(inputs))
    if isinstance(inputs, ImageFiles):
        clean = None if inputs.clean is None else [inputs.clean[i] for i in order]
        return ImageFiles([inputs.files[i] for i in order], inputs.crop, clean)
    return [inputs[i] for i in order]


def _partners(files: Sequence[Path], degraded: Path, clean: Path) -> list[Path]:
    """The clean image of every degraded one: same name up to the suffix, below the other folder."""
    by_name = {file.stem: file for file in find_images(clean)}
    if missing := [file for file in files if file.stem not in by_name]:
        raise ValueError(
            f"{len(missing)} of {len(files)} images in {str(degraded)!r} have no clean one of that name in "
            f"{str(clean)!r}, e.g. {missing[0].name}."
        )
    return [by_name[file.stem] for file in files]


def load_weights(file: Path) -> Mapping[str, Tensor]:
    """Parameters by name from a safetensors file or a bare state dict.

    Raises:
        ValueError: If the file is missing or neither.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state: object = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as weights: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{str(file)!r} holds no bare state dict: save one, or safetensors.")
    return state


def load_ranking(source: str) -> LayerImportance | dict[str, float]:
    """A saved ranking, or the scores of an official list's folder.

    Raises:
        ValueError: If it is neither.
    """
    from macattr.selection.official import read_official_ranking

    return read_official_ranking(source) if Path(source).is_dir() else LayerImportance.load(source)


def short_names(sources: Sequence[str]) -> list[str]:
    """Short names that tell files of rankings apart: the last parts of their paths that differ.

    Raises:
        ValueError: If one is given twice.
    """
    paths = [Path(source).with_suffix("") for source in sources]
    parts = [path.parent.parts if path.name == "importance" and path.parent.name else path.parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a ranking is given twice: {', '.join(sources)}.")
