"""Networks by name, and weights from files and repositories: all of them or none."""

__all__ = [
    "BUNDLED",
    "LoadReport",
    "UnfittingWeights",
    "build",
    "create",
    "load_weights",
    "ram_denoise_tiny",
    "ram_promptir",
    "ram_promptir_tiny",
    "ram_swinir",
    "ram_swinir_tiny",
]

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from macattr.user_warnings import warn_user
from macattr.weights.files import SUFFIXES, read_weights
from ram_models.networks.rgb import RGBPromptIR, RGBSwinIR

Arguments = Mapping[str, int | float | list[int]]
"""Constructor arguments of a network, as a YAML file gives them."""

TINY: Arguments = MappingProxyType({"embed_dim": 48, "depths": [4, 4, 4], "num_heads": [4, 4, 4]})
"""Constructor arguments of the small RAM-SwinIR."""

NETWORKS: Mapping[str, tuple[type[RGBSwinIR] | type[RGBPromptIR], Arguments]] = MappingProxyType(
    {
        "ram-swinir": (RGBSwinIR, {}),
        "ram-swinir-tiny": (RGBSwinIR, TINY),
        "ram-denoise-tiny": (RGBSwinIR, TINY),
        "ram-promptir": (RGBPromptIR, {}),
        "ram-promptir-tiny": (
            RGBPromptIR,
            {"dim": 12, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 1.0},
        ),
    }
)
"""Class and constructor arguments by name; empty ones are the paper's network."""

BUNDLED = Path(__file__).parents[1] / "weights"
"""Folder of the weights that come with the package."""

PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "network.", "netG.", "net_g.", "generator.")
"""Prefixes that DataParallel, torch.compile and training frameworks put before every name."""

DERIVED = ("relative_position_index", "attn_mask", "n_averaged", "total_ops", "total_params")
"""Last parts of names that need no loading: buffers that the network makes itself, and counters of tools."""

OPTIONAL = "mask_token"
"""The one parameter that may be missing or of another size: it is untrained, and RGB networks never show it."""


@dataclass(frozen=True)
class LoadReport:
    """Comparison of a weights file with a network.

    Args:
        source: File that was read.
        sha256: Hash of the file.
        entries: Entries inside each other that hold the weights; empty if the file holds them directly.
        prefix: Prefix that was removed from the names.
        fitting: Number of parameters that fit; all of them were copied, unless something else did not fit.
        passed_over: Names in the file that are not needed: buffers that the network makes itself, counters of tools,
            and the parameters of other networks beside a complete one under a prefix.
        kept: Parameters of the network that keep their value because the file has none of their size (``mask_token``).
        missing: Parameters that the file lacks.
        unknown: Names in the file that are not in the network.
        reshaped: Names with another shape, with both shapes.
        unusable: Names whose values are not finite floating-point numbers.
    """

    source: Path
    sha256: str
    entries: tuple[str, ...]
    prefix: str
    fitting: int
    passed_over: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    reshaped: tuple[str, ...]
    unusable: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the file holds a value for every parameter and nothing unknown."""
        return not (self.missing or self.unknown or self.reshaped or self.unusable)

    def __str__(self) -> str:
        """One line; long lists of names are cut."""
        where = f" in {'.'.join(self.entries)}" if self.entries else ""
        lists = {
            "passed over": self.passed_over if self.fits else (),
            "kept": self.kept,
            "missing": self.missing,
            "unknown": self.unknown,
            "of another shape": self.reshaped,
            "not finite numbers": self.unusable,
        }
        counted = [f"{self.fitting} parameters{where} fit"]
        return ", ".join(counted + [_count(kind, names) for kind, names in lists.items() if names])


class UnfittingWeights(ValueError):
    """Weights that are not those of the network; ``report`` lists every difference."""

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


def create(name: str, arguments: Arguments = MappingProxyType({})) -> nn.Module:
    """A RAM network for RGB in [0, 1] with random weights.

    Args:
        name: One of ``NETWORKS``.
        arguments: Constructor arguments that replace those of the name.

    Raises:
        ValueError: If the name or an argument is unknown, or the arguments contradict each other.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(NETWORKS)}.")
    network, own = NETWORKS[name]
    try:
        return network(**{**own, **arguments})
    except TypeError as error:
        raise ValueError(f"network {name!r} does not take these arguments: {error}.") from error


def build(name: str, weights: Path | str | None = None) -> nn.Module:
    """A RAM network for RGB in [0, 1], in eval mode.

    Args:
        name: ``ram-swinir-tiny`` (92 layers, bundled weights), ``ram-denoise-tiny`` (the same, fine-tuned on noise),
            ``ram-swinir`` (263 layers, the paper's size), ``ram-promptir-tiny`` (for tests) or ``ram-promptir`` (445
            layers, the paper's size).
        weights: Source as for :func:`load_weights`; None takes the bundled weights if there are any, else a random
            initialisation.

    Raises:
        ValueError: If the name is unknown, or the weights are missing or do not fit exactly.
    """
    network = create(name)
    bundled = BUNDLED / f"{name}.safetensors"
    if weights is not None or bundled.is_file():
        load_weights(network, bundled if weights is None else weights)
    return network.eval()


def ram_swinir_tiny() -> nn.Module:
    """The bundled small RAM-SwinIR: pre-trained with 50 % of the pixels hidden, not fine-tuned."""
    return build("ram-swinir-tiny")


def ram_denoise_tiny() -> nn.Module:
    """The bundled denoiser: a small RAM-SwinIR, pre-trained with 50 % of the pixels hidden, then fine-tuned."""
    return build("ram-denoise-tiny")


def ram_swinir() -> nn.Module:
    """RAM-SwinIR at the paper's size, randomly initialised."""
    return build("ram-swinir")


def ram_promptir_tiny() -> nn.Module:
    """A small RAM-PromptIR, randomly initialised."""
    return build("ram-promptir-tiny")


def ram_promptir() -> nn.Module:
    """RAM-PromptIR at the paper's size, randomly initialised."""
    return build("ram-promptir")


def load_weights(network: nn.Module, source: Path | str) -> LoadReport:
    """Copy weights into the parameters of a network, all of them or none.

    A file may hold the weights under any of :data:`macattr.weights.files.ENTRIES` (averaged ones are preferred), and
    their names may have any of ``PREFIXES``. Buffers in the file are ignored, because the architecture determines them;
    so files of another training size fit.

    Args:
        network: Network that takes the weights, on any device and of any floating-point type.
        source: Local file (``.safetensors``; ``.pth``, ``.pt``, ``.ckpt``, ``.bin`` are read as tensors only, and no
            code in them is run); or a Hugging Face repository, ``owner/name`` if it has one weights file, else
            ``hf://owner/name/file`` or ``hf://owner/name@revision/file``. Local files are tried first.

    Returns:
        Comparison of the file with the network. If the file has no ``mask_token`` of the network's size, the network
        keeps its own, with a warning.

    Raises:
        UnfittingWeights: If a parameter is missing, unknown, of another shape or not finite; nothing is changed then.
        ValueError: If there is no such source, or it is damaged or holds no weights.

    Example:
        >>> network = create("ram-swinir-tiny")
        >>> print(load_weights(network, BUNDLED / "ram-swinir-tiny.safetensors"))
        173 parameters fit
    """
    file = _local_file(source)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    state, entries = read_weights(file)
    state, prefix, others = _without_prefix(state, [name for name, _ in network.named_parameters()])
    report = _compare(network, state, _Origin(file, digest, entries, prefix, others))
    if not report.fits:
        raise UnfittingWeights(
            f"{file.name!r} does not fit {type(network).__name__} and was not loaded: {report}.{_hint(network, state)}",
            report,
        )
    if report.kept:
        warn_user(
            f"{file.name!r} has no {OPTIONAL} of the network's size: the network keeps its own, which shows "
            "only where a bare network gets a mask without tokens."
        )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in report.kept:
                parameter.copy_(state[name])
    return report


@dataclass(frozen=True)
class _Origin:
    """Where weights come from; see :class:`LoadReport`, except for ``others``: names outside of the prefix."""

    source: Path
    sha256: str
    entries: tuple[str, ...]
    prefix: str
    others: tuple[str, ...]


def _compare(network: nn.Module, state: Mapping[str, Tensor], origin: _Origin) -> LoadReport:
    """Comparison of weights with the parameters of a network."""
    own = dict(network.named_parameters())
    surplus = [name for name in state if name not in own]
    free = {name for name, _ in network.named_buffers()} | {OPTIONAL}
    passed_over = [name for name in surplus if name in free or name.rpartition(".")[2] in DERIVED]
    shared = [name for name in own if name in state]
    reshaped = [name for name in shared if own[name].shape != state[name].shape]
    fitting = [name for name in shared if name not in reshaped]
    unusable = [name for name in fitting if not _is_finite(state[name])]
    kept = [name for name in own if name == OPTIONAL and name not in fitting]
    return LoadReport(
        source=origin.source,
        sha256=origin.sha256,
        entries=origin.entries,
        prefix=origin.prefix,
        fitting=len(fitting) - len(unusable),
        passed_over=(*passed_over, *origin.others),
        kept=tuple(kept),
        missing=tuple(name for name in own if name not in state and name not in kept),
        unknown=tuple(name for name in surplus if name not in passed_over),
        reshaped=tuple(
            f"{name} {_shape(state[name])} instead of {_shape(own[name])}" for name in reshaped if name not in kept
        ),
        unusable=tuple(unusable),
    )


def _is_finite(value: Tensor) -> bool:
    """Whether these are floating-point numbers without infinities and NaN."""
    return value.is_floating_point() and bool(value.float().isfinite().all())


def _shape(value: Tensor) -> str:
    """Such as 3x64x64."""
    return "x".join(map(str, value.shape)) or "a scalar"


def _count(kind: str, names: Sequence[str]) -> str:
    """Such as "5 missing (a, b, c, ...)"."""
    shown = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
    return f"{len(names)} {kind} ({shown})"


def _hint(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """The name of another network of ours that the weights are for, in a sentence; empty if there is none."""
    own = {name: value.shape for name, value in network.named_parameters() if name != OPTIONAL}
    for name in NETWORKS:
        shapes = _shapes(name)
        if shapes != own and all(key in state and state[key].shape == shape for key, shape in shapes.items()):
            return f" It fits {name!r}."
    return ""


@functools.cache
def _shapes(name: str) -> Mapping[str, torch.Size]:
    """Shapes of the parameters of a network by name, computed without memory for them."""
    with torch.device("meta"):
        return {key: value.shape for key, value in create(name).named_parameters() if key != OPTIONAL}


def _without_prefix(state: Mapping[str, Tensor], own: Sequence[str]) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Weights by their names in the network, the prefix that was removed, and the names that did not have it.

    All names must have the prefix, unless the names with it are a whole network: a loss network may stand beside it.
    """
    prefix, named = "", [name for name in state if name.rpartition(".")[2] not in DERIVED]
    while start := next((start for start in PREFIXES if _leads(start, named, own)), ""):
        named, prefix = [name.removeprefix(start) for name in named if name.startswith(start)], prefix + start
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    outside = {name: value for name, value in state.items() if not name.startswith(prefix)}
    derived = {name: value for name, value in outside.items() if name.rpartition(".")[2] in DERIVED}
    return derived | inside, prefix, tuple(name for name in outside if name not in derived)


def _leads(start: str, names: Sequence[str], own: Sequence[str]) -> bool:
    """Whether a prefix stands before all names, or before those of a whole network that is not there without it."""
    inside = {name.removeprefix(start) for name in names if name.startswith(start)}
    needed = set(own) - {OPTIONAL}
    return bool(names) and (len(inside) == len(names) or (needed <= inside and not needed <= set(names)))


def _one_line(error: Exception) -> str:
    """Type and beginning of the message of another library's error."""
    words = " ".join(str(error).split())[:200].rstrip(". ")
    return f"{type(error).__name__} {words}".rstrip()


def _local_file(source: Path | str) -> Path:
    """The local file of a source, downloaded if needed."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        inside = _weight_files(entry.name for entry in path.iterdir())
        raise ValueError(f"{str(source)!r} is a folder: name a weights file ({', '.join(inside) or 'it has none'}).")
    name = r"[A-Za-z0-9][\w.-]*"
    match = re.fullmatch(rf"(hf://)?({name}/{name})(?:@([^/]+))?(?:/(.+))?", str(source))
    looks_local = isinstance(source, Path) or path.suffix.lower() in SUFFIXES
    if match is None or (not match[1] and (looks_local or match[4])):
        raise ValueError(f"there is no file {str(source)!r}: give one, or a Hugging Face repository as owner/name.")
    return _download(match[2], match[3], match[4])


def _weight_files(names: Iterable[str]) -> list[str]:
    """Those names that look like weights, sorted."""
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def _download(repository: str, revision: str | None, file: str | None) -> Path:
    """A file of a Hugging Face repository, in the local cache; the only one with weights if none is named."""
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ValueError(
            f"there is no file {repository!r}; to take it from Hugging Face, run: pip install 'macattr[hub]'."
        ) from error
    try:
        names = [file] if file else _weight_files(huggingface_hub.list_repo_files(repository, revision=revision))
        if len(names) == 1:
            return Path(str(huggingface_hub.hf_hub_download(repository, names[0], revision=revision)))
    except Exception as error:  # of the hub, of its HTTP client or of the system; which ones changes with its version
        raise ValueError(
            f"there is no file {repository!r}, and Hugging Face gives none of that name: {_one_line(error)}."
        ) from error
    raise ValueError(
        f"the repository {repository!r} has {len(names)} weights files ({', '.join(names)}): "
        f"name one, as in 'hf://{repository}/FILE'."
    )
