"""The sweep: one walk along a path that feeds every layer's outputs and gradients into sums."""

__all__ = ["Trace", "trace"]

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import proxy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from macattr.arguments import checked_budget, whole_number
from macattr.paths.inputs import Path
from macattr.paths.objectives import Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import LayerSum, StieltjesSum
from macattr.sweep.allocator import keep_freed_memory, return_free_memory, return_freed_memory
from macattr.sweep.blocks import find_blocks
from macattr.sweep.calls import add_calls
from macattr.sweep.cuts import find_cuts
from macattr.sweep.guard import modules_of, undisturbed
from macattr.sweep.memory import Plan, plan_sweeps
from macattr.sweep.nodes import Forward, evaluate, leaves_at, no_derivative
from macattr.sweep.probes import Site, Visit
from macattr.sweep.recompute import Recomputation
from macattr.sweep.survey import ProbedTensor, Survey, Surveys, never_ran, refuse_split, survey_inputs
from macattr.user_warnings import warn_user
from macattr.weights.processes import smallest_of_all
from macattr.weights.values import refuse_inference_only


@dataclass(frozen=True)
class Trace:
    """Result of a sweep besides the sums.

    Args:
        survey: Sites, aliases and cost.
        objective_start: Objective at the first node, (B,).
        objective_end: Objective at the last node, (B,).
        objective_variation: Sum of its absolute changes from node to node, (B,).
        input_attribution: Conductance of every model input, (B, ...) each; none where the sweep stopped above it.
        cuts: Layers that every connection from the inputs to the objective runs through.
        evaluations: Forward + backward passes over one node; blocks that ran again are not counted.
        nodes_per_batch: Nodes that shared a forward pass.
        recomputed: Blocks that ran again in the backward pass, so that a memory budget was kept.
        estimated_bytes: Memory for activations, layer outputs and sums, as planned beforehand.
    """

    survey: Survey
    objective_start: Float[Tensor, " b"]
    objective_end: Float[Tensor, " b"]
    objective_variation: Float[Tensor, " b"]
    input_attribution: tuple[Tensor, ...]
    cuts: frozenset[str]
    evaluations: int
    nodes_per_batch: int
    recomputed: tuple[str, ...]
    estimated_bytes: int

    @property
    def input_residual(self) -> Float[Tensor, " b"]:
        r"""Relative error of completeness at the input: :math:`\sum_i C_i / \Delta F - 1`, per sample.

        Between the first and the last node; NaN where the objective changes by no more than its rounding error, and
        where the sweep stopped above the input.
        """
        if not self.input_attribution:
            return torch.full_like(self.objective_end, torch.nan)
        total = torch.stack([part.flatten(1).sum(1, dtype=torch.float64) for part in self.input_attribution]).sum(0)
        change = self.objective_end - self.objective_start
        rounding = 1e-6 * torch.maximum(self.objective_end.abs(), self.objective_start.abs())
        return torch.where(change.abs() > rounding, total / change - 1, torch.nan)

    def values(self, layer_sum: LayerSum, layer: str) -> tuple[Tensor, ...]:
        """A layer's sum, one tensor for each tensor that it returns; calls are added up.

        Raises:
            ValueError: If its calls return different shapes, so that neurons do not correspond.
        """
        return add_calls(self.by_site(layer_sum, layer))

    def by_site(self, layer_sum: LayerSum, layer: str) -> dict[Site, Tensor]:
        """A layer's sum for every call and every tensor that it returns, whole on every process.

        A call that returns the tensor of an earlier one, as from a cache, has no neurons of its own and is left out.

        Args:
            layer_sum: One of the sums that the sweep has fed.
            layer: Name of the layer.
        """
        first: dict[tuple[int, Site], Site] = {}
        for tensor in self.survey.tensors:
            if tensor.site.layer == layer:
                first.setdefault((tensor.site.item, tensor.alias_of), tensor.site)
        return {site: self.survey.whole(site, layer_sum.value(alias)) for (_, alias), site in first.items()}


class BatchLayoutError(ValueError):
    """A layer's rows cannot be attributed to nodes."""


class SharedTensorError(BatchLayoutError):
    """A layer returns one tensor for all nodes, as the network has it: their gradients arrive as one."""


def trace(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    objective: Objective,
    sums: Sequence[LayerSum],
    *,
    forward_args: tuple[Any, ...] = (),
    internal_batch_size: int | None = None,
    memory_budget: float | None = None,
    at_input: bool = False,
    grad_kwargs: Mapping[str, Any] | None = None,
    advance: Callable[[float], object] | None = None,
    surveys: Surveys | None = None,
    with_input: bool = True,
) -> Trace:
    """Feed ``sums`` with the outputs of all layers, and the objective's gradients, at all nodes of a path.

    One forward and one backward pass per node serve every layer. Gradients are folded into the sums while the backward
    pass runs, so that memory does not grow with the number of nodes. The model is left exactly as it was.

    Args:
        model: Network, or a function that calls it; returns one tensor (B, ...).
        layers: Modules to probe, by name; see :func:`macattr.layers.resolve.resolve_layers`.
        path: Source of the inputs.
        partition: Nodes of the sweep; its tag is also that of ``Trace.input_attribution``.
        objective: Output (B, ...) to (B,); called for one node at a time, with the samples in the order of the inputs.
        sums: Sums to feed, keyed by site; read them with :meth:`Trace.values`.
        forward_args: Further positional arguments of the model; tensors whose first dimension is the batch are
            repeated for every node of a forward pass.
        internal_batch_size: Rows (nodes x samples) in one forward pass, at least one node; None chooses by memory.
        memory_budget: Bytes that activations and sums may take. If they need more, blocks of the network run again in
            the backward pass, and chunks of nodes overlap by one; layers are split over several sweeps where that is
            impossible. The plan counts tensors that are held; the allocator may keep more. None: no limit, one sweep.
        at_input: Probe the inputs of the layers instead of their outputs.
        grad_kwargs: Passed to :func:`torch.autograd.grad`.
        advance: Called after every forward pass with the nodes done; they add up to the number of nodes.
        surveys: What is known of the model from other calls with the same layers. The survey, and the check that no row
            of the output depends on another row of the inputs (it costs two nodes), are made once for every shape.
        with_input: Whether gradients are followed down to the inputs, which their attribution needs. If not, every
            forward pass but the first keeps nothing below the first of the layers, and the backward pass ends there.

    Raises:
        ValueError: If a layer never runs or is not finite (with layer and alpha), the objective is not one number per
            sample or mixes samples, the model is stochastic, mixes the batch, is no function of its inputs or runs
            other layers at other nodes, or the budget is too small.

    Warns:
        UserWarning: If a layer does not keep the batch first: nodes are then evaluated one at a time. If a memory
            budget splits the layers over several sweeps, with the reason.
    """
    if internal_batch_size is not None:
        internal_batch_size = whole_number("internal_batch_size", internal_batch_size)
    memory_budget = checked_budget(memory_budget)
    surveys = Surveys() if surveys is None else surveys
    freed = keep_freed_memory() if memory_budget is None else return_freed_memory()
    with freed, undisturbed(model, layers.values()) as rewind:
        forward = Forward(model, layers, path, rewind, forward_args, at_input)
        inputs = leaves_at(path, partition.nodes[:1])
        survey = _known(forward, inputs, surveys)

        def plan(rows: int | None) -> Plan:
            return plan_sweeps(
                survey,
                sums,
                len(partition.nodes),
                rows,
                memory_budget,
                lambda: surveys.find_blocks(forward, inputs, lambda: find_blocks(forward, inputs, survey)),
            )

        chosen = plan(internal_batch_size)
        count = smallest_of_all(chosen.nodes_per_batch, modules_of(model, layers.values()).values())
        if count < chosen.nodes_per_batch:  # another process holds fewer: chunks of that length may not overlap
            chosen = plan(count * survey.batch)
        sweep = _Sweep(
            forward=forward,
            partition=partition,
            objective=objective,
            survey=survey,
            grad_kwargs={"allow_unused": True} | dict(grad_kwargs or {}),
            plan=chosen,
            plan_alone=lambda: plan(1),
            frugal=memory_budget is not None,
            advance=advance or (lambda done: None),
            with_input=with_input,
        )
        if surveys.runs_alone(forward, inputs):
            sweep.separate_nodes()
        if max(sweep.plan.nodes_per_batch, survey.batch) > 1 and not surveys.knows_rows(forward, inputs):
            sweep.refuse_mixing()
            surveys.keep_rows(forward, inputs)
        inputs_sum = StieltjesSum(partition.tag)
        sweep.walk(sums, inputs_sum)
        sweep.check_function()
        if sweep.is_separated:
            surveys.keep_alone(forward, inputs)
    _refuse_non_finite(survey, sums, path)
    return Trace(
        survey=survey,
        objective_start=sweep.objective_start.double(),
        objective_end=sweep.objective_end.double(),
        objective_variation=_variation(sweep.objective_values),
        input_attribution=tuple(inputs_sum.value(index) for index in range(sweep.input_count if with_input else 0)),
        cuts=frozenset(name for name, sites in survey.sites.items() if len({*sites}) == 1 and sites[0] in sweep.cuts),
        evaluations=sweep.evaluations,
        nodes_per_batch=sweep.plan.nodes_per_batch,
        recomputed=tuple(sweep.plan.blocks),
        estimated_bytes=sweep.plan.estimated_bytes,
    )


def _known(forward: Forward, inputs: tuple[Tensor, ...], surveys: Surveys) -> Survey:
    """The survey of these inputs, made now if it was not before; layers that cannot be summed are refused."""
    survey = surveys.find(forward, inputs)
    if survey is None:
        survey = survey_inputs(forward, inputs)
        surveys.keep(forward, survey)
    refuse_split([name for name in forward.layers if name in survey.split])
    sites = survey.sites
    if missing := [name for name in forward.layers if name not in sites]:
        raise ValueError(never_ran(missing))
    refuse_inference_only(modules_of(forward.model, forward.layers.values()))
    return survey


def _variation(values: Mapping[int, Tensor]) -> Tensor:
    """Sum of the absolute changes from node to node."""
    nodes = torch.cat([values[first] for first in sorted(values)]).double()
    return nodes.diff(dim=0).abs().sum(0)


def _refuse_non_finite(survey: Survey, sums: Sequence[LayerSum], path: Path) -> None:
    """Raise if a layer's sum is not finite although objective and input gradients were."""
    for layer_sum in sums:
        for tensor in survey.distinct:
            if not _is_finite(layer_sum.value(tensor.site)):
                start, end = path.interval
                raise ValueError(
                    f"layer {tensor.site} has outputs or gradients that are not finite between alpha = {start:.4g} and "
                    f"{end:.4g}: leave it out of `layers`."
                )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; their sum shows it without temporaries, unless it overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


@dataclass(frozen=True)
class _Chunk:
    """Nodes that share a forward pass.

    Args:
        alpha: Their positions on the path.
        first: Index of the first of them.
    """

    alpha: Tensor
    first: int

    @property
    def count(self) -> int:
        """Number of nodes."""
        return len(self.alpha)


class _Probe:
    """Layer outputs at a chunk of nodes, held until their gradients arrive and then folded into the sums.

    Args:
        tensors: Layers to sum.
        sums: Sums that are fed.
        chunk: The nodes.
        plan: Blocks that run again. The outputs of layers inside are not held until then; a gradient that is there
            before is.
    """

    def __init__(self, tensors: Sequence[ProbedTensor], sums: Sequence[LayerSum], chunk: _Chunk, plan: Plan) -> None:
        self.tensors = {tensor.site: tensor for tensor in tensors}
        self.sums, self.chunk, self.overlaps = sums, chunk, plan.overlaps
        # The graph holds what waits for gradients, and a probe holds the graph: Python would never free such a cycle.
        self.weak: _Probe = proxy(self)
        self.recomputation = Recomputation(plan.blocks, partial(_Probe.revisit, self.weak)) if plan.blocks else None
        self.names = {site.layer for site in self.tensors}
        self.visited: set[Site] = set()
        self.held: dict[Site, tuple[Tensor, int]] = {}
        self.early: dict[Site, Tensor | None] = {}
        self.folded: set[Site] = set()
        self.edges: dict[Site, GradientEdge] = {}
        self.constants: list[Tensor] = []
        self.shared: set[Site] = set()

    def visit(self, site: Site, tensor: Tensor) -> Tensor:
        """Hold a layer's output and wait for its gradient."""
        if tensor.is_floating_point():
            self.visited.add(site)
        probed = self.tensors.get(site)
        if probed is None:
            return tensor
        count = self.chunk.count
        if tensor.shape != (probed.shape[0] * count, *probed.shape[1:]):
            shape = tuple(tensor.shape)
            message = f"layer {site}: {count} nodes give the shape {shape}, one node gives {probed.shape}."
            if count == 1:
                message = (
                    f"layer {site} returns {shape}, in the first pass {probed.shape}: shapes must not depend on the "
                    "input. Leave the layer out of `layers`."
                )
            if not probed.is_constant or shape != probed.shape:
                raise BatchLayoutError(message)
            if any(layer_sum.weighs_gradients for layer_sum in self.sums):
                raise SharedTensorError(message)
            self.shared.add(site)
        watched = _watched(tensor)
        if watched is not tensor:
            self.constants.append(watched)
        watched.register_hook(partial(_Probe.receive, self.weak, site))
        if self.chunk.first == 0:
            self.edges[site] = get_gradient_edge(watched)
            _refuse_other_rows(probed, tensor, count)
        if self.recomputation is None or not self.recomputation.inside:
            self.hold(site, tensor.detach().clone() if probed.overwritten else tensor)
        return watched.clone() if probed.overwritten and watched is not tensor else watched

    def revisit(self, site: Site, tensor: Tensor) -> Tensor:
        """Hold the output of a layer in a block that runs again."""
        probed = self.tensors.get(site)
        if probed is None:
            return tensor
        if site not in self.folded and site not in self.held:
            self.hold(site, tensor.detach().clone() if probed.overwritten else tensor)
            if site in self.early:
                self.fold(site, self.early.pop(site))
        watched = _watched(tensor)
        return watched.clone() if probed.overwritten and watched is not tensor else watched

    def hold(self, site: Site, tensor: Tensor) -> None:
        """Keep an output, and show it to the sums."""
        output = tensor.detach()
        self.held[site] = (output, tensor._version)
        rows = self._all_rows(site, output)
        for layer_sum in self.sums:
            layer_sum.arrive(site, rows, self.chunk.first, self.chunk.count)

    def receive(self, site: Site, gradient: Tensor | None) -> None:
        """Fold a gradient, or keep it until its block has run again."""
        if site in self.held:
            self.fold(site, gradient)
        else:
            self.early[site] = gradient

    def fold(self, site: Site, gradient: Tensor | None) -> None:
        """Feed the sums with a layer's output and gradient, which is None where a backward function returns none."""
        output, version = self.held.pop(site)
        if output._version != version:
            raise ValueError(
                f"layer {site}: its output is overwritten in place in some forward passes only. Switch off in-place "
                "operations that depend on the input."
            )
        slope = torch.zeros_like(output) if gradient is None else gradient.detach()
        output, slope = self._all_rows(site, output), self._all_rows(site, slope)
        for layer_sum in self.sums:
            layer_sum.update(site, output, slope, self.chunk.first, self.chunk.count)
            if self.overlaps:
                layer_sum.release(site)
        self.folded.add(site)

    def _all_rows(self, site: Site, tensor: Tensor) -> Tensor:
        """Rows of all nodes, also of a tensor that they share."""
        return tensor.repeat(self.chunk.count, *[1] * (tensor.dim() - 1)) if site in self.shared else tensor

    @property
    def was_reached(self) -> bool:
        """Whether the gradient of any layer has arrived."""
        return bool(self.folded or self.early)

    def fold_rest(self) -> None:
        """Layers that no gradient reached have a gradient of zero."""
        if self.recomputation is not None:
            self.recomputation.finish()
            if self.recomputation.changed:
                name, reason = next(iter(self.recomputation.changed.items()))
                raise ValueError(f"block {name!r}: {reason}, at some nodes only. Pass a larger `memory_budget`.")
        for site in list(self.held):
            self.fold(site, None)
        if missing := sorted(self.tensors.keys() - self.folded):
            raise ValueError(f"layer {missing[0]} does not run again with its block. Pass a larger `memory_budget`.")


def _watched(tensor: Tensor) -> Tensor:
    """The tensor, or a leaf in its place if it has no gradient."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _refuse_other_rows(probed: ProbedTensor, tensor: Tensor, count: int) -> None:
    """Raise if the first node differs from the survey, where it was alone."""
    if (change := probed.difference(tensor)) is not None:
        reason = "does not keep the batch first" if count > 1 else "is not deterministic"
        raise BatchLayoutError(
            f"layer {probed.site} {reason}: its output at the first node changes by {change[0]:.2g} (values up to "
            f"{change[1]:.2g}) from one forward pass to the next."
        )


@dataclass
class _GradientWatch:
    """Notes where gradients are not finite, in the order of the backward pass; fed like a sum."""

    broken: list[Hashable] = field(default_factory=list)
    weighs_gradients = False
    stride = 1

    def arrive(self, key: Hashable, outputs: Tensor, first: int, count: int) -> None:
        """Nothing."""

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Note a layer whose gradients are not finite."""
        if not bool(gradients.isfinite().all()):
            self.broken.append(key)

    def value(self, key: Hashable) -> Tensor:
        """There is none."""
        raise KeyError(key)

    def release(self, key: Hashable) -> None:
        """Nothing."""

    def state_bytes(self, nbytes: int, dtype: torch.dtype) -> int:
        """Nothing."""
        return 0


@dataclass
class _Sweep:
    """Walks over the nodes of a path, one for each group of layers."""

    forward: Forward
    partition: Partition
    objective: Objective
    survey: Survey
    grad_kwargs: Mapping[str, Any]
    plan: Plan
    plan_alone: Callable[[], Plan]
    frugal: bool
    advance: Callable[[float], object]
    with_input: bool = True
    evaluations: int = 0
    cuts: set[Site] = field(default_factory=set)
    input_count: int = 0
    objective_start: Tensor = field(default_factory=lambda: torch.empty(0))
    objective_end: Tensor = field(default_factory=lambda: torch.empty(0))
    objective_values: dict[int, Tensor] = field(default_factory=dict)
    reference: tuple[_Chunk, Tensor] | None = None
    ends_at_layers: bool = False
    is_separated: bool = False

    def walk(self, sums: Sequence[LayerSum], inputs_sum: LayerSum) -> None:
        """Walk over all nodes with every group of layers; afterwards the sums need nothing else of them."""
        done = 0
        while done < len(self.plan.groups):
            try:
                self._run(self.plan.groups[done], sums, [inputs_sum] if done == 0 else [])
            except BatchLayoutError as error:
                self._separate_nodes(error)
            else:
                done += 1

    def _run(self, group: Sequence[ProbedTensor], sums: Sequence[LayerSum], input_sums: Sequence[LayerSum]) -> None:
        """Walk over all nodes with one group of layers."""
        for chunk in self._chunks():
            try:
                inputs, gradients = self._pass(chunk, group, sums)
            except BatchLayoutError as error:
                if chunk.first:
                    together = " Pass `internal_batch_size=1`, so that nodes are evaluated alone."
                    raise ValueError(f"{error}{together if chunk.count > 1 else ''}") from None
                raise
            self._fold_inputs(chunk, inputs, gradients, input_sums)
            if self.frugal:
                return_free_memory()
            self.evaluations += chunk.count
            done, sweeps = chunk.count - self._repeated(chunk), len(self.plan.groups)
            self.advance(done if sweeps == 1 else done / sweeps)
        for layer_sum in sums:
            for tensor in group:
                layer_sum.release(tensor.site)

    def _chunks(self) -> Iterator[_Chunk]:
        """The nodes of the path, by forward pass."""
        nodes, count, shared = self.partition.nodes, self.plan.nodes_per_batch, int(self.plan.overlaps)
        for first in range(0, max(1, len(nodes) - shared), max(1, count - shared)):
            yield _Chunk(nodes[first : first + count], first)

    def _repeated(self, chunk: _Chunk) -> int:
        """Nodes of a chunk that the chunk before had too."""
        return int(self.plan.overlaps and chunk.first > 0)

    def _separate_nodes(self, error: BatchLayoutError) -> None:
        """Begin again with one node at a time, if that was not the case already."""
        if self.plan.nodes_per_batch == 1:
            raise ValueError(str(error)) from None
        if not isinstance(error, SharedTensorError):
            warn_user(f"{error} Nodes are evaluated one at a time.")
        self.separate_nodes()

    def separate_nodes(self) -> None:
        """Evaluate one node at a time from here on."""
        self.is_separated = True
        if self.plan.nodes_per_batch > 1:
            self.plan = self.plan_alone() if self.plan.overlaps else replace(self.plan, nodes_per_batch=1)

    def _pass(
        self, chunk: _Chunk, tensors: Sequence[ProbedTensor], sums: Sequence[LayerSum]
    ) -> tuple[tuple[Tensor, ...], Sequence[Tensor | None]]:
        """Forward and backward at some nodes, folding into the sums on the way; inputs and their gradients."""
        probe = _Probe(tensors, sums, chunk, self.plan)
        inputs = leaves_at(self.forward.path, chunk.alpha)
        for leaf in inputs:
            leaf.requires_grad_(not self.ends_at_layers)
        output = self._output(inputs, chunk.count, probe.visit, probe.names, probe.recomputation)
        self._refuse_other_calls(probe, chunk)
        values = evaluate(self.objective, output, self.survey.batch, chunk.count, check=chunk.first == 0)
        if not bool(values.isfinite().all()):
            self._blame_output(chunk, values.detach())
        if chunk.first == 0:
            self._begin(chunk, inputs, output.detach(), values, probe)
        self.objective_end = values[-1].detach()
        self.objective_values[chunk.first] = values[self._repeated(chunk) :].detach()
        if self.frugal:  # holes of earlier passes, before this one takes most
            return_free_memory()
        leaves = () if self.ends_at_layers else inputs
        gradients = self._gradients(values, [*leaves, *probe.constants])
        if not self.with_input:  # a layer that the gradient has reached connects the output, whatever lies below it
            self.ends_at_layers = probe.was_reached
        probe.fold_rest()
        return leaves, gradients[: len(leaves)]

    def _output(
        self,
        inputs: tuple[Tensor, ...],
        count: int,
        visit: Visit,
        names: Collection[str],
        recomputation: Recomputation | None,
    ) -> Any:
        """Output of the model; the survey has shown that it runs on one node."""
        try:
            return self.forward(inputs, count, visit, names, recomputation)
        except (BatchLayoutError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if count == 1:
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            raise BatchLayoutError(f"the network fails on several nodes at once: {reason}.") from error

    def _refuse_other_calls(self, probe: _Probe, chunk: _Chunk) -> None:
        """Raise if layers run at some nodes only: they have no sum along the whole path."""
        expected = {site for site in self.survey.aliases if site.layer in probe.names}
        if others := sorted(expected ^ probe.visited):
            nodes = f"alpha = {float(chunk.alpha[0]):.4g} ... {float(chunk.alpha[-1]):.4g}"
            kind = "does not run" if others[0] in expected else "runs once more"
            raise ValueError(
                f"layer {others[0]} {kind} at {nodes}, unlike in the first pass: which layers run must not depend on "
                "the input. Leave out branches that do, or leave the layer out of `layers`."
            )

    def _begin(self, chunk: _Chunk, inputs: tuple[Tensor, ...], output: Tensor, values: Tensor, probe: _Probe) -> None:
        """Note what the first nodes alone show, and refuse a model whose output depends on its other rows."""
        if self.survey.output is not None:
            self._refuse_change(output[: self.survey.batch], self.survey.output, chunk.alpha[:1])
        if self.reference is None:
            self.reference = chunk, output[-1:].clone()
        self.cuts |= find_cuts(values.sum(), inputs, probe.edges)
        self.objective_start = values[0].detach()

    def _gradients(self, values: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Gradients of the objective at all nodes."""
        try:
            return torch.autograd.grad(values.sum(), leaves, **self.grad_kwargs)
        except NotImplementedError as error:
            raise ValueError(f"the network holds an operation without a derivative: {error}") from error

    def _fold_inputs(
        self,
        chunk: _Chunk,
        inputs: tuple[Tensor, ...],
        gradients: Sequence[Tensor | None],
        input_sums: Sequence[LayerSum],
    ) -> None:
        """Feed the sums of the model's inputs."""
        self.input_count = max(self.input_count, len(inputs))
        for index, (tensor, gradient) in enumerate(zip(inputs, gradients, strict=True)):
            slope = torch.zeros_like(tensor) if gradient is None else gradient.detach()
            if input_sums and not bool(slope.isfinite().all()):
                self._blame_gradient(chunk)
            for layer_sum in input_sums:
                layer_sum.update(index, tensor.detach(), slope, chunk.first, chunk.count)
                if self.plan.overlaps:
                    layer_sum.release(index)

    def check_function(self) -> None:
        """Raise unless the model is a function of one row of its inputs, now as at the beginning.

        The last sample at the last node of the first chunk runs once more, without other nodes, and with copies of
        itself in place of the other samples.
        """
        if self.reference is None:
            return
        chunk, before = self.reference
        inputs = tuple(leaf[-1:].expand_as(leaf) for leaf in leaves_at(self.forward.path, chunk.alpha[-1:]))
        now = self.forward.output(inputs, 1)
        if isinstance(now, Tensor):
            self._refuse_change(now[-1:], before, chunk.alpha[-1:])

    def refuse_mixing(self) -> None:
        """Raise if the first row of the output depends on other rows of the inputs, by its gradient at both ends."""
        ends = self.partition.nodes[[0, -1]] if self.plan.nodes_per_batch > 1 else self.partition.nodes[-1:]
        inputs = leaves_at(self.forward.path, ends)
        again = Recomputation(self.plan.blocks, lambda _, tensor: tensor) if self.plan.blocks else None
        try:
            output = self._output(inputs, len(ends), lambda _, tensor: tensor, (), again)
        except BatchLayoutError as error:
            self._separate_nodes(error)
            inputs = leaves_at(self.forward.path, ends[-1:])
            again = Recomputation(self.plan.blocks, lambda _, tensor: tensor) if self.plan.blocks else None
            output = self._output(inputs, 1, lambda _, tensor: tensor, (), again)
        if not isinstance(output, Tensor) or not output.requires_grad or not output.dim():
            return  # refused with its own message
        first = torch.view_as_real(output[0]) if output.is_complex() else output[0]
        weights = torch.rand(first.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(first)
        gradients = torch.autograd.grad((first * weights).sum(), inputs, allow_unused=True)
        for gradient in gradients:
            if gradient is None or len(gradient) == 1:
                continue
            if bool(gradient[1:].abs().max() > 1e-7 * gradient[0].abs().max()):
                raise ValueError(f"the model mixes the batch: a row of its output depends on others. {self._alone()}")

    def _alone(self) -> str:
        """The remedy for a model that mixes the batch."""
        alone = "pass `internal_batch_size=1`, so that every node is evaluated alone"
        is_flat = any(leaf.dim() == 2 for leaf in self.survey.inputs)
        rows = " Where all rows are one sequence or set of points, pass (1, n, D) by its keyword." if is_flat else ""
        return (
            "Each row must depend on its own inputs; "
            f"{alone if self.survey.batch == 1 else f'pass one sample at a time and {alone}'}.{rows}"
        )

    def _refuse_change(self, now: Tensor, before: Tensor, alpha: Tensor) -> None:
        """Raise if the output at a node differs between two forward passes, with the reason."""
        if (change := self.survey.difference(now, before)) is None:
            return
        again = self.forward.output(leaves_at(self.forward.path, self.partition.nodes[:1]), 1)
        where = f"its output at alpha = {float(alpha):.4g} changes by {change[0]:.2g} (values up to {change[1]:.2g})"
        if now.shape != before.shape:
            where = f"its output changes from the shape {tuple(before.shape)} to {tuple(now.shape)}"
        if self.survey.output is not None and self.survey.difference(again, self.survey.output) is not None:
            raise ValueError(
                f"the model is not a function of its inputs: {where} from one forward pass to the next. Switch off "
                "noise, counters and caches, or keep them in attributes of the modules."
            )
        raise ValueError(f"the model mixes the batch: {where} with the other rows of the forward pass. {self._alone()}")

    def _blame_output(self, chunk: _Chunk, values: Tensor) -> None:
        """Raise with the first layer that is not finite, found by a pass at the first node that has one."""
        node = int((~values.isfinite()).any(1).nonzero()[0])
        where = f"alpha = {float(chunk.alpha[node]):.4g}"
        inputs = leaves_at(self.forward.path, chunk.alpha[node : node + 1])
        if not all(bool(leaf.isfinite().all()) for leaf in inputs):
            raise ValueError(
                f"the model's input is not finite at {where}: `inputs`, `baselines` or the path's own settings hold "
                "NaN or infinity."
            )
        broken: list[Site] = []

        def visit(site: Site, tensor: Tensor) -> Tensor:
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                broken.append(site)
            return tensor

        with torch.no_grad():
            self.forward(inputs, 1, visit)
        if broken:
            raise ValueError(
                f"the output of layer {broken[0]} is not finite at {where}: its weights or its input hold NaN or "
                "infinity."
            )
        raise ValueError(f"the objective is {values[node].tolist()} at {where}.")

    def _blame_gradient(self, chunk: _Chunk) -> None:
        """Raise with the layer nearest to the objective whose gradient is not finite, found by another pass."""
        watch = _GradientWatch()
        self._pass(chunk, self.survey.distinct, [watch])
        where = f"layer {watch.broken[0]}" if watch.broken else "the input"
        nodes = f"alpha = {float(chunk.alpha[0]):.4g} ... {float(chunk.alpha[-1]):.4g}"
        raise ValueError(f"the objective's gradient is not finite at {where}, {nodes}: {no_derivative(self.objective)}")
