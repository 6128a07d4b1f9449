"""The sweep: walk a path once and feed every layer's outputs and gradients into sums."""

__all__ = ["Trace", "add_calls", "trace"]

import math
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from macattr.paths.inputs import Path
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import LayerSum, StieltjesSum
from macattr.sweep.cuts import find_cuts
from macattr.sweep.guard import refuse_stochastic, undisturbed
from macattr.sweep.memory import estimate_bytes, plan, return_free_memory
from macattr.sweep.nodes import evaluate, leaves_at, repeat_argument
from macattr.sweep.probes import Site, probing
from macattr.sweep.survey import Seen, Survey, fingerprint_of, survey


@dataclass(frozen=True)
class Trace:
    """What a sweep leaves besides the sums.

    Args:
        survey: Sites, aliases and cost.
        objective_start: Objective at the first node, (B,).
        objective_end: Objective at the last node, (B,).
        input_attribution: Conductance of every model input, (B, ...) each.
        cuts: Layers that every connection from the inputs to the objective runs through.
        evaluations: Forward + backward passes over one node.
        nodes_per_batch: Nodes that shared a forward pass.
        estimated_bytes: Memory for activations, layer outputs and sums, as planned beforehand.
        seconds: Wall-clock time.
    """

    survey: Survey
    objective_start: Float[Tensor, " b"]
    objective_end: Float[Tensor, " b"]
    input_attribution: tuple[Tensor, ...]
    cuts: frozenset[str]
    evaluations: int
    nodes_per_batch: int
    estimated_bytes: int
    seconds: float

    @property
    def input_residual(self) -> Float[Tensor, " b"]:
        r"""Relative error of completeness at the input: :math:`\sum_i C_i / \Delta F - 1`, per sample.

        Between the first and the last node; NaN where the objective changes by no more than its rounding error.
        """
        total = torch.stack([part.flatten(1).sum(1, dtype=torch.float64) for part in self.input_attribution]).sum(0)
        change = self.objective_end - self.objective_start
        rounding = 1e-6 * torch.maximum(self.objective_end.abs(), self.objective_start.abs())
        return torch.where(change.abs() > rounding, total / change - 1, torch.nan)

    def values(self, layer_sum: LayerSum, layer: str) -> tuple[Tensor, ...]:
        """A layer's sum, one tensor for each tensor that it returns; calls are added up.

        Raises:
            ValueError: If its calls return different shapes, so that neurons do not correspond.
        """
        aliases = self.survey.aliases
        return add_calls({site: layer_sum.value(alias) for site, alias in aliases.items() if site.layer == layer})


def add_calls(values: Mapping[Site, Tensor]) -> tuple[Tensor, ...]:
    """Sums over the calls of one layer, one for each tensor that it returns.

    Raises:
        ValueError: If calls return different shapes, so that neurons do not correspond.
    """
    parts: dict[int, Tensor] = {}
    for site, value in values.items():
        known = parts.get(site.item)
        if known is not None and known.shape != value.shape:
            raise ValueError(
                f"layer {site.layer!r} is called several times with outputs of different shapes, "
                f"{tuple(known.shape)} and {tuple(value.shape)}: its neurons cannot be added up."
            )
        parts[site.item] = value if known is None else known + value
    return tuple(parts[index] for index in sorted(parts))


class BatchLayoutError(ValueError):
    """A layer's rows cannot be attributed to nodes."""


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
) -> Trace:
    """Feed ``sums`` with the outputs of all layers, and the objective's gradients, at all nodes of a path.

    One forward and one backward pass per node serve every layer. Gradients are folded into the sums while the backward
    pass runs, so that memory does not grow with the number of nodes. The model is left exactly as it was.

    Args:
        model: Network, or a function that calls it; returns one tensor (B, ...).
        layers: Modules to probe, by name; see :func:`macattr.layers.resolve_layers`.
        path: Where the inputs come from.
        partition: Nodes of the sweep; its tag is also that of ``Trace.input_attribution``.
        objective: Output (B, ...) to (B,); called for one node at a time, with the samples in the order of the inputs.
        sums: What to accumulate, keyed by site; read it with :meth:`Trace.values`.
        forward_args: Further positional arguments of the model; tensors whose first dimension is the batch are
            repeated for every node of a forward pass.
        internal_batch_size: Rows (nodes x samples) in one forward pass, at least one node; None chooses by memory.
        memory_budget: Bytes that activations and sums may take; layers are split over several sweeps if they need
            more. A plan by what is held; the allocator may keep more. None: no limit, one sweep.
        at_input: Probe what goes into the layers instead of what comes out.
        grad_kwargs: Passed to :func:`torch.autograd.grad`.
        advance: Called after every forward pass with the nodes done; they add up to the number of nodes.

    Raises:
        ValueError: If a layer never runs or is not finite (with layer and alpha), the objective is not one number per
            sample or mixes samples, the model is stochastic, or the budget is too small.
    """
    started = time.perf_counter()
    refuse_stochastic(model)
    looked = survey(model, layers, path, partition, forward_args=forward_args, at_input=at_input)
    ran = {seen.site.layer for seen in looked.seen}
    if missing := [name for name in layers if name not in ran]:
        raise ValueError(
            f"layer {missing[0]!r} never ran, or returned no floating-point tensor"
            + (f" (nor did {len(missing) - 1} others)" if len(missing) > 1 else "")
            + ": leave it out of `layers`."
        )
    if memory_budget is not None:
        return_free_memory()
    passes, per_batch = plan(looked, sums, len(partition.nodes), internal_batch_size, memory_budget, path)
    inputs_sum = StieltjesSum(partition.tag)
    share = len(passes)
    sweep = _Sweep(model, layers, path, partition, objective, forward_args, at_input, dict(grad_kwargs or {}), looked)
    for number, sites in enumerate(passes):
        input_sums = [inputs_sum] if number == 0 else []
        per_batch = sweep.run(
            sites,
            sums,
            input_sums,
            per_batch,
            lambda done: advance(done / share if share > 1 else done) if advance else None,
            frugal=memory_budget is not None,
        )
        for layer_sum in sums:
            for seen in sites:
                layer_sum.release(seen.site)
    for layer_sum in sums:
        for seen in looked.distinct:
            if not bool(layer_sum.value(seen.site).isfinite().all()):
                start, end = path.interval
                raise ValueError(
                    f"layer {seen.site} has outputs or gradients that are not finite between alpha = {start:.4g} and "
                    f"{end:.4g}: leave it out of `layers`."
                )
    return Trace(
        looked,
        sweep.values[0].double(),
        sweep.values[1].double(),
        tuple(inputs_sum.value(index) for index in range(sweep.input_count)),
        frozenset(name for name, sites in looked.sites.items() if len(sites) == 1 and sites[0] in sweep.cuts),
        len(partition.nodes) * len(passes),
        per_batch,
        estimate_bytes(looked, passes, sums, per_batch),
        time.perf_counter() - started,
    )


@dataclass
class _GradientWatch:
    """Notes where gradients are not finite, in the order of the backward pass; fed like a sum."""

    broken: list[Hashable] = field(default_factory=list)

    def update(self, key: Hashable, outputs: Tensor, gradients: Tensor, first: int, count: int) -> None:
        """Look at a layer's gradients."""
        if not bool(gradients.isfinite().all()):
            self.broken.append(key)

    def value(self, key: Hashable) -> Tensor:
        """There is none."""
        raise KeyError(key)

    def release(self, key: Hashable) -> None:
        """Nothing."""

    def state_bytes(self, nbytes: int) -> int:
        """Nothing."""
        return 0


@dataclass
class _Sweep:
    """One walk over the nodes for a group of sites; several walks share it."""

    model: Callable[..., Any]
    layers: Mapping[str, nn.Module]
    path: Path
    partition: Partition
    objective: Objective
    forward_args: tuple[Any, ...]
    at_input: bool
    grad_kwargs: dict[str, Any]
    looked: Survey
    values: list[Tensor] = field(default_factory=list)
    cuts: set[Site] = field(default_factory=set)
    input_count: int = 0

    def run(
        self,
        sites: list[Seen],
        sums: Sequence[LayerSum],
        input_sums: Sequence[LayerSum],
        per_batch: int,
        advance: Callable[[float], object],
        frugal: bool = False,
    ) -> int:
        """Walk over all nodes; returns how many shared a forward pass. ``frugal`` gives freed memory back."""
        nodes = self.partition.nodes
        first = 0
        with undisturbed(self.model):
            while first < len(nodes):
                alpha = nodes[first : first + per_batch]
                try:
                    self._step(alpha, first, sites, sums, input_sums)
                except BatchLayoutError as error:
                    if per_batch == 1:
                        raise ValueError(str(error)) from None
                    warnings.warn(f"{error} Nodes are evaluated one at a time.", stacklevel=4)
                    per_batch = 1
                    continue
                if frugal:
                    return_free_memory()
                advance(len(alpha))
                first += len(alpha)
        return per_batch

    def _step(
        self,
        alpha: Tensor,
        first: int,
        sites: list[Seen],
        sums: Sequence[LayerSum],
        input_sums: Sequence[LayerSum],
    ) -> None:
        """Forward and backward at some nodes, folding into the sums on the way."""
        count = len(alpha)
        wanted = {seen.site: seen for seen in sites}
        held: dict[Site, tuple[Tensor, int]] = {}
        edges: dict[Site, GradientEdge] = {}
        constants: list[Tensor] = []

        def visit(site: Site, tensor: Tensor) -> Tensor:
            seen = wanted.get(site)
            if seen is None:
                return tensor
            if tensor.shape != (seen.shape[0] * count, *seen.shape[1:]):
                raise BatchLayoutError(
                    f"layer {site}: {count} nodes give the shape {tuple(tensor.shape)}, one node gives {seen.shape}."
                )
            watched = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            if not tensor.requires_grad:
                constants.append(watched)
            held[site] = (tensor.detach(), tensor._version)
            watched.register_hook(lambda gradient: fold(site, gradient))
            if first == 0:
                edges[site] = get_gradient_edge(watched)
                self._compare(seen, tensor, count)
            return watched.clone() if seen.overwritten else watched

        def fold(site: Site, gradient: Tensor) -> None:
            output, version = held.pop(site)
            if output._version != version:
                raise RuntimeError(f"layer {site}: its output was overwritten in place in some forward passes only.")
            for layer_sum in sums:
                layer_sum.update(site, output, gradient.detach(), first, count)

        inputs = leaves_at(self.path, alpha)
        arguments = [repeat_argument(argument, self.looked.batch, count) for argument in self.forward_args]
        with probing({name: self.layers[name] for name in {site.layer for site in wanted}}, visit, self.at_input):
            output = self.model(*(leaf.clone() for leaf in inputs), *arguments)
        values = evaluate(self.objective, output, self.looked.batch, count, check=first == 0)
        if not bool(values.isfinite().all()):
            if len(sites) < len(self.looked.distinct):
                self._step(alpha, first, self.looked.distinct, [], [])
            self._blame_output(values, alpha, held)
        if first == 0:
            self.cuts |= find_cuts(values.sum(), inputs, edges)
            self.values[:1] = [values[0].detach()]
        gradients = torch.autograd.grad(
            values.sum(), [*inputs, *constants], **({"allow_unused": True} | self.grad_kwargs)
        )
        self.values[1:] = [values[-1].detach()]
        for site in list(held):
            fold(site, torch.zeros_like(held[site][0]))
        self.input_count = len(inputs)
        for index, (tensor, gradient) in enumerate(zip(inputs, gradients, strict=False)):
            known = torch.zeros_like(tensor) if gradient is None else gradient.detach()
            if input_sums and not bool(known.isfinite().all()):
                self._blame_gradient(alpha, first)
            for layer_sum in input_sums:
                layer_sum.update(index, tensor.detach(), known, first, count)

    def _compare(self, seen: Seen, tensor: Tensor, count: int) -> None:
        """Raise if the first node looks different from what the survey saw alone."""
        now = fingerprint_of(tensor[: seen.shape[0]])
        if not all(map(math.isfinite, now)):
            return
        tolerance = 0.1 if seen.low_precision else 1e-2 if tensor.is_cuda else 1e-4  # CUDA may round to TF32
        difference = max((abs(a - b) for a, b in zip(now, seen.fingerprint, strict=True)), default=0.0)
        largest = max(map(abs, seen.fingerprint), default=0.0)
        if difference > tolerance * largest + 1e-12:
            reason = "does not keep the batch first" if count > 1 else "is not deterministic"
            raise BatchLayoutError(
                f"layer {seen.site} {reason}: its output at the first node changes by {difference:.2g} (values up to "
                f"{largest:.2g}) from one forward pass to the next."
            )

    def _blame_output(self, values: Tensor, alpha: Tensor, held: dict[Site, tuple[Tensor, int]]) -> None:
        """Raise with the first layer that is not finite."""
        node = int((~values.isfinite()).any(1).nonzero()[0])
        for site, (output, _) in held.items():
            part = output.chunk(len(alpha))[node]
            if not bool(part.isfinite().all()):
                raise ValueError(
                    f"the output of layer {site} is not finite at alpha = {float(alpha[node]):.4g}: its weights or its "
                    "input hold NaN or infinity."
                )
        raise ValueError(f"the objective is {values[node].tolist()} at alpha = {float(alpha[node]):.4g}.")

    def _blame_gradient(self, alpha: Tensor, first: int) -> None:
        """Raise with the layer nearest to the objective whose gradient is not finite, found by a second look."""
        watch = _GradientWatch()
        self._step(alpha, first, self.looked.distinct, [watch], [])
        where = f"layer {watch.broken[0]}" if watch.broken else "the input"
        nodes = f"alpha = {float(alpha[0]):.4g} ... {float(alpha[-1]):.4g}"
        raise ValueError(
            f"the objective's gradient is not finite at {where}, {nodes}"
            + (
                ": a gradient magnitude with eps = 0 has none on flat patches; pass `objective=GradientMagnitude()`."
                if isinstance(self.objective, GradientMagnitude) and self.objective.eps == 0
                else ": there, the network or the objective has no derivative."
            )
        )
