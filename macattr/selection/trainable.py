"""Masks over the layers of a network: the selected ones are trained, all others are frozen."""

__all__ = ["ParameterCount", "TrainableMask", "train_only"]

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm

from macattr.arguments import as_names, positive_number, real_number
from macattr.layers.parameters import constants, forget_frozen, layer_of, mark_frozen, trainable_parameters
from macattr.layers.resolve import resolve_layers
from macattr.layers.wrappers import full_name
from macattr.user_warnings import warn_user
from macattr.weights.values import is_offloaded, number_of_values


@dataclass(frozen=True)
class ParameterCount:
    """How much of a network is trained, and its state before.

    Args:
        layers: Number of layers that are trained.
        trained: Number of parameters that are trained.
        total: Number of parameters of the network.
        previous: The former ``requires_grad`` of every parameter.
    """

    layers: int
    trained: int
    total: int
    previous: Mapping[nn.Parameter, bool]

    def __str__(self) -> str:
        """Counts and share."""
        share = self.trained / self.total
        return f"training {self.layers} layers: {self.trained:,} of {self.total:,} parameters ({share:.1%})"

    def restore(self) -> None:
        """Give every parameter its former ``requires_grad`` back."""
        for parameter, flag in self.previous.items():
            parameter.requires_grad_(flag)
        forget_frozen(parameter for parameter, flag in self.previous.items() if flag)


def train_only(model: nn.Module, parameters: Collection[str], layers: int | None = None) -> ParameterCount:
    """Make the named parameters trainable and freeze all others.

    Args:
        model: Network.
        parameters: Names as in ``model.named_parameters()``.
        layers: Number of layers to report; None counts the layers that the parameters belong to.

    Raises:
        ValueError: If there are none, a name is not in the model, its parameter holds integers, as quantised weights
            do, or accelerate keeps it elsewhere. The model is then unchanged.
    """
    members, parameters = dict(model.named_parameters(remove_duplicate=False)), as_names("parameters", parameters)
    if not parameters:
        raise ValueError("`parameters` is empty: name at least one parameter to train.")
    if unknown := [name for name in parameters if name not in members]:
        raise ValueError(
            f"the model has no parameter {unknown[0]!r} ({len(unknown)} of {len(parameters)} are unknown)."
        )
    if fixed := [name for name in parameters if not _has_gradient(members[name])]:
        raise ValueError(
            f"{fixed[0]!r} holds {str(members[fixed[0]].dtype).removeprefix('torch.')} values, which have no gradient: "
            "train low-rank adapters on quantised weights, see macattr.selection.lora.lora_config."
        )
    if away := [name for name in parameters if is_offloaded(model.get_submodule(name.rpartition(".")[0]))]:
        raise ValueError(
            f"accelerate loads {away[0]!r} anew in every forward pass, so that no gradient reaches it: load its layer "
            "on a device, or train low-rank adapters, see macattr.selection.lora.lora_config."
        )
    chosen = {id(members[name]) for name in parameters}
    previous = {parameter: parameter.requires_grad for parameter in model.parameters()}
    mark_frozen(previous)
    for parameter in previous:
        parameter.requires_grad_(id(parameter) in chosen)
    owners = {layer_of(name) for name in parameters}
    return ParameterCount(
        layers=layers or len(owners),
        trained=sum(number_of_values(parameter) for parameter in previous if parameter.requires_grad),
        total=sum(map(number_of_values, previous)),
        previous=previous,
    )


def _has_gradient(parameter: nn.Parameter) -> bool:
    """Whether its dtype is one that autograd differentiates."""
    return parameter.is_floating_point() or parameter.is_complex()


@dataclass(frozen=True)
class TrainableMask:
    """The layers that are fine-tuned.

    A layer stands for the parameters that it owns directly, and for those of its parametrisations, such as the
    direction and length of a weight-normalised weight. Constants (see :func:`macattr.layers.parameters.constants`) stay
    frozen unless the layer holds nothing else.

    Args:
        layers: Names of the layers.
        whole_modules: Also train the parameters of modules inside a layer. By default an attention module stands for
            its position bias table alone.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> print(TrainableMask(("1",)).apply(net))
        training 1 layers: 4 of 13 parameters (30.8%)
    """

    layers: tuple[str, ...]
    whole_modules: bool = False

    def __post_init__(self) -> None:
        """Take one name for a tuple of one."""
        object.__setattr__(self, "layers", as_names("layers", self.layers))

    def parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that are trained.

        Args:
            model: Network whose layers were ranked.

        Raises:
            ValueError: If a layer is not in the model (with near matches), or no parameter is selected.
        """
        return list(self._owners(model))

    def _owners(self, model: nn.Module) -> dict[str, str]:
        """The first selected layer that holds each trained parameter, by the parameter's name."""
        owners: dict[str, str] = {}
        fixed = constants(model)
        for layer, module in resolve_layers(model, self.layers).items():
            owner = full_name(model, layer)
            for name in trainable_parameters(module, fixed, whole_modules=self.whole_modules):
                owners.setdefault(f"{owner}.{name}" if owner else name, layer)
        if not owners:
            raise ValueError(f"the selected layers own no parameter: {', '.join(self.layers)}.")
        return owners

    def apply(self, model: nn.Module) -> ParameterCount:
        """Make the selected parameters trainable and freeze all others.

        Args:
            model: Network whose layers were ranked; changed in place.

        Raises:
            ValueError: As :meth:`parameter_names`; the model is then unchanged.

        Warns:
            UserWarning: If frozen layers keep running statistics, which ``model.train()`` would let move.
        """
        count = train_only(model, self.parameter_names(model), len(self.layers))
        if drifting := self._frozen_statistics(model):
            warn_user(
                f"{len(drifting)} frozen layers keep statistics that move in training mode, such as {drifting[0]!r}: "
                "call mask.train_mode(model) wherever your loop calls model.train()."
            )
        return count

    def train_mode(self, model: nn.Module) -> nn.Module:
        """Set the network to training mode, but keep the running statistics of its frozen layers.

        It takes the place of ``model.train()`` in a training loop. Batch and instance norms that are not selected, and
        spectral norms of weights that are not selected, run as in evaluation. All other modules run as in training:
        dropout stays active in frozen layers too, as it does after ``model.train()``.

        Args:
            model: Network whose layers were ranked; changed in place.

        Returns:
            The same network.

        Raises:
            ValueError: If a layer is not in the model.

        Example:
            >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3))
            >>> [module.training for module in TrainableMask(("2",)).train_mode(net)]
            [True, False, True]
        """
        model.train()
        for name in self._frozen_statistics(model):
            model.get_submodule(name).training = False
        return model

    def _frozen_statistics(self, model: nn.Module) -> list[str]:
        """Names of the modules whose statistics move in training mode although no selected layer holds them."""
        selected = resolve_layers(model, self.layers).values()
        inside = {id(part) for layer in selected for part in self._trained_modules(layer)}
        return [
            name for name, module in model.named_modules() if id(module) not in inside and _keeps_statistics(module)
        ]

    def _trained_modules(self, layer: nn.Module) -> Iterable[nn.Module]:
        """The modules that a selected layer stands for."""
        if self.whole_modules:
            return layer.modules()
        return [layer, *(layer.get_submodule("parametrizations").modules() if is_parametrized(layer) else ())]

    def parameter_groups(
        self, model: nn.Module, lr: float, scores: Mapping[str, float] | None = None, power: float = 1.0
    ) -> list[dict[str, object]]:
        r"""The selected parameters as groups for a torch optimiser.

        .. math:: \text{lr}_l = \text{lr} \cdot (s_l / \max_k s_k)^\text{power}

        Weight decay is the same for all unless the caller adds ``weight_decay`` to groups: norms and biases are not
        set apart here.

        Args:
            model: Network.
            lr: Learning rate; of the highest score if there are scores.
            scores: Score of every selected layer, not negative; None puts all parameters into one group.
            power: At least 0: 0 for equal learning rates, 1 for rates in proportion to the score.

        Returns:
            One group without scores, else one for each layer with its ``name``; tied parameters stand in the first.

        Raises:
            ValueError: As :meth:`parameter_names`, or if ``power`` is negative, a score is missing, negative or not
                finite, or all are 0.

        Source:
            Lee et al. 2023 (surgical fine-tuning, Auto-RGN): scores divided by their maximum as factors of the
            learning rate, there for every tensor.

        Example:
            >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
            >>> groups = TrainableMask(("0", "1")).parameter_groups(net, 0.1, {"0": 4.0, "1": 1.0}, power=0.5)
            >>> [(group["name"], group["lr"]) for group in groups]
            [('0', 0.1), ('1', 0.05)]
        """
        lr, power = positive_number("lr", lr), real_number("power", power)
        if power < 0:
            raise ValueError(f"`power` must be at least 0, got {power}: layers with higher scores get higher rates.")
        members: dict[str, list[nn.Parameter]] = {}
        grouped: set[int] = set()
        for name, layer in self._owners(model).items():
            if id(parameter := model.get_parameter(name)) not in grouped:
                grouped.add(id(parameter))
                members.setdefault(layer, []).append(parameter)
        if scores is None:
            return [{"params": [parameter for own in members.values() for parameter in own], "lr": lr}]
        highest = _highest(scores, members)
        return [
            {"name": layer, "params": own, "lr": lr * (scores[layer] / highest) ** power}
            for layer, own in members.items()
        ]


def _highest(scores: Mapping[str, float], layers: Iterable[str]) -> float:
    """The largest of the layers' scores, all of which must be usable as factors."""
    if not isinstance(scores, Mapping):
        raise ValueError(
            f"`scores` must be a mapping from names to numbers, got {type(scores).__name__}: of a ranking that is "
            "`dict(zip(ranking['layer'], ranking['score']))`, with `ranking = importance.ranking()`."
        )
    if missing := [layer for layer in layers if layer not in scores]:
        raise ValueError(f"`scores` lacks {len(missing)} selected layers: {', '.join(missing[:3])}.")
    if bad := [layer for layer in layers if not 0 <= scores[layer] < math.inf]:
        raise ValueError(f"`scores` must be finite and not negative, got {scores[bad[0]]} for {bad[0]!r}.")
    highest = max(scores[layer] for layer in layers)
    if not highest:
        raise ValueError("`scores` of all selected layers are 0: no learning rate follows from them.")
    return highest


def _keeps_statistics(module: nn.Module) -> bool:
    """Whether a forward pass in training mode changes buffers of the module, and with them its later outputs."""
    if isinstance(module, _NormBase | _SpectralNorm):
        return not isinstance(module, _NormBase) or isinstance(module.running_mean, torch.Tensor)
    hooks = module._forward_pre_hooks.values()
    own = (name for name, _ in module.named_buffers(recurse=False))
    return any(isinstance(hook, SpectralNorm) for hook in hooks) or any(name.startswith("running_") for name in own)
