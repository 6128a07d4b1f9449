"""Which parameters of a network are trained: those of selected layers, all others frozen."""

__all__ = ["TrainableMask", "Trained", "train_only"]

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from macattr.layers import resolve_layers


@dataclass(frozen=True)
class Trained:
    """What is left trainable, and how to undo it.

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


def train_only(model: nn.Module, parameters: Collection[str], layers: int | None = None) -> Trained:
    """Make the named parameters trainable and freeze all others.

    Args:
        model: Network.
        parameters: Names as in ``model.named_parameters()``.
        layers: Number of layers to report; None counts the modules that own the parameters.

    Raises:
        ValueError: If there are none, or a name is not in the model; the model is then unchanged.
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    if not parameters:
        raise ValueError("no parameter is named: nothing would be trained.")
    if unknown := [name for name in parameters if name not in known]:
        raise ValueError(
            f"the model has no parameter {unknown[0]!r} ({len(unknown)} of {len(parameters)} are unknown)."
        )
    chosen = {id(known[name]) for name in parameters}
    previous = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in previous:
        parameter.requires_grad_(id(parameter) in chosen)
    trained = sum(parameter.numel() for parameter in previous if parameter.requires_grad)
    owners = {name.rpartition(".")[0] for name in parameters}
    return Trained(layers or len(owners), trained, sum(parameter.numel() for parameter in previous), previous)


@dataclass(frozen=True)
class TrainableMask:
    """The layers that are fine-tuned.

    Args:
        layers: Names of the layers.
        whole_modules: Also train the parameters of modules inside a layer. By default a layer stands for the
            parameters that it owns directly: an attention module for its position bias table alone.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> print(TrainableMask(("1",)).apply(net))
        training 1 layers: 4 of 13 parameters (30.8%)
    """

    layers: tuple[str, ...]
    whole_modules: bool = False

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
        for layer, module in resolve_layers(model, self.layers).items():
            for name, _ in module.named_parameters(recurse=self.whole_modules):
                owners.setdefault(f"{layer}.{name}" if layer else name, layer)
        if not owners:
            raise ValueError(f"the selected layers own no parameter: {', '.join(self.layers)}.")
        return owners

    def apply(self, model: nn.Module) -> Trained:
        """Make the selected parameters trainable and freeze all others.

        Args:
            model: Network whose layers were ranked; changed in place.

        Raises:
            ValueError: As :meth:`parameter_names`; the model is then unchanged.
        """
        return train_only(model, self.parameter_names(model), len(self.layers))

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
            power: 0 for equal learning rates; 1 for rates in proportion to the score.

        Returns:
            One group without scores, else one for each layer with its ``name``; tied parameters stand in the first.

        Raises:
            ValueError: As :meth:`parameter_names`, or if a score is missing, negative or not finite, or all are 0.

        Source:
            Lee et al. 2023 (surgical fine-tuning, Auto-RGN): scores divided by their maximum as factors of the
            learning rate, there for every tensor.

        Example:
            >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
            >>> groups = TrainableMask(("0", "1")).parameter_groups(net, 0.1, {"0": 4.0, "1": 1.0}, power=0.5)
            >>> [(group["name"], group["lr"]) for group in groups]
            [('0', 0.1), ('1', 0.05)]
        """
        if lr <= 0:
            raise ValueError(f"`lr` must be positive, got {lr}.")
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
    if missing := [layer for layer in layers if layer not in scores]:
        raise ValueError(f"`scores` lacks {len(missing)} selected layers: {', '.join(missing[:3])}.")
    if bad := [layer for layer in layers if not 0 <= scores[layer] < math.inf]:
        raise ValueError(f"`scores` must be finite and not negative, got {scores[bad[0]]} for {bad[0]!r}.")
    highest = max(scores[layer] for layer in layers)
    if not highest:
        raise ValueError("`scores` of all selected layers are 0: no learning rate follows from them.")
    return highest
