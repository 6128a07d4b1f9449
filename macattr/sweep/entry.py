"""A network as a function of what a path walks: inputs by position or keyword, or a layer's output."""

__all__ = ["LOSS", "Entry", "forward_parameters", "output_at", "walked_keyword"]

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from macattr.layers.wrappers import inner_network, own_attribute
from macattr.sweep.guard import undisturbed
from macattr.sweep.nodes import repeat_rows
from macattr.sweep.outputs import OutputChoice, own_loss, read_output

LOSS = "loss"
"""The output that is the network's own loss: one number, so that rows cannot share a forward pass."""


@dataclass(eq=False)
class Entry:
    """A network as a function of the tensors that a path walks, to one tensor (B, ...).

    Nothing is wrapped: hooks and names are those of the network itself.

    Args:
        model: Network, or a function that calls it.
        keys: Keywords of the walked tensors; () passes them by position, before all others.
        keywords: Further keyword arguments of the model. Tensors whose first dimension is the batch are repeated for
            every node.
        at: Layer whose output the walked tensor takes the place of; None: the walked tensors are inputs.
        walks: Whether anything is walked. If not, the first tensor only carries the number of rows.
        output: Which tensor of the output is read; see :func:`macattr.sweep.outputs.read_output`.
        batch: Samples at one node.
        taken: How the tensor was found in the last call; '' where the output is a tensor itself.
        has_loss: Whether the model computed a loss of its own in the last call.
    """

    model: Callable[..., Any]
    keys: tuple[str, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    at: nn.Module | None = None
    walks: bool = True
    output: OutputChoice = None
    batch: int = 1
    taken: str = ""
    has_loss: bool = False

    def __call__(self, *values: Any) -> Tensor:
        """The chosen tensor of the model's output.

        Args:
            *values: The walked tensors, then further positional arguments of the model.

        Raises:
            ValueError: If the layer is not called exactly once, or the output holds no such tensor.
        """
        rows = values[0].shape[0]
        output = self._call(*values)
        self.has_loss = own_loss(output) is not None
        tensor, self.taken = self._read(output, rows)
        return tensor

    @property
    def signature(self) -> Hashable:
        """What layers and memory depend on besides the walked tensors: keywords by shape and type, and the layer."""
        leaves, structure = pytree.tree_flatten(dict(self.keywords))
        kinds = (
            (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else (type(leaf), repr(leaf)) for leaf in leaves
        )
        return self.keys, self.walks, id(self.at), str(structure), tuple(kinds)

    def _call(self, *values: Any) -> Any:
        """Whatever the model returns."""
        count = max(1, values[0].shape[0] // self.batch)
        keywords = repeat_rows(dict(self.keywords), self.batch, count)
        if self.at is not None:
            with _in_place_of(self.at, values[0]):
                return self.model(*values[1:], **keywords)
        if not self.walks:
            return self.model(*values[1:], **keywords)
        named = dict(zip(self.keys, values, strict=False))
        return self.model(*values[len(named) :], **keywords | named)

    def _read(self, output: Any, rows: int) -> tuple[Tensor, str]:
        """The chosen tensor; a loss of one number as (1, 1)."""
        loss = own_loss(output) if self.output == LOSS else None
        tensor, taken = read_output(output, self.output) if loss is None else (loss, "the model's own loss")
        if tensor.dim():
            return tensor, taken
        if rows > 1:
            raise ValueError(
                f"the output {taken} is one number for {rows} rows: pass one sample at a time and "
                "`internal_batch_size=1`."
            )
        return tensor.reshape(1, 1), taken


@contextmanager
def _in_place_of(module: nn.Module, value: Tensor) -> Iterator[None]:
    """A layer returns ``value`` in place of the first tensor of its output, before any other hook sees it."""
    calls = 0

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        leaves, structure = pytree.tree_flatten(output)
        index = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
        if index is None or leaves[index].shape != value.shape:
            shape = "no tensor" if index is None else tuple(leaves[index].shape)
            raise ValueError(
                f"the layer at which the path runs returns {shape}, the path {tuple(value.shape)}: its output must "
                "keep the batch first."
            )
        leaves[index] = value
        return pytree.tree_unflatten(leaves, structure)

    handle = module.register_forward_hook(replace, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    _refuse_calls(module, calls)


def output_at(model: Callable[..., Any], module: nn.Module, *args: Any, **keywords: Any) -> Tensor:
    """The first tensor that a layer returns in a forward pass, (B, ...), before any other hook sees it.

    Args:
        model: Network, or a function that calls it.
        module: The layer.
        *args: Positional arguments of the model.
        **keywords: Keyword arguments of the model.

    Raises:
        ValueError: If the layer is not called exactly once, or returns no floating-point tensor.
    """
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output), prepend=True)  # as it is replaced
    try:
        with undisturbed(model, [module]), torch.no_grad():
            args, keywords = repeat_rows((args, keywords), 1, 1)
            model(*args, **keywords)
    finally:
        handle.remove()
    _refuse_calls(module, len(seen))
    tensor = next((leaf for leaf in pytree.tree_leaves(seen[0]) if isinstance(leaf, Tensor)), None)
    if tensor is None or not tensor.is_floating_point():
        raise ValueError(f"the layer {type(module).__name__} of `at` returns no floating-point tensor: name another.")
    return tensor.detach().clone()


def _refuse_calls(module: nn.Module, calls: int) -> None:
    """Raise unless a layer ran once."""
    if calls != 1:
        raise ValueError(
            f"the layer {type(module).__name__} of `at` runs {calls} times in a forward pass: a path needs a layer "
            "that runs once."
        )


SIDE_INPUTS = ("labels", "attention_mask", "bool_masked_pos")
"""Keywords that are never what a path walks, whatever their dtype."""


def walked_keyword(model: Callable[..., Any], keywords: Mapping[str, Any]) -> str | None:
    """The keyword whose tensor a path walks; None if there is no floating-point tensor among them.

    It is the model's ``main_input_name`` or the first argument of its forward method if that is a floating-point
    tensor, else the only one there is.

    Args:
        model: Network; Hugging Face's name their main input.
        keywords: Arguments by keyword.

    Raises:
        ValueError: If there are several, none of which is the main one.
    """
    floats = [
        name
        for name, value in keywords.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and name not in SIDE_INPUTS
    ]
    for name in (own_attribute(model, "main_input_name"), *forward_parameters(model)[0][:1]):
        if name in floats:
            return str(name)
    if len(floats) > 1:
        raise ValueError(
            f"a path walks one input, but {', '.join(map(repr, floats))} are floating-point tensors: call the one that "
            "it walks `image`, and give the others as `forward_args`."
        )
    return floats[0] if floats else None


def forward_parameters(model: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names of the arguments of a network's forward method, and whether it takes any other keyword too.

    Args:
        model: Network, or a function that calls one.
    """
    function = inner_network(model)[0].forward if isinstance(model, nn.Module) else model
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [], True
    named = [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return named, any(p.kind is p.VAR_KEYWORD for p in found)
