"""Layers by name: which modules of a network are looked at, and what is known of them without running it."""

__all__ = ["LayerDescription", "LayerLike", "LayerTable", "describe_layers", "resolve_layers"]

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

LayerLike = nn.Module | str
"""A layer: the module itself, or its name in the network."""


def parameter_owners(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that own a parameter directly, in module order: the layers that can be fine-tuned."""
    return {
        name: module for name, module in model.named_modules() if name and any(True for _ in module.parameters(False))
    }


def resolve_layers(
    model: nn.Module, layers: LayerLike | type[nn.Module] | Sequence[LayerLike | type[nn.Module]] | None = None
) -> dict[str, nn.Module]:
    """Layers by their names in the model, in module order for None and globs, else in the order given.

    Args:
        model: Network that contains the layers.
        layers: None for every module that owns a parameter directly; or one or several of: a module of the model, a
            name, a glob over names (``"layers.*.conv"``), a module class.

    Raises:
        ValueError: If a name, glob, class or module is not in the model, or nothing is selected.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(resolve_layers(net)), list(resolve_layers(net, nn.ReLU))
        (['0', '2'], ['1'])
    """
    if layers is None:
        found = parameter_owners(model)
        if not found:
            raise ValueError(f"no module inside {type(model).__name__} owns a parameter: name the `layers` to look at.")
        return found
    every_name = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[str, nn.Module] = {}
    for layer in layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]:
        chosen |= {name: every_name[name] for name in _names(layer, model, every_name)}
    if not chosen:
        raise ValueError("`layers` is empty: pass None for every module that owns a parameter.")
    return chosen


def _names(layer: LayerLike | type[nn.Module], model: nn.Module, every_name: dict[str, nn.Module]) -> list[str]:
    """Names that one entry stands for; a shared module has several, the first of which is its own."""
    modules = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        names = [name for name, module in modules.items() if module is layer]
        if not names:
            raise ValueError(
                f"the module {type(layer).__name__} is not part of the model: pass one of its own modules."
            )
        return names
    if isinstance(layer, type):
        names = [name for name, module in modules.items() if isinstance(module, layer)]
        if not names:
            raise ValueError(f"the model has no module of class {layer.__name__}.")
        return names
    if layer in every_name:
        return [layer]
    return match_names(layer, list(modules))


def match_names(pattern: str, known: Sequence[str]) -> list[str]:
    """The known names that a name or glob stands for.

    Raises:
        ValueError: If there are none; the message lists near matches.
    """
    if pattern in known:
        return [pattern]
    names = [name for name in known if any(c in pattern for c in "*?[") and fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(unknown_layer(pattern, known))
    return names


def unknown_layer(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not known: near matches, and where a 'module.' prefix comes from."""
    near = [name.removeprefix("module.")] if name.removeprefix("module.") in known else []
    near += [match for match in difflib.get_close_matches(name, known, n=3) if match not in near]
    hint = f"; did you mean {', '.join(repr(match) for match in near)}?" if near else "."
    return f"no layer {name!r}{hint}" + (
        " A 'module.' prefix comes from DataParallel." if name.startswith("module.") else ""
    )


@dataclass(frozen=True)
class LayerDescription:
    """What is known of a layer from its name and module.

    Args:
        name: Dotted name in the model.
        type: Class name of the module.
        depth: Position among the described layers, from 0.
        block: Name up to its last number: the repeated unit that the layer belongs to, '' outside of any.
        role: The rest of the name: what the layer is inside its block.
        parameters: Number of parameters that the module owns directly.
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
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        descriptions.append(LayerDescription(name, type(module).__name__, depth, block, role, parameters))
    return descriptions


@dataclass(frozen=True)
class LayerTable:
    """The layers that a selection is made from, and the parameters that each of them unlocks.

    Args:
        layers: What is known of every layer, in module order.
        unlocks: For every layer the parameters that it makes trainable, with their number of values. A tied parameter
            has one name, so that it counts once.
        total: Number of parameters of the network; of the known layers, if the network is not at hand.
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
        layers: LayerLike | Sequence[LayerLike] | None = None,
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
        unlocks = {
            name: {first[id(parameter)]: parameter.numel() for parameter in module.parameters(recurse=whole_modules)}
            for name, module in modules.items()
        }
        total = sum(parameter.numel() for parameter in model.parameters())
        return cls(tuple(describe_layers(modules)), unlocks, total, alias_of, whole_modules)

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
            layers: What is known of them.
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
        return cls(layers, unlocks, sum(own.values()), alias_of, whole_modules)

    @property
    def names(self) -> tuple[str, ...]:
        """All layers, in module order."""
        return tuple(layer.name for layer in self.layers)

    def __getitem__(self, name: str) -> LayerDescription:
        """What is known of one layer."""
        return self.layers[self.names.index(name)]

    def count(self, names: Iterable[str]) -> int:
        """Number of parameters that these layers unlock together.

        Args:
            names: Layers; parameters that several of them unlock count once.
        """
        together: dict[str, int] = {}
        for name in names:
            together |= self.unlocks[name]
        return sum(together.values())

    def match(self, patterns: Iterable[str]) -> set[str]:
        """All layers that these names and globs stand for.

        Args:
            patterns: Names, and globs such as ``*.norm*``.

        Raises:
            ValueError: If one of them stands for none.
        """
        return {name for pattern in patterns for name in match_names(pattern, self.names)}
