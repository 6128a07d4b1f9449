"""One forward pass before a sweep: the tensors of the probed layers, which of them are the same, and their memory."""

__all__ = [
    "BackwardInsideError",
    "ProbedTensor",
    "Survey",
    "Surveys",
    "never_ran",
    "other_layouts",
    "refuse_split",
    "survey",
    "survey_inputs",
    "unpack_or_refuse",
]

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from macattr.paths.inputs import Path
from macattr.paths.partitions import Partition
from macattr.sweep.guard import refuse_random_draws, undisturbed
from macattr.sweep.nodes import Forward, leaves_at
from macattr.sweep.probes import Site
from macattr.sweep.recompute import Blocks
from macattr.weights.columns import Columns, columns_of
from macattr.weights.processes import split_groups
from macattr.weights.values import has_packed, is_sharded, storages_of, storages_of_weights

HALF_PRECISION, TF32, SINGLE_PRECISION = 0.1, 1e-2, 1e-4
"""Relative differences that rounding may make between two forward passes; CUDA may round to TF32."""


@dataclass(frozen=True)
class ProbedTensor:
    """A tensor that a layer returns (or takes), as one forward pass shows it.

    Args:
        site: Layer, call and tensor.
        shape: Its shape at one node.
        nbytes: Its memory at one node.
        dtype: Its type.
        alias_of: The first site that is the very same tensor, or the site itself.
        overwritten: Whether a later in-place operation destroys its values.
        fingerprint: Some of its values; None where they are not known.
        is_constant: Whether no gradient leads from it to the inputs: position embeddings, tables of biases.
    """

    site: Site
    shape: tuple[int, ...]
    nbytes: int
    dtype: torch.dtype
    alias_of: Site
    overwritten: bool
    fingerprint: tuple[float, ...] | None
    is_constant: bool = False

    @property
    def low_precision(self) -> bool:
        """Whether it has fewer than 32 bits."""
        return self.dtype.itemsize < 4

    def difference(self, tensor: Tensor) -> tuple[float, float] | None:
        """Largest difference of the fingerprint at the first node of another pass, and the largest value.

        None where the difference is rounding, or where values are not finite or not known.

        Args:
            tensor: The tensor in that pass.
        """
        if self.fingerprint is None:
            return None
        now = _fingerprint(tensor[: self.shape[0]])
        if not all(map(math.isfinite, now)):
            return None
        tolerance = HALF_PRECISION if self.low_precision else TF32 if tensor.is_cuda else SINGLE_PRECISION
        difference = max((abs(a - b) for a, b in zip(now, self.fingerprint, strict=True)), default=0.0)
        largest = max(map(abs, self.fingerprint), default=0.0)
        return (difference, largest) if difference > tolerance * largest + 1e-12 else None


@dataclass(frozen=True)
class Survey:
    """Cost and layers of a model, from one forward pass at the start of the path.

    Args:
        tensors: Every probed tensor in the order of execution.
        saved_bytes: Memory that autograd keeps for the backward pass of one node.
        inputs: Inputs of the model.
        output: Output of the model; None unless it is one tensor, and where other inputs have the same shapes.
        low_precision: Whether anything is computed in fewer than 32 bits.
        fixed: Arguments of the model that stay as they are along a path.
        split: Layers of whose output every process holds another part that :meth:`whole` cannot join, in a tensor
            parallel network.
        columns: Tensors of which every process holds other features, with how these are divided.
    """

    tensors: tuple[ProbedTensor, ...]
    saved_bytes: int
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    low_precision: bool
    fixed: tuple[Tensor, ...] = ()
    split: tuple[str, ...] = ()
    columns: Mapping[Site, Columns] = field(default_factory=dict)

    def whole(self, site: Site, tensor: Tensor) -> Tensor:
        """A sum over a layer's output, joined where every process has that of its own features.

        Args:
            site: The layer's tensor.
            tensor: The sum of this process.
        """
        return self.columns[site].whole(tensor) if site in self.columns else tensor

    @property
    def batch(self) -> int:
        """Samples at one node."""
        return self.inputs[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.inputs[0].device

    def at(self, inputs: tuple[Tensor, ...], fixed: tuple[Tensor, ...] = ()) -> "Survey":
        """What the survey says of other inputs of the same shapes: everything but values.

        Args:
            inputs: Inputs of the model at one node.
            fixed: Its other arguments.
        """
        pairs = zip((*self.inputs, *self.fixed), (*inputs, *fixed), strict=True)
        if all(own.shape == other.shape and torch.equal(own, other) for own, other in pairs):
            return self
        return self._with(inputs, fixed)

    def without_values(self) -> "Survey":
        """The survey with inputs of the same shapes that take no memory."""
        inputs, fixed = (tuple(t.new_zeros(()).expand(t.shape) for t in some) for some in (self.inputs, self.fixed))
        return self._with(inputs, fixed)

    def _with(self, inputs: tuple[Tensor, ...], fixed: tuple[Tensor, ...]) -> "Survey":
        """What holds for all inputs of these shapes."""
        tensors = tuple(replace(tensor, fingerprint=None) for tensor in self.tensors)
        return replace(self, tensors=tensors, inputs=inputs, fixed=fixed, output=None)

    @cached_property
    def aliases(self) -> dict[Site, Site]:
        """Every site with the first site that is the same tensor."""
        return {tensor.site: tensor.alias_of for tensor in self.tensors}

    @cached_property
    def distinct(self) -> list[ProbedTensor]:
        """Probed tensors without repetitions."""
        return [tensor for tensor in self.tensors if tensor.alias_of == tensor.site]

    @cached_property
    def sites(self) -> dict[str, list[Site]]:
        """For every layer, the distinct sites that it returns, one for each call and tensor."""
        sites: dict[str, list[Site]] = {}
        for site, alias in self.aliases.items():
            sites.setdefault(site.layer, []).append(alias)
        return sites

    def alias_groups(self) -> dict[str, str]:
        """For every layer, the first layer to return the same tensors."""
        canonical: dict[tuple[Site, ...], str] = {}
        return {name: canonical.setdefault(tuple(sites), name) for name, sites in self.sites.items()}

    @property
    def working_bytes(self) -> int:
        """Memory of one node's passes with no layer kept: tensors that autograd saves, and as much for temporaries."""
        return 2 * self.saved_bytes

    @property
    def output_bytes(self) -> int:
        """Memory of all distinct layer outputs at one node."""
        return sum(tensor.nbytes for tensor in self.distinct)

    def difference(self, now: Tensor, before: Tensor) -> tuple[float, float] | None:
        """Largest difference between outputs of the same node in two passes, and the largest value.

        None where the difference is rounding, or where values are not finite.

        Args:
            now: Output in one pass.
            before: Output in the other.
        """
        if now.shape != before.shape:
            return math.inf, math.inf
        difference, largest = float((now - before).abs().max()), float(before.abs().max())
        tolerance = HALF_PRECISION if self.low_precision else TF32 if now.is_cuda else SINGLE_PRECISION
        return (difference, largest) if difference > tolerance * largest + 1e-12 else None


def survey(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    *,
    forward_args: tuple[Any, ...] = (),
    at_input: bool = False,
    surveys: "Surveys | None" = None,
) -> Survey:
    """Sites, aliases and memory, from one forward pass at the first node.

    Args:
        model: Network or function.
        layers: Modules to probe, by name.
        path: Source of the inputs.
        partition: Its first node is evaluated.
        forward_args: Further positional arguments of the model.
        at_input: Probe the inputs of the layers instead of their outputs.
        surveys: Where to keep the survey.

    Raises:
        ValueError: If the model is stochastic, no layer runs as a module, or one returns a single number.
    """
    with undisturbed(model, layers.values()) as rewind:
        forward = Forward(model, layers, path, rewind, forward_args, at_input)
        inputs = leaves_at(path, partition.nodes[:1])
        found = survey_inputs(forward, inputs)
    if surveys is not None:
        surveys.keep(forward, found)
    return found


def other_layouts(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    *,
    forward_args: tuple[Any, ...] = (),
    at_input: bool = False,
) -> frozenset[str]:
    """Layers that do not keep the batch first: with two nodes in a forward pass, another dimension grows.

    Arguments are those of :func:`survey`. Of a network that does not run on two nodes at once nothing is known.
    """
    shapes: list[dict[Site, tuple[int, ...]]] = [{}, {}]
    with undisturbed(model, layers.values()) as rewind, torch.no_grad():
        forward = Forward(model, layers, path, rewind, forward_args, at_input)
        for count, seen in enumerate(shapes, start=1):

            def visit(site: Site, tensor: Tensor, seen: dict[Site, tuple[int, ...]] = seen) -> Tensor:
                seen[site] = tuple(tensor.shape)
                return tensor

            try:
                forward(leaves_at(path, partition.nodes[[0, -1]][:count]), count, visit)
            except Exception:
                if count == 1:
                    raise
                return frozenset()
    alone, together = shapes
    return frozenset(site.layer for site, shape in alone.items() if together.get(site) != (2 * shape[0], *shape[1:]))


def survey_inputs(forward: Forward, inputs: tuple[Tensor, ...]) -> Survey:
    """The survey of a forward pass on the inputs of one node, inside a guard.

    Args:
        forward: Model and layers.
        inputs: Inputs of the model at one node.

    Raises:
        ValueError: If no layer runs, the model draws random numbers, or its output is split over processes.
    """
    try:
        output, recorder, saved = _look(forward, inputs, keep=False)
    except BackwardInsideError:
        output, recorder, saved = _look(forward, inputs, keep=True)
    if not recorder.records and not recorder.distributed:
        raise ValueError(never_ran(list(forward.layers)))
    tensors = recorder.tensors()
    final = output.detach().clone() if isinstance(output, Tensor) else None
    split, columns = _divided(forward, tensors, final)
    low = saved.low_precision or any(tensor.low_precision for tensor in tensors) or has_packed(forward.modules)
    return Survey(
        tensors=tensors,
        saved_bytes=saved.total(storages_of_weights(forward.modules)),
        inputs=tuple(leaf.detach() for leaf in inputs),
        output=final,
        low_precision=low or (final is not None and final.element_size() < 4),
        fixed=_fixed_tensors(forward),
        split=tuple(recorder.distributed | dict.fromkeys(split)),
        columns=columns,
    )


def _look(forward: Forward, inputs: tuple[Tensor, ...], keep: bool) -> tuple[Any, "_Recorder", "_SavedBytes"]:
    """Output of one forward pass, its layers, and what autograd saves, which is kept only if asked for."""
    recorder, saved = _Recorder(), _SavedBytes()

    def pack(tensor: Tensor) -> Tensor | None:
        saved.note(tensor)
        return tensor.detach() if keep else None  # the tensor itself would keep the graph, which keeps the tensor

    with refuse_random_draws(forward.model), saved_tensors_hooks(pack, unpack_or_refuse):
        return forward(inputs, 1, recorder.visit), recorder, saved


class BackwardInsideError(Exception):
    """A forward pass holds a backward pass, for which nothing was kept."""


def unpack_or_refuse(kept: Tensor | None) -> Tensor:
    """What autograd gets for a backward pass.

    Args:
        kept: A saved tensor; None where it was not kept.

    Raises:
        BackwardInsideError: If it was not.
    """
    if kept is None:
        raise BackwardInsideError
    return kept


def _divided(
    forward: Forward, tensors: Sequence[ProbedTensor], output: Tensor | None
) -> tuple[tuple[str, ...], dict[Site, Columns]]:
    """Layers whose tensors differ between processes and cannot be joined, and tensors of which each holds features.

    Raises:
        ValueError: If it is the network's output.
    """
    split: dict[str, None] = {}
    joined: dict[Site, Columns] = {}
    seen: dict[Site | None, Any] = {tensor.site: (tensor.shape, tensor.fingerprint) for tensor in tensors}
    groups = split_groups(forward.modules)
    if groups and output is not None:
        seen[None] = None if is_sharded(output) else (output.shape, _fingerprint(output.reshape(-1)))
    for group in groups:
        everywhere: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(everywhere, seen, group)
        if output is not None and any(_differ(everywhere[0][None], other[None]) for other in everywhere):
            raise ValueError(
                "every process returns another part of the network's output, so that none can compute the objective: "
                "let the plan gather the output of the last layer with `output_layouts=Replicate()` and return a local "
                "tensor (`use_local_output=True`)."
            )
        for tensor in tensors:
            values = [other.get(tensor.site) for other in everywhere]
            columns = None if forward.at_input else columns_of(forward.layers[tensor.alias_of.layer])
            shapes = [value[0] for value in values if value is not None]
            if columns is not None and columns.group.group_name == group.group_name and columns.hold(shapes):
                joined[tensor.site] = columns
            elif any(_differ(values[0], value) for value in values):
                split[tensor.site.layer] = None
    return tuple(split), joined


def _differ(one: Any, other: Any) -> bool:
    """Whether two processes see other shapes or values."""
    if one is None or other is None or one[0] != other[0]:
        return True
    return not np.allclose(one[1], other[1], rtol=SINGLE_PRECISION, atol=0, equal_nan=True)


@dataclass
class Surveys:
    """Surveys of one network, one for each shape of its inputs.

    Images of one shape cost the same and run the same layers, so that one survey serves them all.

    Args:
        known: Surveys by the shapes that they hold for.
        row_checked: Shapes of which the rows are known to be independent.
        alone: Shapes of which nodes cannot share a forward pass, because a layer does not keep the batch first.
        blocks: Blocks that can run again, by the shapes that they were tried with.
    """

    known: dict[Hashable, Survey] = field(default_factory=dict)
    row_checked: set[Hashable] = field(default_factory=set)
    alone: set[Hashable] = field(default_factory=set)
    blocks: dict[Hashable, Blocks] = field(default_factory=dict)

    def whole(self, site: Site, tensor: Tensor) -> Tensor:
        """A layer's output joined where every process has other features of it; see :meth:`Survey.whole`.

        Args:
            site: The layer's tensor.
            tensor: What this process has.
        """
        found = next((survey for survey in self.known.values() if site in survey.columns), None)
        return tensor if found is None else found.whole(site, tensor)

    def find(self, forward: Forward, inputs: tuple[Tensor, ...]) -> Survey | None:
        """What is known of inputs of these shapes.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
        """
        found = self.known.get(_signature(forward, inputs))
        return None if found is None else found.at(inputs, _fixed_tensors(forward))

    def keep(self, forward: Forward, found: Survey) -> None:
        """Add a survey, or replace the one of these shapes; those of other shapes keep no values.

        Args:
            forward: Model and layers.
            found: The survey.
        """
        self.known = {signature: survey.without_values() for signature, survey in self.known.items()}
        self.known[_signature(forward, found.inputs)] = found

    def find_blocks(self, forward: Forward, inputs: tuple[Tensor, ...], find: Callable[[], Blocks]) -> Blocks:
        """The blocks that can run again with inputs of these shapes.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
            find: Finds them if they are not known.
        """
        signature = _signature(forward, inputs)
        if signature not in self.blocks:
            self.blocks[signature] = find()
        return self.blocks[signature]

    def knows_rows(self, forward: Forward, inputs: tuple[Tensor, ...]) -> bool:
        """Whether rows of these shapes were found to be independent of each other.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
        """
        return _signature(forward, inputs) in self.row_checked

    def keep_rows(self, forward: Forward, inputs: tuple[Tensor, ...]) -> None:
        """Note that rows of these shapes are independent of each other.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
        """
        self.row_checked.add(_signature(forward, inputs))

    def runs_alone(self, forward: Forward, inputs: tuple[Tensor, ...]) -> bool:
        """Whether nodes of these shapes were found to need a forward pass each.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
        """
        return _signature(forward, inputs) in self.alone

    def keep_alone(self, forward: Forward, inputs: tuple[Tensor, ...]) -> None:
        """Note that nodes of these shapes need a forward pass each.

        Only the first inputs of these shapes show it: the values of others at one node alone are not known.

        Args:
            forward: Model and layers.
            inputs: Inputs of the model at one node.
        """
        self.alone.add(_signature(forward, inputs))


def _fixed_tensors(forward: Forward) -> tuple[Tensor, ...]:
    """Tensors among the arguments of a model that no path walks."""
    given = (*forward.forward_args, *getattr(forward.model, "keywords", {}).values())
    return tuple(value for value in pytree.tree_leaves(given) if isinstance(value, Tensor))


def _signature(forward: Forward, inputs: tuple[Tensor, ...]) -> Hashable:
    """What layers and memory depend on: names, shapes and types of tensors, values of what is no tensor."""
    entered = getattr(forward.model, "signature", ())
    leaves, structure = pytree.tree_flatten((inputs, forward.forward_args))
    return forward.at_input, entered, *forward.layers, str(structure), *map(_kind, leaves)


def _kind(argument: Any) -> Hashable:
    """Shape and type of a tensor; anything else as it is, or by its identity."""
    if isinstance(argument, Tensor):
        return tuple(argument.shape), argument.dtype, argument.device
    return argument if isinstance(argument, str | int | float | bool | None) else _Itself(argument)


@dataclass(frozen=True, eq=False)
class _Itself:
    """An object by its identity, which no other takes while it is held."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def never_ran(names: Sequence[str]) -> str:
    """Error message for layers that no forward pass calls as modules."""
    others = f" (nor did {len(names) - 1} others)" if len(names) > 1 else ""
    return (
        f"layer {names[0]!r} never ran, or returned no floating-point tensor{others}: leave it out of `layers`. "
        "Functional use of weights, torch.jit.trace and torch.export hide layers: pass a network that calls them."
    )


def refuse_split(names: Sequence[str]) -> None:
    """Raise for layers whose output is split over processes: a sum would be that of a part.

    Args:
        names: Such layers.

    Raises:
        ValueError: If there are any.
    """
    if names:
        listed = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(
            f"every process holds another part of {listed}, between a column-parallel and a row-parallel layer: leave "
            "these layers out of `layers`, or let the plan gather with `output_layouts=Replicate()` before them, and "
            "return local tensors (`use_local_output=True`)."
        )


@dataclass
class _SavedBytes:
    """Memory of the tensors that autograd saves, each storage once.

    A weak reference to a storage says which one it is, also when its memory is gone.
    """

    storages: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)
    low_precision: bool = False

    def note(self, tensor: Tensor) -> None:
        """Count a tensor."""
        for storage in storages_of(tensor):
            if storage._cdata not in self.storages:
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.low_precision |= tensor.is_floating_point() and tensor.element_size() < 4

    def total(self, without: set[int]) -> int:
        """Bytes of all storages but some, such as those of weights, which take no memory of their own."""
        return sum(nbytes for storage, (_, nbytes) in self.storages.items() if storage not in without)


@dataclass(frozen=True)
class _Record:
    """A probed tensor while the forward pass goes on."""

    tensor: Tensor
    version: int
    identity: Hashable
    fingerprint: tuple[float, ...]
    is_constant: bool


@dataclass
class _Recorder:
    """Records every floating-point tensor that is probed, and the layers that return a DTensor instead."""

    records: dict[Site, _Record] = field(default_factory=dict)
    distributed: dict[str, None] = field(default_factory=dict)

    def visit(self, site: Site, tensor: Tensor) -> Tensor:
        """Record a tensor and hand it on."""
        if tensor.is_floating_point():
            if is_sharded(tensor):
                self.distributed[site.layer] = None
                return tensor
            if tensor.is_inference():
                raise ValueError(
                    f"layer {site} runs under `torch.inference_mode`, where nothing has a gradient: take that out of "
                    "the network's forward method."
                )
            if tensor.dim() == 0:
                raise ValueError(f"layer {site} returns a single number, without neurons: leave it out of `layers`.")
            edge = get_gradient_edge(tensor) if tensor.requires_grad else None
            same = (tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride()) if edge is None else edge[:2]
            self.records[site] = _Record(tensor.detach(), tensor._version, same, _fingerprint(tensor), edge is None)
        return tensor

    def tensors(self) -> tuple[ProbedTensor, ...]:
        """The recorded tensors after the forward pass."""
        first: dict[Hashable, Site] = {}
        return tuple(
            ProbedTensor(
                site=site,
                shape=tuple(record.tensor.shape),
                nbytes=record.tensor.nbytes,
                dtype=record.tensor.dtype,
                alias_of=first.setdefault(record.identity, site),
                overwritten=record.tensor._version != record.version,
                fingerprint=record.fingerprint,
                is_constant=record.is_constant,
            )
            for site, record in self.records.items()
        )


def _fingerprint(tensor: Tensor) -> tuple[float, ...]:
    """Up to 64 values, evenly spread over the tensor."""
    return tuple(tensor.detach()[_places(tensor.shape)].double().tolist()) if tensor.numel() else ()


@lru_cache(maxsize=1024)
def _places(shape: torch.Size) -> tuple[Tensor, ...]:
    """Indices of up to 64 elements, evenly spread over a tensor of that shape.

    By NumPy: torch's function of that name imports sympy, which takes half a second.
    """
    count = min(64, shape.numel())
    flat = torch.linspace(0, shape.numel() - 1, count, dtype=torch.float64, device="cpu").round().long()
    return tuple(map(torch.from_numpy, np.unravel_index(flat.numpy(), shape)))
