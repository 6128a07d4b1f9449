"""Layers by module, name, glob or class, and an answer for a name that is not there."""

__all__ = [
    "LayerLike",
    "entries_of",
    "is_glob",
    "left_out",
    "match_names",
    "matched_by_globs",
    "resolve_layers",
    "unknown_layer",
]

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from macattr.layers.parameters import constants, own_parameters, parametrisations
from macattr.layers.wrappers import bare_name, modules_by_name, whole_prefix
from macattr.weights.values import number_of_values

LayerLike = nn.Module | str
"""A layer: the module itself, or its name in the network."""

PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
"""Prefixes that a wrapper puts before the names of all layers."""


def parameter_owners(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Modules that own a parameter directly, in module order: the layers that can be fine-tuned."""
    inside, fixed = parametrisations(model), constants(model)
    return {
        name: module
        for name, module in modules_by_name(model, prefix, duplicates=False).items()
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
    inside = parametrisations(model)
    every_name = modules_by_name(model, prefix, duplicates=True)
    every = modules_by_name(model, prefix, duplicates=False).items()
    own_names = {name: module for name, module in every if id(module) not in inside}
    whole = whole_prefix(model, prefix)
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
    ranked, inside = set(parameter_owners(model)), parametrisations(model)
    out = {
        name: sum(map(number_of_values, own.values()))
        for name, module in modules_by_name(model, "", duplicates=False).items()
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
