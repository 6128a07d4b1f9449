"""Networks, images and weights from the arguments of a command line."""

__all__ = [
    "load_images",
    "load_network",
    "load_object",
    "load_optional_network",
    "load_weights",
    "shuffled",
]

import difflib
import importlib
import importlib.util
import inspect
import random
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from macattr.cli.sources import SOURCES, open_network
from macattr.image_files import ImageFolder
from macattr.methods.samples import Item
from macattr.weights.files import SUFFIXES, copy_weights, read_weights


def load_object(source: str) -> object:
    """The object that an import string MODULE:NAME or FILE.py:NAME stands for.

    A file is loaded as that file, whatever its name; the other modules of its folder can be imported from it.

    Raises:
        ValueError: If it is not an import string, or there is no such file, module or name.
    """
    module_name, colon, name = source.rpartition(":")
    if not colon or not module_name or not name:
        hint = "write MODULE:NAME, as in ram_models:ram_swinir_tiny, or FILE.py:NAME."
        if Path(source).suffix.lower() in SUFFIXES:
            hint = (
                f"write spandrel:{source} where spandrel knows the network, else FILE.py:NAME and --weights {source}."
            )
        elif source.endswith(".py"):
            hint = f"write {source}:NAME, with the name of the network in it."
        raise ValueError(f"{source!r} is not an import string: {hint}")
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    if not hasattr(module, name):
        public = [n for n in getattr(module, "__all__", vars(module)) if not n.startswith("_")]
        near = difflib.get_close_matches(name, public, 1)
        hint = f"did you mean {near[0]!r}? It has" if near else "it has"
        raise ValueError(f"module {module_name!r} has no {name!r}; {hint} {', '.join(public) or 'no public names'}.")
    return getattr(module, name)


def _load_module(name: str) -> ModuleType:
    """A module by name, of the current folder too."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {name!r} in the current folder or the environment: for a file write FILE.py:NAME."
            ) from error
        raise


def _load_file(file: Path) -> ModuleType:
    """The module in a file, executed once."""
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    path = file.resolve()
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(file)!r} cannot be loaded as Python.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        # Behind everything else, its neighbours still can be imported later and hide no module of another library.
        with suppress(ValueError):
            sys.path.remove(str(path.parent))
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
    return module


def _module_name(path: Path) -> str:
    """Name of a file's module: its stem, or one of its own if another module has that."""
    try:
        module = sys.modules.get(path.stem)
        spec = importlib.util.find_spec(path.stem) if module is None and path.stem.isidentifier() else None
    except (ImportError, ValueError):
        module, spec = None, None
    origin: str | None = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    is_free = path.stem.isidentifier() and module is None and spec is None
    if is_free or (origin is not None and Path(origin).resolve() == path):
        return path.stem
    return f"{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{zlib.crc32(str(path).encode(errors='surrogateescape')):08x}"


def _call(source: str, factory: Callable[..., object]) -> object:
    """Result of a function of the user, called without arguments."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # of a builtin
        parameters = []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if needed := [p.name for p in parameters if p.default is p.empty and p.kind not in optional]:
        raise ValueError(
            f"{source!r} is called without arguments, but needs {', '.join(needed)}: give defaults, or name a function "
            "of yours that passes them, as FILE.py:NAME."
        )
    return factory()


def load_network(source: str, device: str = "cpu", weights: Path | None = None) -> nn.Module:
    """The network that a command line names, in eval mode.

    Args:
        source: Import string of a network or of a function that returns one; or that of a library's network, see
            :data:`macattr.cli.sources.SOURCES`.
        device: Where it goes.
        weights: File whose weights replace those that it comes with.

    Raises:
        ValueError: If it is not a network, cannot be built, the weights do not fit, or the device is missing.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"`device` {device!r} is not a device: write cpu, cuda or cuda:0.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but torch finds no CUDA device here.")
    network = open_network(source, weights)
    return (_imported(source, weights) if network is None else network).to(device).eval()


def load_optional_network(source: str | None, weights: Path | None) -> nn.Module | None:
    """The network that a command line names, on the CPU; None if it names none.

    Raises:
        ValueError: As :func:`load_network`; or if there are weights without a network.
    """
    if source is None and weights is not None:
        raise ValueError(f"`weights` = {weights} has no effect without --model.")
    return None if source is None else load_network(source, weights=weights)


def _imported(source: str, weights: Path | None) -> nn.Module:
    """The network of an import string."""
    network = load_object(source)
    if callable(network) and not isinstance(network, nn.Module):
        network = _call(source, network)
    if not isinstance(network, nn.Module):
        raise ValueError(f"`model` {source!r} gives a {type(network).__name__}: it must be a torch.nn.Module.")
    if weights is not None:
        copy_weights(network, weights)
    return network


def load_images(
    source: str,
    model: str,
    crop: int | None,
    limit: int | None,
    clean: str | None = None,
    *,
    multiple: int | None = None,
    grey: bool = False,
    out: Path | None = None,
) -> ImageFolder | list[Item]:
    """Images of a folder or file, or those that a named function returns.

    Args:
        source: Folder, image file, import string, or the name of an object in the module of ``model``.
        model: The network, as :func:`load_network` takes it.
        crop: Largest side in pixels, for files.
        limit: Number of images, the first ones; None for all.
        clean: Folder of the clean images, for files.
        multiple: Number that divides both sides, for files.
        grey: Whether images have one channel, for files.
        out: Folder of the results, whose pictures are no images to rank on.

    Raises:
        ValueError: If there is none, or the clean images do not correspond.
    """
    for name, place in {"images": source, "clean": clean}.items():
        if place == "":
            raise ValueError(f"`{name}` is empty: name a folder or file, '.' for the current folder.")
    for name, value in {"crop": crop, "limit": limit, "multiple": multiple}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if Path(source).exists() or ("/" in source and ":" not in source):
        folder = ImageFolder(source, crop, clean, multiple=multiple, grey=grey)
        return (folder if out is None else _without_results(folder, Path(source), out))[:limit]
    if ":" not in source:
        scheme, module = model.partition(":")[0], model.rpartition(":")[0]
        if scheme in SOURCES:
            raise ValueError(f"there is no file or folder {source!r}; a function that returns images is FILE.py:NAME.")
        try:
            return load_images(f"{module}:{source}", model, crop, limit, clean, multiple=multiple, grey=grey, out=out)
        except ValueError as error:
            raise ValueError(f"there is no file or folder {source!r}, and {error}") from error
    for name, given in {"crop": crop, "clean": clean, "multiple": multiple, "grey": grey or None}.items():
        if given is not None:
            raise ValueError(f"`{name}` = {given} has no effect on {source!r}: it applies to image files.")
    factory = load_object(source)
    images = _call(source, factory) if callable(factory) else factory
    if not isinstance(images, Sequence) or not images:
        raise ValueError(f"{source!r} must give a non-empty list of images, got {type(images).__name__}.")
    return list(images)[:limit]


def _without_results(images: ImageFolder, source: Path, out: Path) -> ImageFolder:
    """The images that do not lie in the folder of the results: a figure of the run before is no photograph."""
    results = out.resolve()
    if source.is_dir() and results == source.resolve():
        raise ValueError(
            f"`out` {str(out)!r} is the folder of the images: name another, such as {str(out / 'ranking')!r}."
        )
    kept = [number for number, file in enumerate(images.files) if not file.resolve().is_relative_to(results)]
    return images.select(kept) if source.is_dir() and results.is_relative_to(source.resolve()) else images


def shuffled(inputs: ImageFolder | list[Item], seed: int) -> ImageFolder | list[Item]:
    """The same images in a random order: the first of a sorted folder are not a sample of it."""
    order = random.Random(seed).sample(range(len(inputs)), len(inputs))
    return inputs.select(order) if isinstance(inputs, ImageFolder) else [inputs[number] for number in order]


def load_weights(file: Path) -> Mapping[str, Tensor]:
    """Parameters by name from a weights file.

    Raises:
        ValueError: If the file is missing, damaged, or holds anything but weights.
    """
    return read_weights(file)[0]
