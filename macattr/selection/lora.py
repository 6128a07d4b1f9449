"""Selections as low-rank adapters: a LoraConfig of peft, checked on the network (the only import of peft)."""

__all__ = ["AdaptedLayers", "adapted_layers", "lora_config", "read_lora_config"]

import copy
import importlib.util
import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from macattr.layers import layer_of
from macattr.selection.trainable import TrainableMask
from macattr.user_warnings import warn_user

if TYPE_CHECKING:
    from peft import LoraConfig

Bare = Literal["refuse", "whole", "skip"]
"""Treatment of selected parameters that peft can only train together with others."""

LARGEST_FACTOR = 1e30
"""Between shares and ranks: layers with smaller shares keep the rank 1."""

COPIES_ONLY = "dummy-target-modules"
"""The ``target_modules`` of a configuration that adapts no layer, as in peft.utils.constants."""


@dataclass(frozen=True)
class AdaptedLayers:
    """The layers of a network that a LoraConfig adapts or copies.

    Args:
        adapted: Rank of every layer that gets a low-rank adapter.
        saved: Modules of which a full copy is trained.
        trained: Number of parameters that are trained: those of adapters and copies.
        total: Number of parameters of the network without them.
    """

    adapted: Mapping[str, int]
    saved: tuple[str, ...]
    trained: int
    total: int

    def __str__(self) -> str:
        """Counts and share."""
        return (
            f"{len(self.adapted)} layers with adapters, {len(self.saved)} trained in full: {self.trained:,} parameters "
            f"in addition to the network's {self.total:,} ({self.trained / self.total:.1%})"
        )


def lora_config(
    mask: TrainableMask,
    model: nn.Module,
    *,
    rank: int | None = None,
    scores: Mapping[str, float] | None = None,
    power: float = 0.5,
    bare: Bare = "refuse",
    parameters: int | None = None,
) -> "LoraConfig":
    r"""A LoraConfig for a selection: adapters on its linear layers and convolutions, all its other layers in full.

    With scores, ranks share out a number of parameters B. An adapter of rank r costs :math:`r\,n_l`, with :math:`n_l`
    the rows plus columns of the weight as a matrix:

    .. math:: r_l \propto s_l^p / \sqrt{n_l}, \qquad \sum_l r_l n_l \le B, \qquad
        1 \le r_l \le \text{full rank of } l

    ``target_modules`` is one anchored regular expression, and ``rank_pattern`` and ``alpha_pattern`` name every adapted
    layer, with alpha equal to the rank, so that each adapter has the scale 1. All other layers go to
    ``modules_to_save``, which trains a full copy. These are norms, embeddings, subclasses with a forward pass of their
    own, layers whose weight is parametrised, and convolutions with groups, dilation or a padding other than zeros, for
    which peft computes something else than it merges. The output projection of :class:`torch.nn.MultiheadAttention` is
    copied too, since its adapter would never run. The configuration is applied to a copy of the network without weights
    and compared, because peft finds ``modules_to_save`` by the end of their names.

    Args:
        mask: The selected layers.
        model: The network.
        rank: Rank of the adapters (default 8). With scores, B is what this rank costs on all of them.
        scores: Score of every layer; None gives all the same rank.
        power: Exponent p: 1 for GoRA's shares, 0 for the same share of the score for every layer.
        bare: Treatment of parameters that peft can only train together with others. A selected module may hold
            parameters of its own next to modules that are not selected, such as a position bias table in an attention
            module. A selected weight may be tied to that of another layer, which an adapter or a copy would separate.
            ``refuse`` them, train the smallest module that holds all of them as a ``whole`` (the selected layers inside
            it are then trained in full, with a warning), or ``skip`` them.
        parameters: Number B of parameters of all adapters, in place of ``rank``. Copies in full are not part of it.

    Returns:
        The configuration.

    Raises:
        ValueError: If no linear layer or convolution is selected, a bare or tied parameter is refused, or peft would
            train another set of layers.
        ImportError: If peft is not installed.

    Warns:
        UserWarning: If torch's own transformer layer would bypass adapters in eval mode, tied weights are skipped, or
            selected layers lie inside a module that is trained as a whole.

    Source:
        Hu et al. 2022 (LoRA); GoRA (arXiv:2502.12171) for ranks by score, there rounded one by one, so that their sum
        is not held.
    """
    if rank is not None and parameters is not None:
        raise ValueError(f"`rank` = {rank} and `parameters` = {parameters} exclude each other: give one budget.")
    for name, value in {"rank": rank, "parameters": parameters}.items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    _require_peft()
    adapted, saved = _split(mask, model, bare)
    modules = dict(model.named_modules())
    ranks = _ranks({name: modules[name] for name in adapted}, rank, scores, power=power, parameters=parameters)
    config = _config(ranks, saved, all(_is_transposed(modules[name]) for name in adapted))
    _warn_of_fast_path(adapted, modules)
    applied = adapted_layers(config, model)
    if other := (applied.adapted.keys() ^ ranks.keys()) | (set(applied.saved) ^ set(saved)):
        raise ValueError(
            f"peft takes names by their ends and would also train or leave out {', '.join(sorted(other))}: include or "
            "exclude these layers in the selection."
        )
    return config


def adapted_layers(config: "LoraConfig", model: nn.Module) -> AdaptedLayers:
    """The layers that a LoraConfig adapts or copies, by applying it to a copy of the network without weights.

    Raises:
        ValueError: If peft refuses it, or a layer that it names is not in the network.
        ImportError: If peft is not installed.
    """
    _require_peft()
    from peft import inject_adapter_in_model

    skeleton = _without_weights(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(copy.deepcopy(config), skeleton)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"peft cannot apply this configuration to {type(model).__name__}: {error}") from error
    return _applied(config, skeleton, sum(parameter.numel() for parameter in model.parameters()))


def _applied(config: "LoraConfig", skeleton: nn.Module, total: int) -> AdaptedLayers:
    """The adapters and copies in a network that peft has changed."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    modules = dict(skeleton.named_modules())
    ranks = {name: module.r["default"] for name, module in modules.items() if isinstance(module, LoraLayer)}
    saved = tuple(name for name, module in modules.items() if isinstance(module, ModulesToSaveWrapper))
    patterns = list((config.rank_pattern or {}).items())
    unmatched = [key for key, _ in patterns if not any(re.fullmatch(key, name) for name in ranks)]
    unmatched += [key for key in config.modules_to_save or () if not any(name.endswith(key) for name in saved)]
    if unmatched:
        raise ValueError(f"the configuration names {len(unmatched)} layers that are not adapted: {unmatched[0]!r}.")
    trained = sum(parameter.numel() for parameter in skeleton.parameters() if parameter.requires_grad)
    return AdaptedLayers(adapted=ranks, saved=saved, trained=trained, total=total)


def read_lora_config(folder: Path | str) -> "LoraConfig":
    """The LoraConfig in a folder.

    Raises:
        ValueError: If there is none.
        ImportError: If peft is not installed.
    """
    _require_peft()
    from peft import LoraConfig

    if not (file := Path(folder) / "adapter_config.json").is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as a configuration of peft: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{str(file)!r} holds a {type(config).__name__} where a LoraConfig is expected.")
    return config


def _require_peft() -> None:
    """Raise with the way to install it if peft is missing; it is imported nowhere else and only when used."""
    if importlib.util.find_spec("peft") is None:
        raise ImportError("adapters need peft, which is not installed: pip install 'macattr[peft]'.")


def _split(mask: TrainableMask, model: nn.Module, bare: Bare) -> tuple[list[str], list[str]]:
    """The layers that get adapters, and the modules that are trained in full."""
    names = mask.parameter_names(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    owners = list(dict.fromkeys(layer_of(name) for name in names))
    if not any(_is_matrix(modules[owner]) for owner in owners):
        raise ValueError(
            "no selected layer is a plain linear layer or convolution, so there is nothing to adapt: train the "
            "selection itself with TrainableMask.apply."
        )
    ties = _ties(model)
    saved, adapted = [], []
    for owner in owners:
        own_ties = [places for places in ties if owner in map(layer_of, places)]
        if own_ties:
            saved += _holder_of_tied(owner, own_ties, names, model, bare)
        elif _is_adaptable(owner, modules):
            adapted.append(owner)
        elif _is_copied(owner, modules[owner], names, bare):
            saved.append(owner)
    outer = [name for name in dict.fromkeys(saved) if not any(name.startswith(f"{other}.") for other in saved)]
    if "" in outer:
        raise ValueError(
            f"{type(model).__name__} itself owns selected parameters, and a full copy of the network is no adapter: "
            "exclude them from the selection, or choose bare='skip'."
        )
    inside = [name for name in adapted if any(name.startswith(f"{other}.") for other in outer)]
    if inside and bare == "whole":
        warn_user(
            f"bare='whole' trains all of {', '.join(map(repr, outer))} in full, and with it "
            f"{', '.join(map(repr, inside))}, without adapters there; bare='skip' adapts them."
        )
    adapted = [name for name in adapted if name not in inside]
    if not adapted and not outer:
        raise ValueError("bare='skip' leaves out every selected layer: choose another `bare`, or select more layers.")
    for name in outer:
        _refuse_copy(name, modules[name], ties)
    return adapted, outer


def _is_copied(owner: str, module: nn.Module, chosen: Collection[str], bare: Bare) -> bool:
    """Whether a layer that cannot be adapted is trained in full."""
    if bare == "whole" or {f"{owner}.{name}" for name, _ in module.named_parameters()} <= set(chosen):
        return True
    if bare == "refuse":
        raise ValueError(
            f"{owner!r} holds parameters of its own next to modules or constants that are not selected, and peft can "
            "only train it as a whole: choose bare='whole' or bare='skip'."
        )
    return False


def _ties(model: nn.Module) -> list[list[str]]:
    """The names of every parameter that has more than one."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    return [names for names in places.values() if len(names) > 1]


def _holder_of_tied(
    owner: str, ties: list[list[str]], chosen: Collection[str], model: nn.Module, bare: Bare
) -> list[str]:
    """The module, if any, that is trained in full for a layer with tied weights, which an adapter would separate."""
    tied = list(dict.fromkeys(name for names in ties for name in names))
    holder = _common_module(map(layer_of, tied), model)
    inside = model.get_submodule(holder).parameters()
    selected = {id(model.get_parameter(name)) for name in chosen}
    if holder and (bare == "whole" or all(id(parameter) in selected for parameter in inside)):
        return [holder]
    if bare == "skip":
        warn_user(f"{owner!r} is left out, because its weights are tied: {' = '.join(tied)}.")
        return []
    whole = f", or bare='whole', which trains all of {holder!r}" if holder else ""
    raise ValueError(
        f"{owner!r} has tied weights: {' = '.join(tied)}. peft would train them apart: exclude the layer from the "
        f"selection, or choose bare='skip'{whole}."
    )


def _common_module(layers: Iterable[str], model: nn.Module) -> str:
    """Name of the smallest module that holds all of these layers and has a forward pass, '' for the network itself."""
    shared: list[str] = []
    for parts in zip(*(layer.split(".") for layer in layers), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    while isinstance(model.get_submodule(".".join(shared)), nn.ModuleList | nn.ModuleDict) and shared:
        shared.pop()
    return ".".join(shared)


def _refuse_copy(name: str, module: nn.Module, ties: list[list[str]]) -> None:
    """Raise for a module whose full copy would fail, or separate weights that are tied to others outside of it."""
    for places in ties:
        inside = [place for place in places if place.startswith(f"{name}.")]
        if inside and len(inside) < len(places):
            raise ValueError(
                f"{name!r} holds tied weights: {' = '.join(places)}. A full copy of it would separate them: exclude "
                "the layers that need the copy from the selection."
            )
    if any(_plain_tensors(part) for part in module.modules()):
        raise ValueError(
            f"{name!r} computes its weight by a hook of torch.nn.utils (weight_norm, spectral_norm, prune) and cannot "
            "be copied by peft: use torch.nn.utils.parametrizations, or remove the hook first."
        )


def _plain_tensors(module: nn.Module) -> list[torch.Tensor]:
    """Tensors with a history that are neither parameters nor buffers; they cannot be copied."""
    return [value for value in vars(module).values() if isinstance(value, torch.Tensor) and not value.is_leaf]


def _is_matrix(module: nn.Module) -> bool:
    """Whether it is a linear layer or a convolution, of any kind."""
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or _is_transposed(module)


def _is_adaptable(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether an adapter of peft on this layer runs, and computes the same before and after it is merged."""
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    if isinstance(parent, nn.MultiheadAttention) or "weight" not in dict(module.named_parameters(recurse=False)):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return type(module) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and _has_plain_geometry(module)
    return type(module).forward is nn.Linear.forward or _is_quantised(module) or _is_transposed(module)


def _has_plain_geometry(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Whether peft makes an adapter of the same geometry: it takes kernel, stride and padding of the convolution."""
    is_dense = all(step == 1 or side == 1 for step, side in zip(module.dilation, module.kernel_size, strict=True))
    pads = module.padding == "same" or (module.padding != "valid" and any(module.padding))
    return module.groups == 1 and is_dense and (module.padding_mode == "zeros" or not pads)


def _is_quantised(module: nn.Module) -> bool:
    """Whether it is a linear layer with integers for its weight, for which peft has adapters of its own."""
    return isinstance(module, nn.Linear) and not module.weight.is_floating_point()


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return type(module) is Conv1D


def _ranks(
    layers: Mapping[str, nn.Module],
    rank: int | None,
    scores: Mapping[str, float] | None,
    *,
    power: float,
    parameters: int | None,
) -> dict[str, int]:
    """Rank of every adapter."""
    if not layers:
        return {}
    sides = {name: _sides(module) for name, module in layers.items()}
    rank = 8 if rank is None else rank
    if scores is None and parameters is None:
        return {name: min(rank, *sides[name]) for name in layers}
    weights = dict.fromkeys(layers, 1.0)
    if scores is not None:
        if bad := [name for name in layers if not 0 <= scores.get(name, -1.0) < math.inf]:
            raise ValueError(f"`scores` must hold every adapted layer, finite and not negative: see {bad[0]!r}.")
        weights = {name: scores[name] ** power / math.sqrt(sum(sides[name])) for name in layers}
    if not (highest := max(weights.values())):
        raise ValueError("`scores` of all adapted layers are 0: no ranks follow from them.")
    weights = {name: weight / highest for name, weight in weights.items()}
    fewest = sum(map(sum, sides.values()))
    budget = rank * fewest if parameters is None else parameters
    if budget < fewest:
        raise ValueError(
            f"`parameters` = {budget:,} is less than the {fewest:,} of adapters of rank 1 on {len(layers)} layers: "
            "raise it, or select fewer layers."
        )
    return _fill(weights, sides, budget)


def _fill(weights: Mapping[str, float], sides: Mapping[str, tuple[int, int]], budget: int) -> dict[str, int]:
    """Whole ranks nearly in proportion to the weights, from 1 to the full ones, that use up a number of parameters."""

    def ranks_at(factor: float) -> dict[str, float]:
        return {name: min(max(1.0, factor * weight), float(min(sides[name]))) for name, weight in weights.items()}

    def cost(ranks: Mapping[str, int] | Mapping[str, float]) -> float:
        return float(sum(rank * sum(sides[name]) for name, rank in ranks.items()))

    low, high = 0.0, min(LARGEST_FACTOR, max(min(sides[name]) / weight for name, weight in weights.items() if weight))
    if cost(ranks_at(high)) > budget:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(ranks_at(middle)) <= budget else (low, middle)
        high = low
    exact = ranks_at(high)
    # Rounding must not take a rank from a layer whose share is whole up to rounding errors of the bisection.
    ranks = {name: math.floor(rank + 1e-9) for name, rank in exact.items()}
    for name in sorted(exact, key=lambda name: ranks[name] - exact[name]):
        if exact[name] - ranks[name] > 1e-9 and cost(ranks) + sum(sides[name]) <= budget:
            ranks[name] += 1
    return ranks


def _sides(module: nn.Module) -> tuple[int, int]:
    """Rows and columns of the weight as a matrix; quantised weights are stored packed, in another shape."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    rows, columns = module.get_parameter("weight").flatten(1).shape
    return rows, columns


def _config(ranks: Mapping[str, int], saved: list[str], transposed: bool) -> "LoraConfig":
    """The configuration for these adapters and full copies."""
    from peft import LoraConfig

    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items()}
    return LoraConfig(
        r=(rank := max(ranks.values(), default=1)),
        lora_alpha=rank,
        target_modules=f"^(?:{'|'.join(re.escape(name) for name in ranks)})$" if ranks else COPIES_ONLY,
        rank_pattern=dict(pattern),
        alpha_pattern=dict(pattern),
        modules_to_save=saved or None,
        fan_in_fan_out=transposed and bool(ranks),
    )


def _warn_of_fast_path(adapted: list[str], modules: Mapping[str, nn.Module]) -> None:
    """Warn of layers whose weights torch reads past the adapter."""
    bypassed = [name for name in adapted if isinstance(modules[name.rpartition(".")[0]], nn.TransformerEncoderLayer)]
    if bypassed:
        warn_user(
            f"in eval mode torch.nn.TransformerEncoderLayer reads the weights of {len(bypassed)} layers like "
            f"{bypassed[0]!r} past their adapters: call torch.backends.mha.set_fastpath_enabled(False)."
        )


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy of the network with its structure but no values."""
    empty: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    # Old weight and spectral norms keep the weight as a plain tensor with a history, which cannot be copied.
    for module in model.modules():
        empty |= {id(tensor): tensor.detach().to("meta") for tensor in _plain_tensors(module)}
    return copy.deepcopy(model, empty)
