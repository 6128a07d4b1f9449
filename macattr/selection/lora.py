"""Selections as low-rank adapters: a LoraConfig of peft, checked on the network (the only import of peft)."""

__all__ = [
    "AdaptedLayers",
    "Bare",
    "adapted_layers",
    "lora_config",
    "read_lora_config",
    "uniform_lora_config",
]

import copy
import importlib.util
import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from macattr.layers.parameters import layer_of, plain_tensors
from macattr.selection.trainable import TrainableMask
from macattr.user_warnings import warn_user
from macattr.weights.processes import refuse_fully_sharded
from macattr.weights.values import is_offloaded, number_of_values

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
        adapted: Rank of every layer that gets a low-rank adapter; of experts in one tensor, by the parameter's name.
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

    ``target_modules`` is one anchored regular expression (the names themselves where there are experts, because peft
    shortens expressions there), and ``rank_pattern`` and ``alpha_pattern`` name every adapted
    layer, with alpha equal to the rank, so that each adapter has the scale 1. All other layers go to
    ``modules_to_save``, which trains a full copy. These are norms, embeddings, subclasses with a forward pass of their
    own, layers whose weight is parametrised, and convolutions with groups, dilation or a padding other than zeros, for
    which peft computes something else than it merges. Experts that lie in one tensor (experts, rows, columns), as in
    mixtures of experts of transformers, are adapted too: ``target_parameters`` names them, each expert gets an adapter,
    and n_l counts all of them. The output projection of :class:`torch.nn.MultiheadAttention` is
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
            module, or biases next to experts. A selected weight may be tied to that of another layer, which an adapter
            or a copy would separate. ``refuse`` them, train the smallest module that holds all of them as a ``whole``
            (the selected layers inside it are then trained in full, with a warning), or ``skip`` them.
        parameters: Number B of parameters of all adapters, in place of ``rank``. Copies in full are not part of it.

    Returns:
        The configuration.

    Raises:
        ValueError: If no linear layer or convolution is selected, a bare or tied parameter is refused, or peft would
            train another set of layers, a copy would not be trained, or ``fully_shard`` has the network.
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
    adapted, experts, saved = _split(mask, model, bare)
    modules = dict(model.named_modules())
    sizes = {name: _size(modules[name]) for name in adapted}
    sizes |= {name: _size_of_experts(model.get_parameter(name)) for name in experts}
    if scores is not None:
        scores = {**scores, **{name: scores[layer_of(name)] for name in experts if layer_of(name) in scores}}
    ranks = _ranks(sizes, rank, scores, power=power, parameters=parameters)
    config = _config(
        ranks,
        experts,
        saved,
        transposed=all(_is_transposed(modules[name]) for name in adapted),
        mixture=any(_experts(module) for module in modules.values()),
    )
    _warn_of_fast_path(adapted, modules)
    applied = adapted_layers(config, model)
    if other := (applied.adapted.keys() ^ ranks.keys()) | (set(applied.saved) ^ set(saved)):
        raise ValueError(
            f"peft takes names by their ends and would also train or leave out {', '.join(sorted(other))}: include or "
            "exclude these layers in the selection."
        )
    return config


def uniform_lora_config(
    rank: int,
    layers: str | Collection[str],
    experts: Collection[str] = (),
    saved: Collection[str] = (),
) -> "LoraConfig":
    """The LoraConfig that tools make of a list of names and one rank; :func:`adapted_layers` says what it trains.

    Args:
        rank: Rank and alpha of all adapters.
        layers: Names or ends of names of layers, or one regular expression.
        experts: Names or ends of names of parameters with two or three dimensions.
        saved: Names or ends of names of modules of which a full copy is trained.

    Raises:
        ImportError: If peft is not installed.
    """
    _require_peft()
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=layers if isinstance(layers, str) else list(layers),
        target_parameters=list(experts) or None,
        modules_to_save=list(saved) or None,
    )


def adapted_layers(config: "LoraConfig", model: nn.Module) -> AdaptedLayers:
    """The layers that a LoraConfig adapts or copies, by applying it to a copy of the network without weights.

    Raises:
        ValueError: If peft refuses it, a layer that it names is not in the network, or ``fully_shard`` has the network.
        ImportError: If peft is not installed.
    """
    _require_peft()
    from peft import inject_adapter_in_model

    refuse_fully_sharded(model, "peft adds adapters to a whole network: make the configuration and the adapters")
    skeleton = _without_weights(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(copy.deepcopy(config), skeleton)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"peft cannot apply this configuration to {type(model).__name__}: {error}") from error
    return _applied(config, skeleton, sum(map(number_of_values, model.parameters())))


def _applied(config: "LoraConfig", skeleton: nn.Module, total: int) -> AdaptedLayers:
    """The adapters and copies in a network that peft has changed."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    modules = dict(skeleton.named_modules())
    ranks = {
        _adapted_name(name, module): module.r["default"]
        for name, module in modules.items()
        if isinstance(module, LoraLayer)
    }
    saved = tuple(name for name, module in modules.items() if isinstance(module, ModulesToSaveWrapper))
    patterns = list((config.rank_pattern or {}).items())
    unmatched = [key for key, _ in patterns if not any(re.fullmatch(key, name) for name in ranks)]
    unmatched += [key for key in config.target_parameters or () if not any(name.endswith(key) for name in ranks)]
    unmatched += [key for key in config.modules_to_save or () if not any(name.endswith(key) for name in saved)]
    if unmatched:
        raise ValueError(f"the configuration names {len(unmatched)} layers that are not adapted: {unmatched[0]!r}.")
    trained = sum(parameter.numel() for parameter in skeleton.parameters() if parameter.requires_grad)
    return AdaptedLayers(adapted=ranks, saved=saved, trained=trained, total=total)


def _adapted_name(name: str, adapter: nn.Module) -> str:
    """What an adapter belongs to: a layer, or the tensor of experts, whose adapters lie inside each other."""
    parameter: str | None = getattr(adapter, "parameter_name", None)
    return name if parameter is None else f"{name.replace('.base_layer', '')}.{parameter}"


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


def _split(mask: TrainableMask, model: nn.Module, bare: Bare) -> tuple[list[str], list[str], list[str]]:
    """The layers that get adapters, the tensors of experts that do, and the modules that are trained in full."""
    names = mask.parameter_names(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    owners = list(dict.fromkeys(layer_of(name) for name in names))
    if not any(_is_matrix(modules[owner]) or _experts(modules[owner]) for owner in owners):
        raise ValueError(
            "no selected layer is a plain linear layer or convolution, so there is nothing to adapt: train the "
            "selection itself with TrainableMask.apply."
        )
    ties = _ties(model)
    saved, adapted, experts = [], [], []
    for owner in owners:
        own_ties = [places for places in ties if owner in map(layer_of, places)]
        if own_ties:
            saved += _holder_of_tied(owner, own_ties, names, model, bare)
        elif _is_adaptable(owner, modules):
            adapted.append(owner)
        elif (tensors := _experts(modules[owner])) and _are_adapted(owner, tensors, names, bare):
            experts += [f"{owner}.{tensor}" for tensor in tensors]
        elif _is_copied(owner, modules[owner], names, bare):
            saved.append(owner)
    outer = [name for name in dict.fromkeys(saved) if not any(name.startswith(f"{other}.") for other in saved)]
    if "" in outer:
        raise ValueError(
            f"{type(model).__name__} itself owns selected parameters, and a full copy of the network is no adapter: "
            "exclude them from the selection, or choose bare='skip'."
        )
    inside = [name for name in adapted + experts if any(name.startswith(f"{other}.") for other in outer)]
    if inside and bare == "whole":
        warn_user(
            f"bare='whole' trains all of {', '.join(map(repr, outer))} in full, and with it "
            f"{', '.join(map(repr, inside))}, without adapters there; bare='skip' adapts them."
        )
    adapted, experts = ([name for name in names if name not in inside] for names in (adapted, experts))
    if not adapted and not experts and not outer:
        raise ValueError("bare='skip' leaves out every selected layer: choose another `bare`, or select more layers.")
    for name in outer:
        _refuse_copy(name, modules[name], ties)
    return adapted, experts, outer


def _experts(module: nn.Module) -> list[str]:
    """Names of the module's own tensors (experts, rows, columns), as transformers stores mixtures of experts."""
    number = getattr(module, "num_experts", None)
    own = module.named_parameters(recurse=False)
    return [name for name, tensor in own if tensor.ndim == 3 and tensor.shape[0] == number]


def _are_adapted(owner: str, tensors: list[str], chosen: Collection[str], bare: Bare) -> bool:
    """Whether the experts of a module get adapters: they are all that is selected of it, or the rest is skipped."""
    own = {name for name in chosen if layer_of(name) == owner}
    rest = sorted(own - {f"{owner}.{tensor}" for tensor in tensors})
    if rest and bare == "refuse":
        raise ValueError(
            f"{rest[0]!r} lies next to tensors of experts and is no matrix, so that no adapter trains it: choose "
            f"bare='skip', which leaves it frozen, or bare='whole', which trains all of {owner!r} in full."
        )
    return not rest or bare == "skip"


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
    for part_name, part in module.named_modules(prefix=name):
        own = dict(part.named_parameters(recurse=False))
        if is_offloaded(part):
            raise ValueError(
                f"{name!r} would be copied to train it in full, but accelerate keeps the weights of {part_name!r} "
                "elsewhere: load it on a device, or exclude the layers that need the copy from the selection."
            )
        if fixed := [key for key, parameter in own.items() if not parameter.is_floating_point()]:
            raise ValueError(
                f"{name!r} would be copied to train it in full, but '{part_name}.{fixed[0]}' holds "
                f"{str(own[fixed[0]].dtype).removeprefix('torch.')} values, which have no gradient: exclude the layers "
                "that need the copy from the selection, or choose bare='skip'."
            )
    if any(plain_tensors(part) for part in module.modules()):
        raise ValueError(
            f"{name!r} computes its weight by a hook of torch.nn.utils (weight_norm, spectral_norm, prune) and cannot "
            "be copied by peft: use torch.nn.utils.parametrizations, or remove the hook first."
        )


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


class _Size(NamedTuple):
    """What an adapter costs."""

    per_rank: int  # parameters of an adapter of rank 1: rows plus columns of the weight as a matrix
    full: int  # rank of the weight as a matrix


def _ranks(
    sizes: Mapping[str, _Size],
    rank: int | None,
    scores: Mapping[str, float] | None,
    *,
    power: float,
    parameters: int | None,
) -> dict[str, int]:
    """Rank of every adapter."""
    if not sizes:
        return {}
    rank = 8 if rank is None else rank
    if scores is None and parameters is None:
        return {name: min(rank, size.full) for name, size in sizes.items()}
    weights = dict.fromkeys(sizes, 1.0)
    if scores is not None:
        if bad := [name for name in sizes if not 0 <= scores.get(name, -1.0) < math.inf]:
            got = scores.get(bad[0], "none")
            raise ValueError(
                f"`scores` must hold every adapted layer, finite and not negative, got {got} for {bad[0]!r}: ranks "
                "cannot follow such scores. Leave `scores` out for equal ranks, or take one without negative scores."
            )
        weights = {name: scores[name] ** power / math.sqrt(size.per_rank) for name, size in sizes.items()}
    if not (highest := max(weights.values())):
        raise ValueError("`scores` of all adapted layers are 0: no ranks follow from them.")
    weights = {name: weight / highest for name, weight in weights.items()}
    fewest = sum(size.per_rank for size in sizes.values())
    budget = rank * fewest if parameters is None else parameters
    if budget < fewest:
        raise ValueError(
            f"`parameters` = {budget:,} is less than the {fewest:,} of adapters of rank 1 on {len(sizes)} layers: "
            "raise it, or select fewer layers."
        )
    return _fill(weights, sizes, budget)


def _fill(weights: Mapping[str, float], sizes: Mapping[str, _Size], budget: int) -> dict[str, int]:
    """Whole ranks nearly in proportion to the weights, from 1 to the full ones, that use up a number of parameters."""

    def ranks_at(factor: float) -> dict[str, float]:
        return {name: min(max(1.0, factor * weight), float(sizes[name].full)) for name, weight in weights.items()}

    def cost(ranks: Mapping[str, int] | Mapping[str, float]) -> float:
        return float(sum(rank * sizes[name].per_rank for name, rank in ranks.items()))

    low, high = 0.0, min(LARGEST_FACTOR, max(sizes[name].full / weight for name, weight in weights.items() if weight))
    if cost(ranks_at(high)) > budget:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(ranks_at(middle)) <= budget else (low, middle)
        high = low
    exact = ranks_at(high)
    # Rounding must not take a rank from a layer whose share is whole up to rounding errors of the bisection.
    ranks = {name: math.floor(rank + 1e-9) for name, rank in exact.items()}
    for name in sorted(exact, key=lambda name: ranks[name] - exact[name]):
        if exact[name] - ranks[name] > 1e-9 and cost(ranks) + sizes[name].per_rank <= budget:
            ranks[name] += 1
    return ranks


def _size(module: nn.Module) -> _Size:
    """Cost and full rank of an adapter on a layer; quantised weights are stored packed, in another shape."""
    if isinstance(module, nn.Linear):
        return _Size(module.out_features + module.in_features, min(module.out_features, module.in_features))
    rows, columns = module.get_parameter("weight").flatten(1).shape
    return _Size(rows + columns, min(rows, columns))


def _size_of_experts(tensor: nn.Parameter) -> _Size:
    """Cost and full rank of one adapter for each expert."""
    experts, rows, columns = tensor.shape
    return _Size(experts * (rows + columns), min(rows, columns))


def _config(
    ranks: Mapping[str, int], experts: list[str], saved: list[str], *, transposed: bool, mixture: bool
) -> "LoraConfig":
    """The configuration for these adapters and full copies."""
    from peft import LoraConfig

    rank = max(ranks.values(), default=1)
    adapted = [name for name in ranks if name not in experts]
    # peft reads patterns that name a parameter, but warns that it does not: none where the rank is the largest.
    pattern = {f"^{re.escape(name)}": own for name, own in ranks.items() if name in adapted or own != rank}
    targets: str | list[str] = f"^(?:{'|'.join(re.escape(name) for name in adapted)})$" if adapted else COPIES_ONLY
    if mixture:  # peft shortens an expression to the last words in it, e.g. to every q_proj; names stay as they are
        targets = adapted or ([] if experts else COPIES_ONLY)
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=targets,
        target_parameters=experts or None,
        rank_pattern=dict(pattern),
        alpha_pattern=dict(pattern),
        modules_to_save=saved or None,
        fan_in_fan_out=transposed and bool(adapted),
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
        empty |= {id(tensor): tensor.detach().to("meta") for tensor in plain_tensors(module)}
        if hook := vars(module).get("_hf_hook"):  # accelerate's, which holds the weights that it keeps elsewhere
            empty[id(hook)] = None
    skeleton = copy.deepcopy(model, empty)
    for module in skeleton.modules():
        vars(module).pop("_hf_hook", None)
    return skeleton
