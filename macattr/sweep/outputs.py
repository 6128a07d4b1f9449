"""Which tensor of a network's output is read: the one that was named, or the one that is meant plainly."""

__all__ = ["KNOWN_OUTPUTS", "OutputChoice", "own_loss", "read_output"]

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

OutputChoice = str | int | Callable[[Any], Any] | None
"""A key or attribute, an index, a function of the whole output; None for the plain choice."""

KNOWN_OUTPUTS = ("logits", "reconstruction", "sample", "out", "last_hidden_state")
"""Names of the tensor that a network is there for, in the order in which they are looked for."""


def read_output(output: Any, choice: OutputChoice = None) -> tuple[Tensor, str]:
    """One tensor of a network's output, and how it was found ('' where the output is a tensor itself).

    Without a choice it is the output itself if that is a tensor, else the only floating-point tensor in it, else the
    entry with one of the names :data:`KNOWN_OUTPUTS`, else the last of a list of refinements: the entries of a list,
    or of a tuple whose tensors all have the same shape.

    Args:
        output: Whatever the network returned.
        choice: Which tensor, if it is not the plain one.

    Raises:
        ValueError: If the choice is not there or no tensor, or there is no plain choice; the message lists what is.

    Example:
        >>> import torch
        >>> read_output({"logits": torch.zeros(2, 3), "hidden": torch.zeros(2, 8)})[1]
        "'logits'"
        >>> read_output((torch.zeros(1, 2), torch.ones(1, 2)))
        (tensor([[1., 1.]]), 'the last of 2 refinements')
    """
    if choice is None:
        return _plain(output)
    found = _chosen(output, choice)
    if isinstance(found, Tensor):
        name = choice if callable(choice) else None
        return found, f"{getattr(name, '__name__', 'a function')} of the output" if name else f"{choice!r}"
    if found is None:
        raise ValueError(f"the output {choice!r} is None for these inputs: {_contents(output)}.")
    inner, how = _plain(found)
    return inner, f"{choice!r}, {how}"


def own_loss(output: Any) -> Tensor | None:
    """The loss that a network computed itself, one number; None if it returned none.

    Args:
        output: Whatever the network returned.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None


def _plain(output: Any) -> tuple[Tensor, str]:
    """The tensor that is meant without a choice."""
    if isinstance(output, Tensor):
        return output, ""
    named = _named(output)
    tensors = _distinct(named)
    if len(tensors) == 1:
        name, tensor = tensors[0]
        return tensor, f"the only tensor, {name}"
    for name in KNOWN_OUTPUTS:
        known = _entry(output, name)
        if isinstance(known, Tensor):
            return known, repr(name)
    is_list = isinstance(output, list) and all(isinstance(entry, Tensor) for entry in output)
    if tensors and isinstance(output, list | tuple) and (is_list or len({t.shape for _, t in tensors}) == 1):
        return tensors[-1][1], f"the last of {len(tensors)} refinements"
    raise ValueError(f"the model must return one tensor, got {type(output).__name__}: {_contents(output)}.")


def _chosen(output: Any, choice: str | int | Callable[[Any], Any]) -> Any:
    """The entry that a choice stands for."""
    if callable(choice):
        return choice(output)
    try:
        return _entry(output, choice, strict=True) if isinstance(choice, str) else output[choice]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"the model's output has no {choice!r}: {_contents(output)}.") from None


def _entry(output: Any, name: str, strict: bool = False) -> Any:
    """An entry by key, or attribute where the output has no keys."""
    if isinstance(output, Mapping):
        return output[name] if strict else output.get(name)
    if isinstance(output, Tensor | list) or (isinstance(output, tuple) and not hasattr(output, "_fields")):
        if strict:
            raise AttributeError(name)
        return None
    return getattr(output, name) if strict else getattr(output, name, None)


def _named(output: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every floating-point tensor of more than one number, with the words that find it, in order."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.dim():
            yield prefix, output
        return
    entries: list[tuple[str, Any]] = []
    if isinstance(output, Mapping):
        entries = [(repr(key), value) for key, value in output.items()]
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        entries = [(repr(name), getattr(output, name)) for name in output._fields]
    elif isinstance(output, list | tuple):
        entries = [(str(number), value) for number, value in enumerate(output)]
    elif is_dataclass(output):
        entries = [(repr(field.name), getattr(output, field.name)) for field in fields(output)]
    elif hasattr(output, "__dict__"):
        entries = [(repr(name), value) for name, value in vars(output).items() if not name.startswith("_")]
    for name, value in entries:
        yield from _named(value, f"{prefix}[{name}]" if prefix else name)


def _distinct(named: Iterator[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Every tensor once, where it comes last."""
    last: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named:
        last.pop(id(tensor), None)
        last[id(tensor)] = name, tensor
    return list(last.values())


def _contents(output: Any) -> str:
    """What an output holds, and the remedy."""
    held = [f"{name} {tuple(tensor.shape)}" for name, tensor in _named(output)]
    listed = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    return f"it holds {listed or 'no floating-point tensor'}; pass `output=` a key, an index or a function of it"
