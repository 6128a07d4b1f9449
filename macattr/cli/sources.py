"""Networks of libraries that a command line names by a scheme, such as ``hf:`` or ``timm:``."""

__all__ = ["FORMS", "SOURCES", "Source", "explain_network", "open_network"]

import difflib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from macattr.user_warnings import warn_user
from macattr.weights.files import copy_weights, read_weights

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True)
class Source:
    """A library of networks.

    Args:
        form: How a network of it is named on a command line.
        example: Such a name.
        extra: Extra of this package that installs the library.
        build: The network, from what follows the scheme and whether weights of the user's own will replace its weights.
            It raises ValueError where there is no such network.
    """

    form: str
    example: str
    extra: str
    build: Callable[[str, bool], nn.Module]


def open_network(source: str, weights: Path | None = None) -> nn.Module | None:
    """The network of a library; None if the name has no scheme of ``SOURCES``.

    Args:
        source: Such as ``hf:FOLDER``, ``spandrel:FILE`` or ``timm:NAME``.
        weights: File whose weights replace those of the library, which are not downloaded then.

    Raises:
        ValueError: If the library is missing or has no such network, or the weights do not fit.
    """
    scheme, colon, address = source.partition(":")
    if not colon or scheme not in SOURCES:
        return None
    if not address:
        raise ValueError(f"`model` {source!r} names no network: write {SOURCES[scheme].form}.")
    network = SOURCES[scheme].build(address, weights is not None)
    if weights is not None:
        copy_weights(network, weights)
    return network


def explain_network(command: Command) -> Command:
    """A command whose ``model`` and ``weights`` are explained in full: the forms of all sources, each with an example.

    Args:
        command: Its docstring has ``{forms}`` where they belong.
    """
    command.__doc__ = (command.__doc__ or "").replace("{forms}", FORMS)
    return command


def _library(name: str, scheme: str) -> ModuleType:
    """A library of networks, imported."""
    install = f"pip install 'macattr[{SOURCES[scheme].extra}]'"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"`model` {scheme}:... needs {error.name}, which is not installed: {install}.") from error
    except (ImportError, RuntimeError, OSError) as error:  # torchvision of another build of torch gives a RuntimeError
        raise ValueError(
            f"`model` {scheme}:... needs {name}, which cannot be imported ({type(error).__name__}: {error}): "
            f"{_torchvision_remedy() if 'torchvision' in str(error) else install}."
        ) from error


def _torchvision_remedy() -> str:
    """How to get the torchvision that belongs to the torch that is installed."""
    build = torch.__version__.partition("+")[2]
    version = importlib.metadata.version("torchvision").partition("+")[0]
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return (
        f"torchvision is of another build than torch {torch.__version__}: "
        f"pip install --force-reinstall --no-deps torchvision=={version}{index}"
    )


def _near(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest name; empty if none is near."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# ---- Hugging Face: transformers and diffusers


def _from_hugging_face(address: str, has_own_weights: bool) -> nn.Module:
    """A model of transformers or diffusers, from a folder or a repository."""
    place, name = _split_class(address)
    config = json.loads(_config_file(place).read_text())
    library = _library("diffusers" if "_class_name" in config else "transformers", "hf")
    wanted = name or config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if wanted is None:
        raise ValueError(
            f"config.json of {place!r} names no class: write hf:{place}:CLASS, such as hf:{place}:AutoModel."
        )
    built: Any = getattr(library, wanted, None)
    if not hasattr(built, "from_pretrained"):
        raise ValueError(f"{library.__name__} has no model {wanted!r}{_near(wanted, dir(library))}.")
    try:
        return _randomly(library, built, place) if has_own_weights else _pretrained(built, place, config)
    except OSError as error:  # with long advice
        raise ValueError(f"`model` hf:{place} cannot be loaded: {_first_sentence(error)}.") from error


def _split_class(address: str) -> tuple[str, str]:
    """Folder or repository, and class; '' for that of its configuration."""
    place, colon, name = address.rpartition(":")
    return (place, name) if colon and name.isidentifier() and not Path(address).is_dir() else (address, "")


def _config_file(place: str) -> Path:
    """The configuration in a folder, or in a repository: the only thing that is downloaded before the weights."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        if (file := folder / "config.json").is_file():
            return file
        parts = sorted(child.parent.name for child in folder.glob("*/config.json"))
        hint = f"give one of its parts, such as hf:{place.rstrip('/')}/{parts[0]}" if parts else "give a model's folder"
        raise ValueError(f"folder {place!r} has no config.json: {hint}.")
    if place.startswith((".", "/", "~")) or place.count("/") > 1:
        raise ValueError(f"there is no folder {place!r}.")
    hub: Any = _library("huggingface_hub", "hf")
    try:
        return Path(hub.hf_hub_download(place, "config.json"))
    except hub.errors.LocalEntryNotFoundError as error:
        raise ValueError(
            f"there is no folder {place!r}, and huggingface.co cannot be reached: where it can, run "
            f"`hf download {place} --local-dir FOLDER`, and give hf:FOLDER here."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"there is no folder {place!r}, and huggingface.co says: {_first_sentence(error)}.") from error


def _first_sentence(error: Exception) -> str:
    """The beginning of another library's message, which goes on with advice."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


def _pretrained(built: Any, place: str, config: dict[str, Any]) -> nn.Module:
    """A model with its weights in float32, which the sums along a path need; a warning if some are random."""
    kind = {"torch_dtype" if "_class_name" in config else "dtype": torch.float32}
    network, info = built.from_pretrained(place, output_loading_info=True, **kind)
    if missing := sorted(info["missing_keys"]):
        shown = ", ".join([*missing[:3], *(["..."] if len(missing) > 3 else [])])
        warn_user(
            f"{place!r} has no weights for {len(missing)} parameters of {type(network).__name__} ({shown}): they are "
            "random, and their scores mean nothing."
        )
    return network  # type: ignore[no-any-return]


def _randomly(library: ModuleType, built: Any, place: str) -> nn.Module:
    """A model of a configuration alone."""
    if library.__name__ == "diffusers":
        return built.from_config(built.load_config(place))  # type: ignore[no-any-return]
    config = library.AutoConfig.from_pretrained(place)
    return built.from_config(config) if hasattr(built, "from_config") else built(config)  # type: ignore[no-any-return]


# ---- restoration checkpoints, classifiers


def _from_spandrel(address: str, has_own_weights: bool) -> nn.Module:
    """The network of a restoration checkpoint, whose architecture is read off its weights."""
    state, _ = read_weights(Path(address).expanduser())
    spandrel: Any = _library("spandrel", "spandrel")
    try:
        return spandrel.ModelLoader("cpu").load_from_state_dict(state).model  # type: ignore[no-any-return]
    except spandrel.UnsupportedModelError as error:
        raise ValueError(
            f"spandrel knows no architecture that {address!r} fits: name the network as FILE.py:NAME, with the file as "
            "--weights."
        ) from error


def _from_timm(address: str, has_own_weights: bool) -> nn.Module:
    """A classifier, with the weights that timm has for it unless there are others."""
    timm: Any = _library("timm", "timm")
    if ":" not in address and not timm.is_model(address):
        raise ValueError(f"timm has no model {address!r}{_near(address, timm.list_models())}.")
    try:
        return timm.create_model(address, pretrained=not has_own_weights)  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"timm cannot get weights for {address!r} ({_first_sentence(error)}): give a file as --weights."
        ) from error


SOURCES = MappingProxyType(
    {
        "hf": Source("hf:FOLDER_OR_ID[:CLASS]", "hf:caidas/swin2SR-classical-sr-x2-64", "hf", _from_hugging_face),
        "spandrel": Source("spandrel:FILE", "spandrel:RealESRGAN_x4plus.pth", "spandrel", _from_spandrel),
        "timm": Source("timm:NAME", "timm:resnet50", "timm", _from_timm),
    }
)
"""Libraries of networks by scheme."""

FORMS = (
    "MODULE:NAME or FILE.py:NAME of a torch module or of a function that returns one (mynet.py:build); or "
    + ", ".join(f"{source.form} ({source.example})" for source in SOURCES.values())
)
"""How a network can be named on a command line, each form with an example."""
