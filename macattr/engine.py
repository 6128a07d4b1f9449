"""The sweep: walk a path once and feed every layer's outputs and gradients into sums."""

__all__ = ["Survey", "Trace", "add_calls", "objective_at", "survey", "sweep_activations", "trace"]

import ctypes
import math
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge, saved_tensors_hooks

from macattr.paths.inputs import Path
from macattr.paths.objectives import GradientMagnitude, Objective
from macattr.paths.partitions import Partition
from macattr.paths.sums import GradientSum, LayerSum, StieltjesSum
from macattr.probes import Site, probing

STOCHASTIC = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
BATCH_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
ROWS_ON_CPU = 4
CHUNK_BYTES_ON_CPU = 8 << 30


@dataclass(frozen=True)
class Seen:
    """What one forward pass shows of a probed tensor.

    Args:
        site: Layer, call and tensor.
        shape: Its shape at one node.
        nbytes: Its memory at one node.
        alias_of: The first site that is the very same tensor, or the site itself.
        overwritten: Whether a later in-place operation destroys its values.
        fingerprint: Some of its values.
        low_precision: Whether it has fewer than 32 bits.
    """

    site: Site
    shape: tuple[int, ...]
    nbytes: int
    alias_of: Site
    overwritten: bool
    fingerprint: tuple[float, ...]
    low_precision: bool


@dataclass(frozen=True)
class Survey:
    """What one forward pass at the start of the path tells about cost and layers.

    Args:
        seen: Every probed tensor in the order of execution.
        saved_bytes: Memory that autograd keeps for the backward pass of one node.
        batch: Samples at one node.
    """

    seen: tuple[Seen, ...]
    saved_bytes: int
    batch: int

    @property
    def aliases(self) -> dict[Site, Site]:
        """Every site with the first site that is the same tensor."""
        return {seen.site: seen.alias_of for seen in self.seen}

    @property
    def distinct(self) -> list[Seen]:
        """Probed tensors without repetitions."""
        return [seen for seen in self.seen if seen.alias_of == seen.site]

    @property
    def sites(self) -> dict[str, list[Site]]:
        """For every layer, the distinct sites that it returns, one for each call and tensor."""
        found: dict[str, list[Site]] = {}
        for site, alias in self.aliases.items():
            found.setdefault(site.layer, []).append(alias)
        return found

    def alias_groups(self) -> dict[str, str]:
        """For every layer, the first layer to return the same tensors."""
        canonical: dict[tuple[Site, ...], str] = {}
        return {name: canonical.setdefault(tuple(found), name) for name, found in self.sites.items()}

    @property
    def working_bytes(self) -> int:
        """Memory of one node's passes with no layer kept: what autograd saves, and as much for temporaries."""
        return 2 * self.saved_bytes

    @property
    def output_bytes(self) -> int:
        """Memory of all distinct layer outputs at one node."""
        return sum(seen.nbytes for seen in self.distinct)


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


@contextmanager
def undisturbed(model: Callable[..., Any]) -> Iterator[None]:
    """Gradients on, weights without gradients, and everything as before afterwards, random state included."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    required = [parameter.requires_grad for parameter in parameters]
    buffers = list(model.buffers()) if isinstance(model, nn.Module) else []
    stored = [(buffer, buffer._version, buffer.clone()) for buffer in buffers if not buffer.is_inference()]
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(_cuda_devices(model)):
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in zip(parameters, required, strict=True):
                parameter.requires_grad_(flag)
            with torch.no_grad():
                for buffer, version, values in stored:
                    if buffer._version != version:
                        buffer.copy_(values)


def _cuda_devices(model: Callable[..., Any]) -> list[int]:
    """GPUs that the model lives on."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return sorted({parameter.device.index for parameter in parameters if parameter.device.type == "cuda"})


def _random_state(devices: list[int]) -> list[Tensor]:
    """States of the default generators."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def refuse_stochastic(model: Callable[..., Any]) -> None:
    """Raise where training mode would make the path noise instead of a curve."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else []:
        random = isinstance(module, STOCHASTIC) and module.p > 0
        mixing = isinstance(module, BATCH_MIXING)
        if mixing and not module.training and module.running_mean is None:
            raise ValueError(f"{type(module).__name__} {name!r} has no running statistics: it mixes the batch.")
        if module.training and (random or mixing):
            effect = "draws random numbers" if random else "mixes the batch"
            raise ValueError(
                f"the model is in training mode and its {type(module).__name__} {name!r} {effect}: call `model.eval()`."
            )


def survey(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    *,
    forward_args: tuple[Any, ...] = (),
    at_input: bool = False,
) -> Survey:
    """Sites, aliases and memory, from one forward pass at the first node.

    Args:
        model: Network or function.
        layers: Modules to probe, by name.
        path: Where the inputs come from.
        partition: Its first node is looked at.
        forward_args: Further positional arguments of the model.
        at_input: Probe what goes into the layers instead of what comes out.

    Raises:
        ValueError: If a layer returns no floating-point tensor.
    """
    tensors: dict[Site, tuple[Tensor, int, Hashable, tuple[float, ...]]] = {}
    saved: dict[int, int] = {}

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            if tensor.dim() == 0:
                raise ValueError(f"layer {site} returns a single number, without neurons: leave it out of `layers`.")
            edge = get_gradient_edge(tensor) if tensor.requires_grad else None
            same = (tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride()) if edge is None else edge[:2]
            tensors[site] = (tensor.detach(), tensor._version, same, _fingerprint(tensor))
        return tensor

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep the graph, which keeps the tensor

    with undisturbed(model):
        inputs = _leaves(path, partition.nodes[:1])
        for parameter in model.parameters() if isinstance(model, nn.Module) else []:
            saved[parameter.untyped_storage().data_ptr()] = 0
        weights = set(saved)
        with saved_tensors_hooks(pack, lambda tensor: tensor), probing(layers, visit, at_input):
            arguments = [_repeat(argument, inputs[0].shape[0], 1) for argument in forward_args]
            devices = _cuda_devices(model)
            before = _random_state(devices)
            model(*(leaf.clone() for leaf in inputs), *arguments)
        if not all(map(torch.equal, before, _random_state(devices))):
            raise ValueError(
                "the model draws random numbers: call `model.eval()`, and switch off what still is random."
            )
        first: dict[Hashable, Site] = {}
        seen = []
        for site, (tensor, version, same, fingerprint) in tensors.items():
            seen.append(
                Seen(
                    site,
                    tuple(tensor.shape),
                    tensor.nbytes,
                    first.setdefault(same, site),
                    tensor._version != version,
                    fingerprint,
                    tensor.element_size() < 4,
                )
            )
    saved_bytes = sum(nbytes for pointer, nbytes in saved.items() if pointer not in weights)
    return Survey(tuple(seen), saved_bytes, inputs[0].shape[0])


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
        _estimate_bytes(looked, passes, sums, per_batch),
        time.perf_counter() - started,
    )


def return_free_memory() -> None:
    """Give freed memory back to the system where glibc would keep it, so that a budget bounds what is held."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def plan(
    looked: Survey,
    sums: Sequence[LayerSum],
    n_nodes: int,
    internal_batch_size: int | None,
    memory_budget: float | None,
    path: Path,
) -> tuple[list[list[Seen]], int]:
    """Which sites to sum in which sweep, and how many nodes share a forward pass.

    Raises:
        ValueError: If ``internal_batch_size`` is below 1 or the budget does not hold one layer.
    """
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"`internal_batch_size` must be at least 1, got {internal_batch_size}.")
    node_bytes = looked.working_bytes + looked.output_bytes
    if internal_batch_size is not None:
        per_batch = max(1, internal_batch_size // looked.batch)
    elif torch.cuda.is_available() and path.at(torch.zeros(1))[0].is_cuda:
        device = path.at(torch.zeros(1))[0].device
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
        state = sum(s.state_bytes(looked.output_bytes) for s in sums)
        per_batch = int(max(0, 0.6 * free - state) // node_bytes)
    else:
        per_batch = min(ROWS_ON_CPU // looked.batch, CHUNK_BYTES_ON_CPU // max(1, node_bytes))
    per_batch = max(1, min(per_batch, n_nodes))
    if memory_budget is None:
        return [looked.distinct], per_batch

    def need(seen: Seen) -> int:
        return seen.nbytes + sum(s.state_bytes(seen.nbytes) - seen.nbytes for s in sums)

    sums_bytes = len(sums) * looked.output_bytes  # the sums of all layers stay until the end
    room = memory_budget - looked.working_bytes - sums_bytes
    largest = max(need(seen) for seen in looked.distinct)
    if largest > room:
        raise ValueError(
            f"`memory_budget` of {memory_budget / 2**20:.0f} MiB is too small: one node keeps "
            f"{looked.working_bytes / 2**20:.0f} MiB, all sums take {sums_bytes / 2**20:.0f} MiB, the largest layer "
            f"needs {largest / 2**20:.0f} MiB more."
        )
    passes: list[list[Seen]] = [[]]
    taken = 0
    for seen in looked.distinct:
        if taken + need(seen) > room:
            passes.append([])
            taken = 0
        passes[-1].append(seen)
        taken += need(seen)
    spare = room - max(sum(need(seen) for seen in group) for group in passes)
    return passes, max(1, min(per_batch, 1 + int(spare // node_bytes)))


def _estimate_bytes(looked: Survey, passes: list[list[Seen]], sums: Sequence[LayerSum], per_batch: int) -> int:
    """Activations and layer outputs of a batch of nodes, and the sums of the largest sweep."""
    largest = max(sum(seen.nbytes for seen in group) for group in passes)
    return per_batch * (looked.working_bytes + largest) + sum(layer_sum.state_bytes(largest) for layer_sum in sums)


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

        inputs = _leaves(self.path, alpha)
        arguments = [_repeat(argument, self.looked.batch, count) for argument in self.forward_args]
        with probing({name: self.layers[name] for name in {site.layer for site in wanted}}, visit, self.at_input):
            output = self.model(*(leaf.clone() for leaf in inputs), *arguments)
        values = evaluate(self.objective, output, self.looked.batch, count, check=first == 0)
        if not bool(values.isfinite().all()):
            if len(sites) < len(self.looked.distinct):
                self._step(alpha, first, self.looked.distinct, [], [])
            self._blame_output(values, alpha, held)
        if first == 0:
            self.cuts |= _find_cuts(values.sum(), inputs, edges)
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
        now = _fingerprint(tensor[: seen.shape[0]])
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


def evaluate(objective: Objective, output: Any, batch: int, count: int, check: bool = False) -> Float[Tensor, "k b"]:
    """Objective at every node, one node at a time.

    Args:
        objective: (B, ...) to (B,).
        output: What the model returned for ``count`` nodes of ``batch`` samples.
        batch: Samples at a node.
        count: Nodes.
        check: Also make sure that the objective does not mix samples.

    Raises:
        ValueError: If output or objective are of the wrong kind, or samples are mixed.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"the model must return one tensor, got {type(output).__name__}: wrap it in a function.")
    if not output.requires_grad:
        raise ValueError("the model's output does not depend on its inputs differentiably.")
    if output.dim() == 0 or output.shape[0] != batch * count:
        raise ValueError(f"the model must return (B, ...), got shape {tuple(output.shape)} for {batch * count} rows.")
    wide = output if output.element_size() >= 4 else output.float()
    values = []
    for part in wide.chunk(count):
        value = objective(part)
        if not isinstance(value, Tensor) or value.shape != (batch,):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the objective must return one number per sample, shape ({batch},), got {shape}.")
        if not value.requires_grad:
            raise ValueError("the objective does not depend on the output differentiably: it has no gradient.")
        values.append(value)
    if check and batch > 1:
        alone = wide[:batch].detach().requires_grad_()  # the output itself may be a probed tensor, with its hook
        (gradient,) = torch.autograd.grad(objective(alone)[0], alone)
        if bool(gradient[1:].abs().sum() > 0):
            raise ValueError("the objective mixes the batch: a sample's value must depend on that sample alone.")
    return torch.stack(values)


def sweep_activations(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    partition: Partition,
    objective: Objective,
    *,
    forward_args: tuple[Any, ...] = (),
    internal_batch_size: int | None = None,
    at_input: bool = False,
    grad_kwargs: Mapping[str, Any] | None = None,
    advance: Callable[[float], object] | None = None,
) -> dict[Site, tuple[Tensor, Tensor]]:
    """Mean gradients while all layers together walk a straight line between their own values at the path's two ends.

    The network runs on the input at the path's end, with the layers' tensors replaced; arguments as in :func:`trace`.

    Returns:
        For every site, the weighted mean of the gradient and the difference of the layer's values between the ends.

    Raises:
        ValueError: If ``internal_batch_size`` is below 1, a layer never runs, or objective or gradient are not finite.

    Warns:
        UserWarning: If a layer does not keep the batch first: nodes are then evaluated one at a time.
    """
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"`internal_batch_size` must be at least 1, got {internal_batch_size}.")
    refuse_stochastic(model)
    with undisturbed(model):
        start, end = (
            _record(model, layers, path, position[None], forward_args, at_input)
            for position in torch.tensor(path.interval, dtype=torch.float64)
        )
        if missing := set(layers) - {site.layer for site in end}:
            raise ValueError(f"layer {sorted(missing)[0]!r} never ran: leave it out.")
        inputs = _leaves(path, torch.tensor(path.interval[1:], dtype=torch.float64))
        batch = inputs[0].shape[0]
        per_batch = min(max(1, (internal_batch_size or ROWS_ON_CPU) // batch), len(partition.nodes))
        if per_batch > 1:
            ends = torch.full((per_batch,), path.interval[1], dtype=torch.float64)
            together = _record(model, layers, path, ends, forward_args, at_input)
            wrong = [site for site in end if not _repeats(together[site], end[site], per_batch)]
            if wrong:
                warnings.warn(
                    f"layer {wrong[0]} does not keep the batch first. Nodes are evaluated one at a time.", stacklevel=4
                )
                per_batch = 1
        mean = GradientSum(partition.weights)
        unit = (partition.nodes - path.interval[0]) / (path.interval[1] - path.interval[0])
        for first in range(0, len(unit), per_batch):
            alpha = unit[first : first + per_batch].tolist()
            leaves: dict[Site, Tensor] = {}

            def replace(
                site: Site, tensor: Tensor, alpha: list[float] = alpha, leaves: dict[Site, Tensor] = leaves
            ) -> Tensor:
                if site not in end:
                    return tensor
                line = torch.cat([start[site] + position * (end[site] - start[site]) for position in alpha])
                leaves[site] = line.requires_grad_()
                return leaves[site].clone()

            arguments = [_repeat(argument, batch, len(alpha)) for argument in (*inputs, *forward_args)]
            with probing(layers, replace, at_input):
                output = model(*(argument.clone() for argument in arguments[: len(inputs)]), *arguments[len(inputs) :])
            values = evaluate(objective, output, batch, len(alpha), check=first == 0)
            if not bool(values.isfinite().all()):
                raise ValueError(
                    f"the objective is not finite at alpha = {alpha[0]:.4g} ... {alpha[-1]:.4g} of the line."
                )
            gradients = torch.autograd.grad(
                values.sum(), list(leaves.values()), **({"allow_unused": True} | dict(grad_kwargs or {}))
            )
            for (site, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                known = torch.zeros_like(leaf) if gradient is None else gradient.detach()
                if not bool(known.isfinite().all()):
                    raise ValueError(f"the objective's gradient is not finite at layer {site}.")
                mean.update(site, leaf.detach(), known, first, len(alpha))
            if advance:
                advance(len(alpha))
    return {site: (mean.value(site), end[site] - start[site]) for site in end}


def objective_at(
    model: Callable[..., Any], path: Path, alpha: float, objective: Objective, forward_args: tuple[Any, ...] = ()
) -> Float[Tensor, " b"]:
    """Objective of every sample at one position of the path.

    Args:
        model: Network, or a function that calls it.
        path: Path through its inputs.
        alpha: Position, within the path's interval.
        objective: What of the output is explained, (B, ...) to (B,).
        forward_args: Further positional arguments of the model.
    """
    with undisturbed(model):
        inputs = _leaves(path, torch.tensor([alpha], dtype=torch.float64))
        arguments = [_repeat(argument, inputs[0].shape[0], 1) for argument in forward_args]
        output = model(*(leaf.clone() for leaf in inputs), *arguments)
        return evaluate(objective, output, inputs[0].shape[0], 1)[0].detach()


def _record(
    model: Callable[..., Any],
    layers: Mapping[str, nn.Module],
    path: Path,
    alpha: Tensor,
    forward_args: tuple[Any, ...],
    at_input: bool,
) -> dict[Site, Tensor]:
    """Values of the layers at some positions of the path."""
    recorded: dict[Site, Tensor] = {}

    def visit(site: Site, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            recorded[site] = tensor.detach().clone()
        return tensor

    inputs = path.at(alpha)
    arguments = [_repeat(argument, len(inputs[0]) // len(alpha), len(alpha)) for argument in forward_args]
    with torch.no_grad(), probing(layers, visit, at_input):
        model(*(tensor.clone() for tensor in inputs), *arguments)
    return recorded


def _repeats(together: Tensor, alone: Tensor, count: int) -> bool:
    """Whether rows that belong to ``count`` equal nodes are that many times those of one node."""
    if together.shape != (alone.shape[0] * count, *alone.shape[1:]):
        return False
    tolerance = 0.1 if alone.element_size() < 4 else 1e-3
    scale = float(alone.abs().max()) if alone.numel() else 0.0
    if not math.isfinite(scale):
        return True  # what is not finite is found later
    return torch.allclose(together.reshape(count, *alone.shape), alone, rtol=0, atol=tolerance * scale + 1e-12)


def _leaves(path: Path, alpha: Tensor) -> tuple[Tensor, ...]:
    """Model inputs at some nodes, ready for gradients."""
    leaves = tuple(tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in path.at(alpha))
    if not all(leaf.is_floating_point() for leaf in leaves):
        raise ValueError("inputs must be floating-point tensors: integers have no path and no gradient.")
    return leaves


def _fingerprint(tensor: Tensor) -> tuple[float, ...]:
    """Up to 64 values, evenly spread over the tensor."""
    count = min(64, tensor.numel())
    places = torch.linspace(0, tensor.numel() - 1, count, dtype=torch.float64).round().long().to(tensor.device)
    return tuple(tensor.detach()[torch.unravel_index(places, tensor.shape)].double().tolist()) if count else ()


def _repeat(argument: Any, batch: int, count: int) -> Any:
    """A forward argument for ``count`` nodes; inference tensors are copied because no backward pass can keep them."""
    if not isinstance(argument, Tensor):
        return argument
    normal = argument.clone() if argument.is_inference() else argument
    if count > 1 and argument.dim() and argument.shape[0] == batch:
        return normal.repeat(count, *[1] * (argument.dim() - 1))
    return normal


def _find_cuts(root: Tensor, inputs: Sequence[Tensor], edges: Mapping[Site, GradientEdge]) -> set[Site]:
    """Tensors through which every connection from the inputs runs: they carry all paths of the graph.

    The number of paths through a tensor is (paths from the root to it) x (paths from its node to the inputs); exact
    integers. A node with several outputs has several tensors.
    """
    start = root.grad_fn
    order: list[Node] = []
    visited: set[Node | None] = set()
    stack: list[tuple[Node, bool]] = [(start, False)] if start is not None else []
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    to_inputs: dict[Node, int] = {get_gradient_edge(tensor).node: 1 for tensor in inputs}
    for node in order:
        if node not in to_inputs:
            to_inputs[node] = sum(to_inputs[child] for child, _ in node.next_functions if child is not None)
    from_root = dict.fromkeys(order, 0)
    from_root_to: dict[tuple[Node, int], int] = {}
    if start is not None:
        from_root[start] = from_root_to[start, root.output_nr] = 1
    for node in reversed(order):
        for child, output in node.next_functions:
            if child is not None:
                from_root[child] += from_root[node]
                from_root_to[child, output] = from_root_to.get((child, output), 0) + from_root[node]
    total = to_inputs.get(start, 0) if start is not None else 0
    return {
        site
        for site, edge in edges.items()
        if total and from_root_to.get((edge.node, edge.output_nr), 0) * to_inputs.get(edge.node, 0) == total
    }
