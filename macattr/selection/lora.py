"""Selections as low-rank adapters: a LoraConfig of peft, and what it makes of a network (the only peft import)."""

__all__ = ["AdaptedLayers", "adapted_layers", "lora_config", "read_lora_config"]

import copy
import importlib.util
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import nn

from macattr.selection.trainable import TrainableMask

if TYPE_CHECKING:
    from peft import LoraConfig

Bare = Literal["refuse", "whole", "skip"]


@dataclass(frozen=True)
class AdaptedLayers:
    """What a LoraConfig makes of a network.

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
            f"beside the network's {self.total:,} ({self.trained / self.total:.1%})"
        )


def lora_config(
    mask: TrainableMask,
    model: nn.Module,
    *,
    rank: int = 8,
    scores: Mapping[str, float] | None = None,
    power: float = 0.5,
    bare: Bare = "refuse",
) -> "LoraConfig":
    r"""A LoraConfig for a selection: adapters on its linear layers and convolutions, all its other layers in full.

    .. math:: r_l = \max(1, \operatorname{round}(r\, s_l^p / \overline{s^p})) \le \text{full rank of } l

    ``target_modules`` is one anchored regular expression, and ``rank_pattern`` and ``alpha_pattern`` name every adapted
    layer, with alpha equal to the rank, so that each adapter has the scale 1. What is no plain linear layer or
    convolution goes to ``modules_to_save``: norms, embeddings, convolutions with groups, and the output projection of
    :class:`torch.nn.MultiheadAttention`, whose adapter would never run. The configuration is applied to a copy of the
    network without weights and compared, because peft finds ``modules_to_save`` by the end of their names.

    Args:
        mask: The selected layers.
        model: The network.
        rank: Rank of the adapters; the mean rank (before rounding) if there are scores.
        scores: Score of every layer; None gives all the same rank.
        power: Exponent p: 0 for equal ranks, 1 for ranks in proportion to the score.
        bare: What to do with a selected module that holds parameters of its own beside modules that are not selected,
            such as a position bias table in an attention module. peft can train a module as a whole only: ``refuse``,
            train it as a ``whole``, or ``skip`` it.

    Returns:
        The configuration.

    Raises:
        ValueError: If no layer can be adapted, a bare parameter is refused, or peft would train another set of layers.
        ImportError: If peft is not installed.

    Warns:
        UserWarning: If torch's own transformer layer would bypass adapters in eval mode.

    Source:
        Hu et al. 2022 (LoRA).
    """
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1, got {rank}.")
    _require_peft()
    adapted, saved = _split(mask, model, bare)
    if not adapted:
        raise ValueError(
            "no selected layer is a plain linear layer or convolution, so there is nothing to adapt: train the "
            "selection itself with TrainableMask.apply."
        )
    modules = dict(model.named_modules())
    ranks = _ranks({name: modules[name] for name in adapted}, rank, scores, power)
    config = _config(ranks, saved, all(_is_transposed(modules[name]) for name in adapted))
    _warn_of_fast_path(adapted, modules)
    found = adapted_layers(config, model)
    if other := (found.adapted.keys() ^ ranks.keys()) | (set(found.saved) ^ set(saved)):
        raise ValueError(
            f"peft takes names by their ends and would also train or leave out {', '.join(sorted(other))}: include or "
            "exclude these layers in the selection."
        )
    return config


def adapted_layers(config: "LoraConfig", model: nn.Module) -> AdaptedLayers:
    """What a LoraConfig makes of a network, found by applying it to a copy without weights.

    Raises:
        ValueError: If peft refuses it, or a layer that it names is not found.
        ImportError: If peft is not installed.
    """
    _require_peft()
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    skeleton = _without_weights(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(copy.deepcopy(config), skeleton)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"peft cannot apply this configuration to {type(model).__name__}: {error}") from error
    modules = dict(skeleton.named_modules())
    ranks = {name: module.r["default"] for name, module in modules.items() if isinstance(module, LoraLayer)}
    saved = tuple(name for name, module in modules.items() if isinstance(module, ModulesToSaveWrapper))
    patterns = list((config.rank_pattern or {}).items())
    unmatched = [key for key, _ in patterns if not any(re.fullmatch(key, name) for name in ranks)]
    unmatched += [key for key in config.modules_to_save or () if not any(name.endswith(key) for name in saved)]
    if unmatched:
        raise ValueError(f"the configuration names {len(unmatched)} layers that are not adapted: {unmatched[0]!r}.")
    trained = sum(parameter.numel() for parameter in skeleton.parameters() if parameter.requires_grad)
    return AdaptedLayers(ranks, saved, trained, sum(parameter.numel() for parameter in model.parameters()))


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
        raise ValueError(f"{str(file)!r} is a {type(config).__name__}, no LoraConfig.")
    return config


def _require_peft() -> None:
    """Raise with the way to install it if peft is missing; it is imported nowhere else and only when used."""
    if importlib.util.find_spec("peft") is None:
        raise ImportError("adapters need peft, which is not installed: pip install 'macattr[peft]'.")


def _split(mask: TrainableMask, model: nn.Module, bare: Bare) -> tuple[list[str], list[str]]:
    """The layers that get adapters, and the modules that are trained in full."""
    names = mask.parameter_names(model)
    chosen = set(names)
    modules = dict(model.named_modules(remove_duplicate=False))
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    adapted = [owner for owner in owners if _is_adaptable(owner, modules)]
    saved = []
    for owner in owners:
        if owner in adapted:
            continue
        inside = {f"{owner}.{name}" for name, _ in modules[owner].named_parameters()}
        if inside <= chosen or bare == "whole":
            saved.append(owner)
        elif bare == "refuse":
            raise ValueError(
                f"{owner!r} holds parameters of its own beside modules that are not selected, and peft can only train "
                "it as a whole: choose bare='whole' or bare='skip'."
            )
    outer = [name for name in saved if not any(name.startswith(f"{other}.") for other in saved)]
    return [name for name in adapted if not any(name.startswith(f"{other}.") for other in outer)], outer


def _is_adaptable(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether peft can put an adapter on a layer, and the layer's forward is what runs."""
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    if isinstance(parent, nn.MultiheadAttention):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.groups == 1
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _ranks(
    layers: Mapping[str, nn.Module], rank: int, scores: Mapping[str, float] | None, power: float
) -> dict[str, int]:
    """Rank of every adapter."""
    shares = dict.fromkeys(layers, 1.0)
    if scores is not None:
        if bad := [name for name in layers if not scores.get(name, -1.0) >= 0]:
            raise ValueError(f"`scores` must hold every adapted layer and not be negative: see {bad[0]!r}.")
        shares = {name: scores[name] ** power for name in layers}
    mean = sum(shares.values()) / len(shares)
    if not mean:
        raise ValueError("`scores` of all adapted layers are 0: no ranks follow from them.")
    return {name: min(max(1, round(rank * shares[name] / mean)), _full_rank(layers[name])) for name in layers}


def _full_rank(module: nn.Module) -> int:
    """The rank at which an adapter is as large as any change of the weight."""
    weight = module.get_parameter("weight")
    rows, columns = weight.flatten(1).shape
    return min(rows, columns)


def _config(ranks: Mapping[str, int], saved: list[str], transposed: bool) -> "LoraConfig":
    """The configuration for these adapters and full copies."""
    from peft import LoraConfig

    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items()}
    return LoraConfig(
        r=(rank := max(ranks.values())),
        lora_alpha=rank,
        target_modules=f"^(?:{'|'.join(re.escape(name) for name in ranks)})$",
        rank_pattern=dict(pattern),
        alpha_pattern=dict(pattern),
        modules_to_save=saved or None,
        fan_in_fan_out=transposed,
    )


def _warn_of_fast_path(adapted: list[str], modules: Mapping[str, nn.Module]) -> None:
    """Warn of layers whose weights torch reads past the adapter."""
    bypassed = [name for name in adapted if isinstance(modules[name.rpartition(".")[0]], nn.TransformerEncoderLayer)]
    if bypassed:
        warnings.warn(
            f"in eval mode torch.nn.TransformerEncoderLayer reads the weights of {len(bypassed)} layers like "
            f"{bypassed[0]!r} past their adapters: call torch.backends.mha.set_fastpath_enabled(False).",
            stacklevel=3,
        )


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy of the network with its structure but no values."""
    empty: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)
