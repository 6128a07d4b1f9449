"""Layers with their sizes and positions: the table that a selection is made from."""

__all__ = ["LayerDescription", "LayerTable", "describe_layers"]

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from macattr.arguments import as_names
from macattr.layers.parameters import constants, own_parameters, trainable_parameters
from macattr.layers.resolve import LayerLike, match_names, resolve_layers
from macattr.weights.processes import own_class
from macattr.weights.values import number_of_values


@dataclass(frozen=True)
class LayerDescription:
    """Properties of a layer that follow from its name and module.

    Args:
        name: Dotted name in the model.
        type: Class name of the module; torch puts ``Parametrized`` before that of a module with parametrisations.
        depth: Position among the described layers, from 0.
        block: Name up to its last number: the repeated unit that the layer belongs to, '' outside of any.
        role: The rest of the name: the layer's place inside its block.
        parameters: Number of parameters that the module owns, those of its parametrisations and constants included.
    """

    name: str
    type: str
    depth: int
    block: str
    role: str
    parameters: int

    @property
    def stage(self) -> str:
        """The sequence of blocks that the block is one of, '' outside of any."""
        return self.block.rpartition(".")[0]


def describe_layers(layers: dict[str, nn.Module]) -> list[LayerDescription]:
    """Type, depth, block, role and size of every layer.

    Example:
        >>> describe_layers({"blocks.3.fc": nn.Linear(2, 3)})[0]
        LayerDescription(name='blocks.3.fc', type='Linear', depth=0, block='blocks.3', role='fc', parameters=9)
    """
    descriptions = []
    for depth, (name, module) in enumerate(layers.items()):
        match = re.fullmatch(r"(?P<block>.*\.\d+|\d+)\.(?P<role>.+?)", name)
        block, role = (match["block"], match["role"]) if match else ("", name)
        descriptions.append(
            LayerDescription(
                name=name,
                type=own_class(module).__name__,
                depth=depth,
                block=block,
                role=role,
                parameters=sum(map(number_of_values, own_parameters(module).values())),
            )
        )
    return descriptions


@dataclass(frozen=True)
class LayerTable:
    """The layers that a selection is made from, and the parameters that each of them unlocks.

    Args:
        layers: Every layer with its properties, in module order.
        unlocks: For every layer the parameters that it makes trainable, with their number of values. A tied parameter
            has one name, so that it counts once. Without the network, a layer's name stands for all its parameters.
        total: Number of parameters of the network; of the described layers, if the network is not at hand.
        alias_of: For every layer the one whose output tensor it returns, itself included; None if that is not known.
        whole_modules: Whether a layer also unlocks the parameters of the modules inside it.

    Example:
        >>> table = LayerTable.of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> table.names, table.count(["0"]), table.total
        (('0', '2'), 9, 13)
    """

    layers: tuple[LayerDescription, ...]
    unlocks: Mapping[str, Mapping[str, int]]
    total: int
    alias_of: Mapping[str, str] | None = None
    whole_modules: bool = False

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: LayerLike | Iterable[LayerLike] | None = None,
        *,
        alias_of: Mapping[str, str] | None = None,
        whole_modules: bool = False,
    ) -> "LayerTable":
        """The layers of a network; every count is that of ``model.named_parameters()``.

        Raises:
            ValueError: As :func:`resolve_layers`.
        """
        modules = resolve_layers(model, layers)
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        fixed = constants(model)
        unlocks = {
            name: {
                first[id(parameter)]: number_of_values(parameter)
                for parameter in trainable_parameters(module, fixed, whole_modules=whole_modules).values()
            }
            for name, module in modules.items()
        }
        return cls(
            layers=tuple(describe_layers(modules)),
            unlocks=unlocks,
            total=sum(map(number_of_values, model.parameters())),
            alias_of=alias_of,
            whole_modules=whole_modules,
        )

    @classmethod
    def described(
        cls,
        layers: Iterable[LayerDescription],
        *,
        alias_of: Mapping[str, str] | None = None,
        whole_modules: bool = False,
    ) -> "LayerTable":
        """The layers of a network that is not at hand: the total is theirs alone, and tied parameters count twice.

        Args:
            layers: The layers with their properties.
            alias_of: For every layer, the first that returns the same tensor; None if that is not known.
            whole_modules: Whether a layer also unlocks the parameters of the modules inside it.
        """
        layers = tuple(layers)
        own = {layer.name: layer.parameters for layer in layers}
        unlocks = {
            name: {
                other: size
                for other, size in own.items()
                if size and (other == name or (whole_modules and other.startswith(f"{name}.")))
            }
            for name in own
        }
        return cls(
            layers=layers,
            unlocks=unlocks,
            total=sum(own.values()),
            alias_of=alias_of,
            whole_modules=whole_modules,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All layers, in module order."""
        return tuple(layer.name for layer in self.layers)

    def __getitem__(self, name: str) -> LayerDescription:
        """The layer of this name with its properties."""
        return self.layers[self.names.index(name)]

    def count(self, names: Iterable[str]) -> int:
        """Number of parameters that these layers unlock together.

        Args:
            names: Layers; parameters that several of them unlock count once.
        """
        return sum(self.unlocked(names).values())

    def unlocked(self, names: Iterable[str]) -> dict[str, int]:
        """Parameters that these layers unlock together, with their number of values.

        Args:
            names: Layers.
        """
        together: dict[str, int] = {}
        for name in as_names("names", names):
            together |= self.unlocks[name]
        return together

    def match(self, patterns: Iterable[str]) -> set[str]:
        """All layers that these names and globs stand for.

        Args:
            patterns: Names, and globs such as ``*.norm*``.

        Raises:
            ValueError: If one of them matches no layer.
        """
        return {name for pattern in as_names("patterns", patterns) for name in match_names(pattern, self.names)}
