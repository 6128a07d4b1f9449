"""Blocks of a network that run again in the backward pass, so that autograd keeps their inputs alone until then."""

__all__ = ["Blocks", "Recomputation"]

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import proxy

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from macattr.sweep.checkpoints import RunsAgain, plain_checkpoints
from macattr.sweep.probes import Visit, probing


@dataclass(frozen=True)
class Blocks:
    """Blocks that can run again in the backward pass.

    Args:
        modules: Modules by name; empty if there are none.
        node_bytes: Memory of one node's passes with them: what is kept of the forward pass, and the largest block.
        reason: Why there are none; '' if there are.
    """

    modules: Mapping[str, nn.Module]
    node_bytes: int
    reason: str = ""


class Recomputation:
    """The blocks of one forward pass that run again when its backward pass reaches them.

    torch's checkpoint without reentry holds the graph of the first run, so that a block may read tensors that are no
    arguments. Probed layers inside of a block are visited in both runs: at first where gradients will arrive, then with
    the values.

    Args:
        blocks: Modules by name.
        visit: Called for every probed tensor when a block runs again.
        differ: Whether an output of the second run is another than that of the first; None does not compare them.
    """

    def __init__(
        self, blocks: Mapping[str, nn.Module], visit: Visit, differ: Callable[[Tensor, Tensor], bool] | None = None
    ) -> None:
        self.blocks, self.visit, self.differ = blocks, visit, differ
        self.inside = False
        """Whether a block is in its first run."""
        self.changed: dict[str, str] = {}
        """Blocks whose second run was another, with what was."""
        self._waiting: dict[int, _Run] = {}

    @contextmanager
    def active(
        self, layers: Mapping[str, nn.Module], at_input: bool, calls: MutableMapping[str, int]
    ) -> Iterator[None]:
        """While active, the blocks of a forward pass are remembered.

        Args:
            layers: Probed layers by name.
            at_input: Whether their inputs are probed.
            calls: Calls of every layer so far, as :func:`macattr.sweep.probes.probing` counts them.
        """
        before = {name: vars(block).get("forward") for name, block in self.blocks.items()}
        try:
            for name, block in self.blocks.items():
                vars(block)["forward"] = partial(self._run, name, block.forward, _Probing(layers, at_input, calls))
            yield
        finally:
            for name, block in self.blocks.items():
                vars(block).pop("forward")
                if before[name] is not None:
                    vars(block)["forward"] = before[name]

    def finish(self) -> None:
        """Run the blocks again that the backward pass did not need, for the values of their layers."""
        for run in list(self._waiting.values()):
            run(*run.args)

    def _run(self, name: str, forward: Callable[..., Any], probes: "_Probing", *args: Any, **keywords: Any) -> Any:
        """The first run of a block; a block inside of another belongs to that one."""
        if self.inside:
            return forward(*args, **keywords)
        run = _Run(
            owner=proxy(self),  # the graph holds the run: it would hold the runs that wait, and these the graph
            name=name,
            forward=forward,
            keywords=keywords,
            probes=probes,
            args=args,
            versions=_versions((args, keywords)),
        )
        self._waiting[id(run)] = run
        self.inside = True
        try:
            with set_checkpoint_early_stop(False):  # layers after the last tensor that autograd needs are visited too
                return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
        finally:
            self.inside = False

    def note_again(self, run: "_Run", versions: list[int], output: Any) -> None:
        """Compare the second run of a block with the first.

        Args:
            run: The block's call.
            versions: How often each of its inputs was written to by now.
            output: Of the second run.
        """
        self._waiting.pop(id(run), None)
        if versions != run.versions:
            self.changed.setdefault(run.name, "its input is overwritten in place")
        elif self.differ is not None:
            now, before = _floats(output), run.outputs
            if len(now) != len(before) or any(map(self.differ, now, before)):
                self.changed.setdefault(run.name, "its output is another when it runs again")

    def note_error(self, run: "_Run", error: Exception) -> None:
        """Note that a block cannot run again."""
        self.changed.setdefault(run.name, f"it cannot run again: {error}")


@dataclass(frozen=True)
class _Probing:
    """How the layers of a forward pass are probed."""

    layers: Mapping[str, nn.Module]
    at_input: bool
    calls: MutableMapping[str, int]


@dataclass(eq=False)
class _Run(RunsAgain):
    """One call of a block."""

    owner: Recomputation
    name: str
    forward: Callable[..., Any]
    keywords: dict[str, Any]
    probes: _Probing
    args: tuple[Any, ...]
    versions: list[int]
    calls: dict[str, int] | None = None
    inner: dict[str, nn.Module] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)

    def __call__(self, *args: Any) -> Any:
        """The output of the block."""
        return self._first(*args) if self.calls is None else self._again(*args)

    def _first(self, *args: Any) -> Any:
        """The run of the forward pass, which shows the layers inside."""
        counts = self.probes.calls
        self.calls = dict(counts)
        output = self.forward(*args, **self.keywords)
        self.inner = {name: self.probes.layers[name] for name in counts if counts[name] != self.calls.get(name, 0)}
        if self.owner.differ is not None:
            self.outputs = _floats(output)
        return output

    def _again(self, *args: Any) -> Any:
        """The run of the backward pass: its layers have the call numbers of the first."""
        self.args = ()
        versions = _versions((args, self.keywords))
        try:
            visited = probing(self.inner, self.owner.visit, self.probes.at_input, dict(self.calls or {}))
            with visited, plain_checkpoints():  # on a GPU the backward pass has a thread of its own
                output = self.forward(*args, **self.keywords)
        except Exception as error:
            self.owner.note_error(self, error)
            raise
        self.owner.note_again(self, versions, output)
        return output


def _tensors(value: Any) -> list[Tensor]:
    """All tensors of a nested value."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _floats(value: Any) -> list[Tensor]:
    """All floating-point tensors of a nested value, without gradients."""
    return [tensor.detach() for tensor in _tensors(value) if tensor.is_floating_point()]


def _versions(value: Any) -> list[int]:
    """How often each tensor of a nested value was written to."""
    return [0 if leaf.is_inference() else leaf._version for leaf in _tensors(value)]
