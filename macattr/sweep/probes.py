"""Hooks on layers that see the tensors of every call, always removed."""

__all__ = ["Site", "Visit", "probing"]

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Site(NamedTuple):
    """Where a tensor was seen: the layer, which of its calls in one forward pass, which tensor of the call."""

    layer: str
    call: int
    item: int

    def __str__(self) -> str:
        """Name of the layer, with call and tensor where they are not the first."""
        return self.layer + (f" (call {self.call + 1})" if self.call else "") + (f"[{self.item}]" if self.item else "")


Visit = Callable[[Site, Tensor], Tensor]
"""Called for every probed tensor in the order of execution; what it returns takes the tensor's place."""


@contextmanager
def probing(
    layers: Mapping[str, nn.Module],
    visit: Visit,
    at_input: bool = False,
    calls: MutableMapping[str, int] | None = None,
) -> Iterator[None]:
    """While active, every tensor that comes out of the layers (or goes in) passes through ``visit``.

    Args:
        layers: Modules by name.
        visit: Called as ``visit(site, tensor)``.
        at_input: Visit inputs instead of outputs: those by position, or where no tensor is among them, by keyword.
        calls: Calls of every layer so far, which are counted on; None begins at 0, as a forward pass does.
    """
    counts = {} if calls is None else calls

    def visit_all(name: str, value: Any) -> Any:
        call = counts.get(name, 0)
        counts[name] = call + 1
        leaves, structure = pytree.tree_flatten(value)
        tensors = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        visited = {leaf: visit(Site(name, call, number), leaves[leaf]) for number, leaf in enumerate(tensors)}
        if all(visited[index] is leaves[index] for index in tensors):
            return None
        return pytree.tree_unflatten([visited.get(index, leaf) for index, leaf in enumerate(leaves)], structure)

    def visit_inputs(name: str, args: Any, kwargs: Any) -> Any:
        if not kwargs or any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(args)):
            visited = visit_all(name, args)
            return None if visited is None else (visited, kwargs)
        visited = visit_all(name, kwargs)
        return None if visited is None else (args, visited)

    handles = []
    try:
        for name, module in layers.items():
            if at_input:
                hook = partial(lambda name, _, args, kwargs: visit_inputs(name, args, kwargs), name)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(lambda _, __, output, name=name: visit_all(name, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()
