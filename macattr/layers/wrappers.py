"""Names without what wrappers put into them: torch's own (DataParallel, torch.compile, FSDP) and a user's."""

__all__ = ["bare_name", "full_name", "inner_network", "modules_by_name", "own_attribute", "whole_prefix"]

from typing import Any

from torch import nn

TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules of torch that hold another one as if it stood in their place: torch.compile, FSDP, checkpointing."""


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


def whole_prefix(model: nn.Module, prefix: str) -> str:
    """The beginning that names lose: that of torch's wrappers, and a user's own with its dot.

    Args:
        model: Network, or one inside of torch's wrappers.
        prefix: What a wrapper of the user's own puts before every name, with or without its dot.

    Example:
        >>> whole_prefix(nn.DataParallel(nn.ReLU()), "net")
        'module.net.'
    """
    return inner_network(model)[1] + (f"{prefix.removesuffix('.')}." if prefix else "")


def modules_by_name(model: nn.Module, prefix: str, *, duplicates: bool) -> dict[str, nn.Module]:
    """All modules of a network by their bare names.

    Args:
        model: Network, or one inside of torch's wrappers.
        prefix: What a wrapper of the user's own puts before every name; names come without it.
        duplicates: Whether a module that the network holds twice has both names.

    Raises:
        ValueError: If no module is inside the prefix, or two have the same name without it.
    """
    outer, whole = inner_network(model)[1], whole_prefix(model, prefix)
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
