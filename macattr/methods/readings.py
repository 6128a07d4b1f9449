"""One image and one pixel order: what the path methods read from as few sweeps as possible, and what that costs."""

__all__ = ["SUMS", "Reading", "Sweep", "estimate_evaluations", "measure", "plan_sweeps"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from macattr.methods.kinds import Method, PathMethod, is_ordered, walks_of
from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.methods.samples import Sample
from macattr.methods.task import PathLike, Setup, WalkName
from macattr.paths.objectives import HiddenDistance, Objective
from macattr.paths.partitions import Partition, every_second_node, tagged_partition
from macattr.paths.presets import CAPTUM_ONLY
from macattr.paths.sums import ActivationGradientSum, ActivationSum, EverySecond, GradientSum, LayerSum, StieltjesSum
from macattr.sweep.trace import Trace, trace


def _weight_at(partition: Partition, node: int) -> Tensor:
    """All the weight on one node."""
    weights = torch.zeros_like(partition.weights)
    weights[node] = 1
    return weights


SUMS: Mapping[str, Callable[[Partition], LayerSum]] = {
    "conductance": lambda partition: StieltjesSum(partition.tag),
    "mean_gradient": lambda partition: GradientSum(partition.weights),
    "start_output": lambda partition: ActivationSum(_weight_at(partition, 0)),
    "end_output": lambda partition: ActivationSum(_weight_at(partition, -1)),
    "end_gradient": lambda partition: GradientSum(_weight_at(partition, -1)),
    "end_product": lambda partition: ActivationGradientSum(_weight_at(partition, -1)),
}
"""What a sweep can accumulate, by the names that methods use."""


@dataclass(frozen=True)
class Reading:
    """What one method tells of one image and pixel order; lists have one entry a layer.

    Args:
        score: Scores.
        signed_sum: Sums over the neurons before the reduction; NaN for methods without neurons.
        step_error: Estimated error of the score by the finite number of steps; NaN where it was not asked for.
        is_cut: Whether every connection from the input to the objective runs through the layer.
        input_residual: Relative error of completeness at the input; NaN without a path.
        objective_start: Objective at the start of the path.
        objective_end: Objective at its end.
        order_seed: Seed of the random pixel order.
        evaluations: Forward + backward passes of the sweeps that it was read from; shared ones count for each method.
        estimated_bytes: Memory for activations, outputs and sums, as planned beforehand.
    """

    score: list[float]
    signed_sum: list[float]
    step_error: list[float]
    is_cut: list[bool]
    input_residual: float
    objective_start: float
    objective_end: float
    order_seed: int
    evaluations: int
    estimated_bytes: int

    @classmethod
    def plain(cls, score: Sequence[float], evaluations: int) -> "Reading":
        """Scores of a method that walks no path."""
        unknown = [math.nan] * len(score)
        known = [float(value) for value in score]
        nan = math.nan
        return cls(known, unknown, unknown, [False] * len(score), nan, nan, nan, -1, evaluations, 0)


@dataclass(frozen=True)
class Sweep:
    """One walk along a path, and the methods that read from it.

    Args:
        walk: Name of the path, or a function from image to path.
        hidden_loss: Whether the objective is the loss on the hidden pixels.
        only_ends: Whether the two ends of the path are enough.
        methods: Who reads from it.
    """

    walk: WalkName | PathLike
    hidden_loss: bool
    only_ends: bool
    methods: tuple[PathMethod, ...]

    def evaluations(self, setup: Setup) -> int:
        """Nodes."""
        return 2 if self.only_ends else setup.options.n_nodes

    @property
    def ordered(self) -> bool:
        """Whether it depends on a pixel order."""
        return self.walk in ("mask", "twin")


def plan_sweeps(methods: Sequence[PathMethod], setup: Setup) -> list[Sweep]:
    """The fewest sweeps from which all methods can be read: one for every path and objective.

    A method that looks at the ends, or the end alone, reads from a sweep along all nodes where that visits them.
    """
    options = setup.options
    exact_ends = options.include_end and options.gate != "one_sided" and options.method not in CAPTUM_ONLY
    readers: dict[tuple[WalkName | PathLike, bool, bool], list[PathMethod]] = {}
    for method in (m for m in methods if m.reads == "path"):
        for walk in walks_of(method, setup):
            readers.setdefault((walk, method.hidden_loss, False), []).append(method)
    for method in (m for m in methods if m.reads != "path"):
        for walk in walks_of(method, setup):
            hosts = [key for key in readers if not key[1] and (key[2] or exact_ends)]
            fitting = [key for key in hosts if key[0] == walk or (method.reads == "end" and _ends_at_image(key[0]))]
            readers.setdefault((fitting or [(walk, False, True)])[0], []).append(method)
    return [Sweep(*key, tuple(methods)) for key, methods in readers.items()]


def _ends_at_image(walk: WalkName | PathLike) -> bool:
    """Whether a path ends at the image itself."""
    return walk in ("mask", "twin", "line", "tail", "blur")


def estimate_evaluations(methods: Sequence[Method], setup: Setup, images: int) -> tuple[int, int]:
    """Evaluations (forward + backward passes over one image) of a run, and how many more without shared sweeps.

    nodes x images x pixel orders for every sweep, plus what the methods without a path need. So a mask path of 30 steps
    with 4 pixel orders on 70 images takes 31 x 4 x 70 = 8680, for one method or for all that walk it.

    Args:
        methods: What is read.
        setup: Path, steps and pixel orders.
        images: Number of images.
    """
    walking = [method for method in methods if isinstance(method, PathMethod)]
    ordered = [method for method in walking if is_ordered(method, setup)]
    repeats = setup.order_count - 1

    def nodes(some: Sequence[PathMethod]) -> int:
        return sum(sweep.evaluations(setup) for sweep in plan_sweeps(some, setup))

    shared = nodes(walking) + repeats * nodes(ordered)
    alone = sum(nodes([method]) for method in walking) + repeats * sum(nodes([method]) for method in ordered)
    rest = sum(method.cost(setup) for method in methods if not isinstance(method, PathMethod))
    return (shared + rest) * images, (alone - shared) * images


def measure(
    setup: Setup,
    methods: Sequence[PathMethod],
    sample: Sample,
    order: Tensor | None,
    seed: int,
    advance: Callable[[float], object] | None = None,
    step_error: bool = False,
) -> dict[str, Reading]:
    """Readings of all path methods on one image along one pixel order.

    Args:
        setup: What is measured, and how.
        methods: Who reads.
        sample: The image.
        order: Pixel order, or None for a random one from ``seed``.
        seed: Seed of the random order.
        advance: Called with the evaluations done.
        step_error: Also estimate the error by the finite number of steps, from every second node of the same sweep.

    Raises:
        ValueError: As :func:`macattr.sweep.trace.trace`.
    """
    found: dict[str, list[Reading]] = {method.name: [] for method in methods}
    for sweep in plan_sweeps(methods, setup):
        for name, reading in _read(setup, sweep, sample, order, seed, advance, step_error).items():
            found[name].append(reading)
    return {name: _mean(readings) for name, readings in found.items()}


def _read(
    setup: Setup,
    sweep: Sweep,
    sample: Sample,
    order: Tensor | None,
    seed: int,
    advance: Callable[[float], object] | None,
    step_error: bool,
) -> dict[str, Reading]:
    """Walk once; readings of all methods of the sweep."""
    path = setup.path(sweep.walk, sample, order, seed)
    partition = setup.options.partition(path)
    if sweep.only_ends:
        partition = tagged_partition(path.interval, 1, "right")
    objective: Objective = setup.options.objective
    if sweep.hidden_loss:
        hidden = setup.mask_path(sample, order, seed, twin=sweep.walk == "twin").hidden()
        objective = HiddenDistance(setup.clean(sample, "the loss on hidden pixels"), hidden)
    names = {need for method in sweep.methods for need in method.needs}
    if any(REDUCTIONS[method.reduction or setup.reduction].needs_output for method in sweep.methods):
        names.add("end_output")
    sums = {name: SUMS[name](partition) for name in sorted(names)}
    if step_error and not sweep.only_ends:
        half = every_second_node(partition, path.interval, path.groups)
        refined = {need for method in sweep.methods if method.reads == "path" for need in method.needs}
        sums |= {f"half_{name}": EverySecond(SUMS[name](half)) for name in sorted(refined)}
    result = trace(
        setup.model, setup.layers, path, partition, objective, list(sums.values()),
        forward_args=setup.arguments(sample), internal_batch_size=setup.internal_batch_size,
        memory_budget=setup.memory_budget, advance=advance,
    )  # fmt: skip
    values = {name: [result.values(layer_sum, layer)[0] for layer in setup.layers] for name, layer_sum in sums.items()}
    return {
        method.name: _reading(method, setup, result, values, seed if sweep.ordered else -1) for method in sweep.methods
    }


def _reading(method: PathMethod, setup: Setup, result: Trace, values: Mapping[str, list[Tensor]], seed: int) -> Reading:
    """One method's reading of a finished sweep."""
    reduction = method.reduction or setup.reduction
    scores, signed, errors = [], [], []
    for index, module in enumerate(setup.layers.values()):
        at_layer = {name: tensors[index] for name, tensors in values.items()}
        output = at_layer.get("end_output")
        neurons = method.neurons(at_layer)
        scores.append(reduce_neurons(reduction, neurons, module, output))
        signed.append(float(neurons.sum(dtype=torch.float64)))
        coarse = {name.removeprefix("half_"): value for name, value in at_layer.items() if name.startswith("half_")}
        known = method.reads == "path" and coarse.keys() >= set(method.needs)
        half = reduce_neurons(reduction, method.neurons(coarse), module, output) if known else math.nan
        errors.append(abs(half - scores[-1]) / (2**setup.options.order_of_convergence - 1))
    return Reading(
        scores,
        signed,
        errors,
        [name in result.cuts for name in setup.layers],
        float(result.input_residual[0]),
        float(result.objective_start[0]),
        float(result.objective_end[0]),
        seed,
        result.evaluations,
        result.estimated_bytes,
    )


def _mean(readings: Sequence[Reading]) -> Reading:
    """One reading of several walks: the mean of the scores, of errors the mean too, of cost the sum."""
    if len(readings) == 1:
        return readings[0]

    def mean(name: str) -> list[float]:
        columns = zip(*(getattr(reading, name) for reading in readings), strict=True)
        return [sum(column) / len(readings) for column in columns]

    residual = sum(reading.input_residual for reading in readings) / len(readings)
    return replace(
        readings[0],
        score=mean("score"),
        signed_sum=mean("signed_sum"),
        step_error=mean("step_error"),
        input_residual=residual,
        evaluations=sum(reading.evaluations for reading in readings),
        estimated_bytes=max(reading.estimated_bytes for reading in readings),
    )
