"""Layers by name: the modules of a network that can be ranked, with their sizes and positions."""

__all__ = [
    "LayerDescription",
    "LayerLike",
    "LayerTable",
    "bare_name",
    "constants",
    "copy_network",
    "describe_layers",
    "entries_of",
    "forget_frozen",
    "full_name",
    "inner_network",
    "is_glob",
    "layer_of",
    "left_out",
    "mark_frozen",
    "matched_by_globs",
    "own_attribute",
    "own_parameters",
    "own_values",
    "plain_tensors",
    "resolve_layers",
    "trainable_parameters",
    "unknown_layer",
]

import copy
import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.weak import WeakIdKeyDictionary

from macattr.arguments import as_names
from macattr.weights.processes import own_class
from macattr.weights.values import number_of_values, present, values_of

LayerLike = nn.Module | str
"""A layer: the module itself, or its name in the network."""

PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
"""Prefixes that a wrapper puts before the names of all layers."""

TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules of torch that hold another one as if it stood in their place: torch.compile, FSDP, checkpointing."""

_FROZEN = WeakIdKeyDictionary()
"""Parameters that a mask has frozen. They are no constants, although they need no gradient."""


def own_attribute(model: object, name: str, default: Any = None) -> Any:
    """An attribute of a network, also inside of torch's own wrappers, which do not pass it on.

    Args:
        model: Network, or a function that calls one.
        name: Name of the attribute.
        default: Value if there is none.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> network.reference_input = 0.5
        >>> own_attribute(nn.DataParallel(network), "reference_input", 0.0)
        0.5
    """
    inner = inner_network(model)[0] if isinstance(model, nn.Module) else model
    return getattr(model, name, getattr(inner, name, default))


def inner_network(model: nn.Module) -> tuple[nn.Module, str]:
    """The network inside of torch's own wrappers, and the prefix that these put before its names.

    Args:
        model: Network, or one inside DataParallel, DistributedDataParallel or torch.compile.

    Example:
        >>> inner_network(nn.DataParallel(nn.ReLU()))
        (ReLU(), 'module.')
    """
    prefix = ""
    while True:
        names = ("module",) if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else TRANSPARENT
        inside = next((name for name in names if name in model._modules), None)
        if inside is None:
            return model, prefix
        model, prefix = model.get_submodule(inside), f"{prefix}{inside}."


def bare_name(name: str, prefix: str = "") -> str:
    """A name without what wrappers put into it.

    Args:
        name: Name of a module or parameter.
        prefix: Its beginning that is to go, with the dot; names that begin otherwise keep theirs.

    Example:
        >>> bare_name("net.body._orig_mod.0", "net.")
        'body.0'
    """
    rest = f"{name}.".removeprefix(prefix) if prefix else f"{name}."
    return ".".join(part for part in rest.split(".") if part and part not in TRANSPARENT)


def full_name(model: nn.Module, name: str) -> str:
    """The name that a layer has inside of the wrappers of a network.

    Args:
        model: Network, or one inside of torch's wrappers.
        name: Name as :func:`resolve_layers` gives it.
    """
    outer = inner_network(model)[1]
    if not outer and _has_module(model, name):
        return name
    every = [full for full, _ in model.named_modules(remove_duplicate=False) if bare_name(full, outer) == name]
    return every[-1] if every else name


def _has_module(model: nn.Module, name: str) -> bool:
    """Whether a name leads to a module."""
    for part in name.split(".") if name else ():
        if part not in model._modules:
            return False
        model = model.get_submodule(part)
    return True


def _whole_prefix(model: nn.Module, prefix: str) -> str:
    """The beginning that names lose: that of torch's wrappers, and a user's own with its dot."""
    return inner_network(model)[1] + (f"{prefix.removesuffix('.')}." if prefix else "")


def _modules(model: nn.Module, prefix: str, *, duplicates: bool) -> dict[str, nn.Module]:
    """All modules of a network by their bare names.

    Raises:
        ValueError: If no module is inside the prefix, or two have the same name without it.
    """
    outer, whole = inner_network(model)[1], _whole_prefix(model, prefix)
    found: dict[str, nn.Module] = {}
    inside = 0
    for name, module in model.named_modules(remove_duplicate=not duplicates):
        is_inside = f"{name}.".startswith(whole)
        inside += is_inside
        bare = bare_name(name, whole if is_inside else outer)
        if prefix and bare and bare in found and found[bare] is not module:
            raise ValueError(f"`prefix` = {prefix!r} gives two modules the name {bare!r}: pass the network inside.")
        found[bare] = module
    if prefix and not inside:
        first = ", ".join(repr(name) for name, _ in inner_network(model)[0].named_children())
        raise ValueError(f"`prefix` = {prefix!r}: no module is called so; the model holds {first or 'no module'}.")
    return found


def plain_tensors(module: nn.Module) -> list[Tensor]:
    """Tensors with a history that are neither parameters nor buffers, which Python cannot copy.

    Old weight norms and pruning (:mod:`torch.nn.utils`) keep a weight so, and compute it anew in every forward pass.

    Args:
        module: The layer.
    """
    return [value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf]


def copy_network(model: nn.Module) -> nn.Module:
    """A copy of a network, with its :func:`plain_tensors` as values without a history.

    Args:
        model: Network.
    """
    tensors = [tensor for module in model.modules() for tensor in plain_tensors(module)]
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in tensors})


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a layer by their names inside it: those that it owns directly, and those of its parametrisations.

    Args:
        module: The layer. Modules of :mod:`torch.nn.utils.parametrizations` keep its weight under ``parametrizations``.

    Example:
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        >>> list(own_parameters(layer))
        ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    own = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        inside = module.get_submodule("parametrizations").named_parameters()
        own |= {f"parametrizations.{name}": parameter for name, parameter in inside}
    return own


@contextmanager
def own_values(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Values of the parameters that :func:`own_parameters` names, while the context lasts.

    Args:
        module: The layer. Its weights may be sharded over processes, offloaded by accelerate or packed into 4 bits.
    """
    with present(module):
        yield {name: values_of(parameter) for name, parameter in own_parameters(module).items()}


def layer_of(parameter: str) -> str:
    """Name of the layer that a parameter belongs to.

    Args:
        parameter: Name as in ``model.named_parameters()``.

    Example:
        >>> layer_of("body.0.weight"), layer_of("body.0.parametrizations.weight.original0")
        ('body.0', 'body.0')
    """
    parametrised = re.match(r"(?:(?P<layer>.*?)\.)?parametrizations\.[^.]+\.(?:original\d*$|\d+\.)", parameter)
    return (parametrised["layer"] or "") if parametrised else parameter.rpartition(".")[0]


def constants(model: nn.Module) -> set[int]:
    """Identities of the parameters that stay as they are in every training: no mask trains them unless asked to.

    They are parameters without a gradient in a network that has others: the shift of a mean-shift layer, a buffer that
    is kept as a parameter. In a network that is frozen as a whole, only parameters of integers are constants. Quantised
    weights and the parameters that :func:`macattr.selection.trainable.train_only` froze do not count as constants.

    Args:
        model: Network.
    """
    parameters = list(model.parameters())
    is_trained = any(parameter.requires_grad or parameter in _FROZEN for parameter in parameters)
    return {
        id(parameter)
        for parameter in parameters
        if type(parameter) is nn.Parameter
        and not parameter.requires_grad
        and parameter not in _FROZEN
        and (is_trained or not parameter.is_floating_point())
    }


def mark_frozen(parameters: Iterable[nn.Parameter]) -> None:
    """Remember that a mask is about to freeze these parameters, so that they are not taken for constants later.

    Args:
        parameters: Those that require a gradient; the others are constants, or were frozen before.
    """
    for parameter in parameters:
        if parameter.requires_grad:
            _FROZEN[parameter] = True


def forget_frozen(parameters: Iterable[nn.Parameter]) -> None:
    """Forget that a mask has frozen these parameters, whose flags are back: who freezes them now may mean constants.

    Args:
        parameters: Any; others are passed over.
    """
    for parameter in parameters:
        _FROZEN.pop(parameter, None)


def trainable_parameters(
    module: nn.Module, fixed: Collection[int], *, whole_modules: bool = False
) -> dict[str, nn.Parameter]:
    """The parameters that a layer stands for when it is selected, by their names inside it.

    Args:
        module: The layer.
        fixed: Identities of the network's :func:`constants`, which are left out. A layer that holds nothing else is
            meant when it is named, and stands for them.
        whole_modules: Whether the parameters of the modules inside it belong to it.
    """
    every = dict(module.named_parameters()) if whole_modules else own_parameters(module)
    free = {name: parameter for name, parameter in every.items() if id(parameter) not in fixed}
    return free or {name: parameter for name, parameter in every.items() if parameter.is_floating_point()}


def _parametrisations(model: nn.Module) -> set[int]:
    """Identities of all modules that belong to the weight of a layer."""
    return {
        id(part)
        for module in model.modules()
        if is_parametrized(module)
        for part in module.get_submodule("parametrizations").modules()
    }


def parameter_owners(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Modules that own a parameter directly, in module order: the layers that can be fine-tuned."""
    inside, fixed = _parametrisations(model), constants(model)
    return {
        name: module
        for name, module in _modules(model, prefix, duplicates=False).items()
        if name and id(module) not in inside and any(id(own) not in fixed for own in own_parameters(module).values())
    }


def is_glob(layer: object) -> bool:
    """Whether an entry of ``layers`` stands for whatever it matches: a glob or a class, not a name or a module."""
    return isinstance(layer, type) or (isinstance(layer, str) and any(character in layer for character in "*?["))


def resolve_layers(
    model: nn.Module,
    layers: LayerLike | type[nn.Module] | Iterable[LayerLike | type[nn.Module]] | None = None,
    prefix: str = "",
) -> dict[str, nn.Module]:
    """Layers by their names in the model, in module order for None and globs, else in the order given.

    A weight under ``parametrizations`` (weight norm, spectral norm, ...) belongs to its layer and is not one itself.
    The prefixes of torch's own wrappers (``module.``, ``_orig_mod.``) are no part of a name; globs do not match the
    network itself.

    Args:
        model: Network that contains the layers.
        layers: None for every module that owns a parameter directly, unless all of these are :func:`constants`; or one
            or several of: a module of the model, a name, a glob over names (``"layers.*.conv"``), a module class.
        prefix: Beginning of all names that a wrapper of your own adds, such as ``net``: names come without it, and may
            be given with or without it.

    Raises:
        ValueError: If a name, glob, class or module is not in the model or is a list of layers, or nothing is selected.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(resolve_layers(net)), list(resolve_layers(net, nn.ReLU))
        (['0', '2'], ['1'])
    """
    if layers is None:
        owners = parameter_owners(model, prefix)
        if not owners:
            raise ValueError(
                f"no module inside {type(model).__name__} owns a parameter that can be trained: name the `layers` to "
                "rank, or put the network into one, as `torch.nn.Sequential(network)`, if it is a single layer."
            )
        return owners
    inside = _parametrisations(model)
    every_name = _modules(model, prefix, duplicates=True)
    every = _modules(model, prefix, duplicates=False).items()
    own_names = {name: module for name, module in every if id(module) not in inside}
    whole = _whole_prefix(model, prefix)
    bare = {full: bare_name(full, whole) for full, _ in model.named_modules(remove_duplicate=False)}
    chosen: dict[str, nn.Module] = {}
    for given in entries_of(layers):
        layer = bare.get(given, given) if isinstance(given, str) else given
        _refuse_parametrisation(layer, every_name, inside)
        found = {name: every_name[name] for name in _names(layer, own_names, every_name)}
        if len(found) == 1:
            _refuse_list(*next(iter(found.items())))
        chosen |= found
    if not chosen:
        raise ValueError("`layers` is empty: pass None for every module that owns a parameter.")
    return chosen


def _refuse_list(name: str, module: nn.Module) -> None:
    """Raise for a container that only holds layers: it has no forward method, so that it never runs."""
    never_runs = getattr(type(module), "forward", None) is nn.Module.forward and "forward" not in vars(module)
    if never_runs and not own_parameters(module) and len(list(module.children())):
        raise ValueError(
            f"{name!r} is a {type(module).__name__}, which holds layers and never runs itself: name what is inside, "
            f"such as '{name}.*'."
        )


def entries_of(
    layers: LayerLike | type[nn.Module] | Iterable[LayerLike | type[nn.Module]],
) -> list[LayerLike | type[nn.Module]]:
    """What was given as ``layers``, one entry after the other.

    Args:
        layers: A module, a name, a glob or a class, or any iterable of these.

    Raises:
        ValueError: If it is, or holds, anything else.
    """
    if isinstance(layers, nn.Module | str | type):
        return [layers]
    entries = list(layers) if isinstance(layers, Iterable) else [layers]
    if wrong := [each for each in entries if not isinstance(each, nn.Module | str | type)]:
        raise ValueError(
            f"`layers` must be names, globs, modules or classes of modules, got {wrong[0]!r} of type "
            f"{type(wrong[0]).__name__}."
        )
    return entries


def left_out(model: nn.Module) -> tuple[list[str], int]:
    """Layers inside that are not ranked unless they are named because nothing of them is trained, and their parameters.

    Args:
        model: Network.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> _ = net[0].requires_grad_(False)
        >>> left_out(net)
        (['0'], 9)
    """
    ranked, inside = set(parameter_owners(model)), _parametrisations(model)
    out = {
        name: sum(map(number_of_values, own.values()))
        for name, module in _modules(model, "", duplicates=False).items()
        if name and name not in ranked and id(module) not in inside and (own := own_parameters(module))
    }
    return list(out), sum(out.values())


def _refuse_parametrisation(
    layer: LayerLike | type[nn.Module], every_name: dict[str, nn.Module], inside: set[int]
) -> None:
    """Raise for an entry that is a part of a layer's weight, with the name of the layer."""
    names = [layer] if isinstance(layer, str) else [name for name, module in every_name.items() if module is layer]
    for name in names:
        if name in every_name and id(every_name[name]) in inside:
            owner = name[: f".{name}".index(".parametrizations")].removesuffix(".")
            raise ValueError(f"{name!r} is part of the weight of the layer {owner!r}: name that layer.")


def _names(
    layer: LayerLike | type[nn.Module], own_names: dict[str, nn.Module], every_name: dict[str, nn.Module]
) -> list[str]:
    """Names that one entry stands for. A shared module has several, the first of which is its own."""
    if isinstance(layer, nn.Module):
        names = [name for name, module in own_names.items() if module is layer]
        if not names:
            raise ValueError(
                f"the module {type(layer).__name__} is not part of the model: pass one of its own modules."
            )
        return names
    if isinstance(layer, type):
        names = [name for name, module in own_names.items() if isinstance(module, layer)]
        if not names:
            raise ValueError(f"the model has no module of class {layer.__name__}.")
        return names
    if layer in every_name:
        return [layer]
    return match_names(layer, [name for name in own_names if name])


def matched_by_globs(
    model: nn.Module, entries: Iterable[LayerLike | type[nn.Module]], prefix: str = ""
) -> frozenset[str]:
    """The layers that globs and classes among some entries bring in, and that no other entry names.

    Args:
        model: Network that contains the layers.
        entries: As :func:`resolve_layers` takes them.
        prefix: Beginning of all names that a wrapper adds.
    """
    every = list(entries)
    named = [entry for entry in every if not is_glob(entry)]
    found = resolve_layers(model, every, prefix).keys() if len(named) < len(every) else set()
    return frozenset(found - (resolve_layers(model, named, prefix).keys() if named else set()))


def match_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a name or glob stands for.

    Raises:
        ValueError: If there are none; the message lists near matches.
    """
    if pattern in names:
        return [pattern]
    matches = [name for name in names if is_glob(pattern) and fnmatch.fnmatchcase(name, pattern)]
    if not matches:
        raise ValueError(unknown_layer(pattern, names))
    return matches


def unknown_layer(name: str, names: Sequence[str]) -> str:
    """Message for a name that is not among the names: near matches, and the wrapper that explains a prefix."""
    bare = _without_prefix(name)
    near = [other for other in names if _without_prefix(other) == bare]
    near += [other for other in names if other and bare and (other.endswith(f".{bare}") or bare.endswith(f".{other}"))]
    near += difflib.get_close_matches(bare, names, n=3)
    listed = list(dict.fromkeys(near))[:3]
    hint = f"; did you mean {', '.join(repr(other) for other in listed)}?" if listed else "."
    for prefix, wrapper in PREFIXES.items():
        if prefix in name[: len(name) - len(bare)]:
            return f"no layer {name!r}{hint} A {prefix!r} prefix comes from {wrapper}."
        if listed and listed[0].startswith(prefix):
            return f"no layer {name!r}{hint} A {prefix!r} prefix comes from {wrapper}: pass the network inside it."
    return f"no layer {name!r}{hint}"


def _without_prefix(name: str) -> str:
    """The name as it is without wrappers."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


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
