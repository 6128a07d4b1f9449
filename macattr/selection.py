"""From a ranking to what is trained: the selected layers' parameters, all others frozen."""

__all__ = ["TrainableMask", "Trained"]

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from macattr.layers import resolve_layers


@dataclass(frozen=True)
class Trained:
    """What a mask left trainable, and how to undo it.

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

        Raises:
            ValueError: If a layer is not in the model (with near matches), or no parameter is selected.
        """
        names = [
            f"{layer}.{name}" if layer else name
            for layer, module in resolve_layers(model, self.layers).items()
            for name, _ in module.named_parameters(recurse=self.whole_modules)
        ]
        if not names:
            raise ValueError(f"the selected layers own no parameter: {', '.join(self.layers)}.")
        return list(dict.fromkeys(names))

    def apply(self, model: nn.Module) -> Trained:
        """Make the selected parameters trainable and freeze all others.

        Raises:
            ValueError: As :meth:`parameter_names`; the model is then unchanged.
        """
        chosen = {id(model.get_parameter(name)) for name in self.parameter_names(model)}
        previous = {parameter: parameter.requires_grad for parameter in model.parameters()}
        for parameter in previous:
            parameter.requires_grad_(id(parameter) in chosen)
        trained = sum(parameter.numel() for parameter in previous if parameter.requires_grad)
        return Trained(len(self.layers), trained, sum(parameter.numel() for parameter in previous), previous)
