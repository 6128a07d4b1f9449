"""Which blocks of a network a backward pass can compute again, and what one node takes then."""

__all__ = ["find_blocks"]

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from macattr.sweep.guard import modules_of
from macattr.sweep.nodes import Forward
from macattr.sweep.probes import Site
from macattr.sweep.recompute import Blocks, Recomputation
from macattr.sweep.survey import BackwardInsideError, Survey, unpack_or_refuse
from macattr.weights.values import is_sharded, storages_of, storages_of_weights

MOST_REHEARSALS = 4
"""Choices of blocks that are tried out; each tries the parts of those that could not run again."""

MOST_SIZES = 48
"""Sizes of blocks that are compared."""

Storages = dict[int, int]
"""Bytes of storages, by storage."""


def find_blocks(forward: Forward, inputs: tuple[Tensor, ...], survey: Survey) -> Blocks:
    """The blocks with which one node takes the least memory, each tried out.

    One forward pass shows what autograd keeps of every module. Blocks are the largest modules that keep no more than
    some size; of all sizes the one is taken with which kept inputs and the largest block together are smallest. A pass
    with these blocks shows which of them compute the same again, and the parts of the others are tried next.

    Args:
        forward: Model and probed layers, inside a guard.
        inputs: Inputs of the model at one node.
        survey: The survey of these inputs.
    """
    modules = modules_of(forward.model, forward.layers.values())
    if any(is_sharded(weight) for module in modules.values() for weight in module.parameters(recurse=False)):
        return Blocks({}, 0, "its weights are sharded over processes")
    try:
        root = _observe(forward, inputs, modules)
    except BackwardInsideError:
        return Blocks({}, 0, "it computes gradients in its forward pass")
    whole = _node_bytes(root, [])
    refused = {name: "" for name, module in modules.items() if isinstance(module, torch.jit.ScriptModule)}
    for _ in range(MOST_REHEARSALS):
        names, node_bytes = _smallest(root, refused)
        if not names or node_bytes >= whole:
            break
        blocks = {name: modules[name] for name in sorted(names)}
        changed = _rehearse(forward, inputs, survey, blocks)
        if not changed:
            return Blocks(blocks, node_bytes)
        refused |= changed
    said = [f"{name!r}: {reason}" for name, reason in refused.items() if reason]
    return Blocks({}, 0, f"block {said[0]}" if said else "none of its modules keeps less than the whole")


@dataclass(eq=False)
class _Call:
    """One call of a module, with what was kept in it but not in the modules that it called.

    Args:
        name: Name of the module; '' for what calls the outermost ones.
        arguments: Storages of the tensors that it was given.
        saved: Storages that autograd saves.
        outputs: Storages of the probed tensors.
        inner: Calls that it made.
    """

    name: str
    arguments: Storages = field(default_factory=dict)
    saved: Storages = field(default_factory=dict)
    outputs: Storages = field(default_factory=dict)
    inner: list["_Call"] = field(default_factory=list)

    def gather(self) -> None:
        """Add up what all calls inside keep, from the innermost ones on."""
        self.all_saved, self.all_outputs = dict(self.saved), dict(self.outputs)
        for call in self.inner:
            call.gather()
            self.all_saved |= call.all_saved
            self.all_outputs |= call.all_outputs
        self.size = sum((self.all_saved | self.all_outputs).values())
        self.working = 2 * sum(self.all_saved.values()) + sum(self.all_outputs.values())

    def walk(self) -> Iterator["_Call"]:
        """This call and all inside of it."""
        yield self
        for call in self.inner:
            yield from call.walk()


def _observe(forward: Forward, inputs: tuple[Tensor, ...], modules: Mapping[str, nn.Module]) -> _Call:
    """The calls of a forward pass on one node, of which nothing is kept."""
    root = _Call("")
    stack = [root]
    seen: dict[int, StorageWeakRef] = {}  # a reference says which storage it is, also after the storage is gone
    weights = storages_of_weights(modules.values())

    def note(tensor: Tensor, storages: Storages) -> None:
        for storage in storages_of(tensor):
            if storage._cdata not in weights:
                seen.setdefault(storage._cdata, StorageWeakRef(storage))
                storages[storage._cdata] = storage.nbytes()

    def pack(tensor: Tensor) -> None:
        note(tensor, stack[-1].saved)

    def enter(name: str, args: Any, keywords: Any) -> None:
        call = _Call(name)
        for leaf in pytree.tree_leaves((args, keywords)):
            if isinstance(leaf, Tensor):
                note(leaf, call.arguments)
        stack[-1].inner.append(call)
        stack.append(call)

    def visit(_: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            note(tensor, stack[-1].outputs)
        return tensor

    with ExitStack() as handles, saved_tensors_hooks(pack, unpack_or_refuse):
        for name, module in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                handles.enter_context(_calling(module, name, enter, stack))
        forward(inputs, 1, visit)
    root.gather()
    return root


@contextmanager
def _calling(module: nn.Module, name: str, enter: Any, stack: list[_Call]) -> Iterator[None]:
    """Hooks at the beginning and at the end of every call of a module."""
    before = module.register_forward_pre_hook(lambda _, args, keywords: enter(name, args, keywords), with_kwargs=True)
    after = module.register_forward_hook(lambda *_: stack.pop() and None)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _smallest(root: _Call, refused: Mapping[str, str]) -> tuple[set[str], int]:
    """Names of the blocks with which one node takes the least memory, and that memory."""
    largest: dict[str, int] = {}
    for call in root.walk():
        largest[call.name] = max(largest.get(call.name, 0), call.size)
    sizes = sorted({size for name, size in largest.items() if name and size})
    few = sizes if len(sizes) <= MOST_SIZES else [sizes[i * len(sizes) // MOST_SIZES] for i in range(MOST_SIZES)]
    best: tuple[set[str], int] = set(), 0
    for limit in reversed(few):
        allowed = {name for name, size in largest.items() if name and size <= limit and name not in refused}
        chosen = list(_outermost(root, allowed))
        node_bytes = _node_bytes(root, chosen)
        if chosen and (not best[0] or node_bytes < best[1]):
            best = {call.name for call in chosen}, node_bytes
    return best


def _outermost(call: _Call, allowed: set[str]) -> Iterator[_Call]:
    """Calls of the allowed modules that are not inside of another such call, if autograd saves anything there."""
    if call.name in allowed:
        if call.all_saved:
            yield call
        return
    for inner in call.inner:
        yield from _outermost(inner, allowed)


def _node_bytes(root: _Call, chosen: Sequence[_Call]) -> int:
    """Memory of one node's passes if some calls run again: what is kept, and the largest of them at work."""
    known = set(map(id, chosen))
    kept: Storages = {}

    def keep(call: _Call) -> None:
        if id(call) in known:
            kept.update(call.arguments)
            return
        kept.update(call.saved)
        kept.update(call.outputs)
        for inner in call.inner:
            keep(inner)

    keep(root)
    if not chosen:
        return root.working
    return sum(kept.values()) + max(call.working for call in chosen)


def _rehearse(
    forward: Forward, inputs: tuple[Tensor, ...], survey: Survey, blocks: Mapping[str, nn.Module]
) -> dict[str, str]:
    """Blocks that do not compute the same again, with the reason, from one forward and backward pass."""
    inside: set[Site] = set()
    again: set[Site] = set()

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if recomputation.inside:
            inside.add(site)
        return tensor

    def revisit(site: Site, tensor: Tensor) -> Tensor:
        again.add(site)
        return tensor

    recomputation = Recomputation(blocks, revisit, lambda now, before: survey.difference(now, before) is not None)
    output = forward(inputs, 1, visit, recomputation=recomputation)
    if not isinstance(output, Tensor) or not output.requires_grad:
        return {}  # the sweep refuses it with its own message
    scalar = torch.view_as_real(output).sum() if output.is_complex() else output.sum()
    try:
        torch.autograd.grad(scalar, inputs, allow_unused=True)
        recomputation.finish()
    except NotImplementedError:
        return {}  # an operation without a derivative, which the sweep refuses
    except Exception as error:
        return recomputation.changed or dict.fromkeys(blocks, f"it cannot run again: {error}")
    if inside != again:
        return dict.fromkeys(blocks, "other layers run when it runs again")
    return recomputation.changed
