"""Readings: the scores of path methods on one trial, from as few sweeps as possible, and what these cost."""

__all__ = ["SUMS", "Reading", "Sweep", "estimate_evaluations", "measure", "plan_sweeps"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from macattr.methods.kinds import Method, PathMethod, is_ordered, walks_of
from macattr.methods.objectives import hidden_loss, objective_of
from macattr.methods.reductions import REDUCTIONS, reduce_neurons
from macattr.methods.task import Task, Trial
from macattr.methods.walks import Walk
from macattr.paths.inputs import MaskAttributePath, Path
from macattr.paths.objectives import Objective, OutputSum
from macattr.paths.partitions import Partition, can_coarsen, every_nth_node, tagged_partition
from macattr.paths.presets import CAPTUM_ONLY
from macattr.paths.sums import (
    ActivationGradientSum,
    ActivationSum,
    EveryNth,
    GradientSum,
    LayerSum,
    StieltjesSum,
)
from macattr.statistics.step_errors import LEAST_ORDER, cautious_step_error, observed_order, step_error
from macattr.sweep.calls import CallsName, apart, join_calls
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
"""Sums that a sweep can accumulate, by the names that methods use."""


@dataclass(frozen=True)
class Reading:
    """The result of one method on one trial; lists have one entry for each layer.

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
        objective_variation: Sum of the objective's absolute changes from node to node.
        step_order: Order of convergence that was observed for the step errors; NaN where they are a lower bound.
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
    objective_variation: float = math.nan
    step_order: float = math.nan

    @classmethod
    def plain(cls, score: Sequence[float], evaluations: int) -> "Reading":
        """Scores of a method that walks no path."""
        unknown = [math.nan] * len(score)
        return cls(
            score=[float(value) for value in score],
            signed_sum=unknown,
            step_error=unknown,
            is_cut=[False] * len(score),
            input_residual=math.nan,
            objective_start=math.nan,
            objective_end=math.nan,
            order_seed=-1,
            evaluations=evaluations,
            estimated_bytes=0,
        )


@dataclass(frozen=True)
class Route:
    """A walk and the objective along it: methods with the same route share its sweep.

    Args:
        walk: The path.
        hidden_loss: Whether the objective is the loss on the hidden pixels.
        only_ends: Whether the two ends of the path are enough.
    """

    walk: Walk
    hidden_loss: bool = False
    only_ends: bool = False


@dataclass(frozen=True)
class Sweep:
    """One pass over the nodes of a route, and the methods that read from it.

    Args:
        route: The walk and its objective.
        methods: Methods that read from it.
    """

    route: Route
    methods: tuple[PathMethod, ...]

    def evaluations(self, task: Task) -> int:
        """Number of nodes."""
        return 2 if self.route.only_ends else task.preset.n_nodes

    def path(self, trial: Trial) -> Path:
        """The path of a trial."""
        return self.route.walk.path(trial)

    def partition(self, task: Task, path: Path) -> Partition:
        """Nodes on a path."""
        return (
            tagged_partition(path.interval, 1, "right")
            if self.route.only_ends
            else task.preset.partition(path, halved=task.options.step_error)
        )

    def objective(self, trial: Trial, path: Path) -> Objective:
        """Scalar function of the output whose change is attributed; the sum, which every output has, if none reads it.

        Args:
            trial: Sample and options.
            path: Its path.

        Raises:
            ValueError: If the sample has not what the objective needs.
        """
        if not any(method.reads_gradients for method in self.methods):
            return OutputSum()
        if not self.route.hidden_loss:
            return objective_of(trial, self.route.walk.place(trial), path)
        if not isinstance(path, MaskAttributePath):
            raise ValueError("the loss on hidden pixels needs a path over pixels: rank images (C, H, W).")
        return hidden_loss(trial, path, trial.sample.require_clean("the loss on hidden pixels"))

    def needs(self, reduction: str) -> set[str]:
        """Names of the sums that the methods read.

        Args:
            reduction: Reduction of the methods that have none of their own.
        """
        names = {need for method in self.methods for need in method.needs}
        needs_output = any(REDUCTIONS[method.reduction or reduction].needs_output for method in self.methods)
        return names | {"end_output"} if needs_output else names


def plan_sweeps(methods: Sequence[PathMethod], task: Task) -> list[Sweep]:
    """The fewest sweeps from which all methods can be read: one for every route.

    A method that reads the ends, or the end alone, reads from a sweep along all nodes where that visits them.

    Args:
        methods: Methods to read.
        task: Path and nodes.
    """
    preset = task.preset
    visits_ends = preset.include_end and preset.gate != "one_sided" and preset.tag not in CAPTUM_ONLY
    readers: dict[Route, list[PathMethod]] = {}
    for method in (m for m in methods if m.reads == "path"):
        for walk in walks_of(method, task):
            readers.setdefault(Route(walk, method.hidden_loss), []).append(method)
    for method in (m for m in methods if m.reads != "path"):
        for walk in walks_of(method, task):
            host = _host(readers, method, walk, visits_ends)
            readers.setdefault(host or Route(walk, only_ends=True), []).append(method)
    return [Sweep(route, tuple(sharing)) for route, sharing in readers.items()]


def _host(routes: Mapping[Route, object], method: PathMethod, walk: Walk, visits_ends: bool) -> Route | None:
    """The first route along which a method of the ends can read, if there is one."""
    for route in routes:
        visited = not route.hidden_loss and (route.only_ends or visits_ends)
        if visited and (route.walk == walk or (method.reads == "end" and route.walk.ends_at_image)):
            return route
    return None


def estimate_evaluations(methods: Sequence[Method], task: Task, images: int) -> tuple[int, int]:
    """Evaluations (forward + backward passes over one image) of a run, and how many more without shared sweeps.

    nodes x images x pixel orders for every sweep, plus the evaluations of methods without a path. So a mask path of 30
    steps with 4 pixel orders on 70 images takes 31 x 4 x 70 = 8680, for one method or for all that walk it.

    Args:
        methods: Methods to read.
        task: Path, steps and pixel orders.
        images: Number of images.
    """
    walking = [method for method in methods if isinstance(method, PathMethod)]
    ordered = [method for method in walking if is_ordered(method, task)]
    repeats = task.order_count - 1

    def nodes(some: Sequence[PathMethod]) -> int:
        return sum(sweep.evaluations(task) for sweep in plan_sweeps(some, task))

    shared = nodes(walking) + repeats * nodes(ordered)
    alone = sum(nodes([method]) for method in walking) + repeats * sum(nodes([method]) for method in ordered)
    rest = sum(method.cost(task) for method in methods if not isinstance(method, PathMethod))
    return (shared + rest) * images, (alone - shared) * images


def measure(
    trial: Trial, methods: Sequence[PathMethod], advance: Callable[[float], object] | None = None
) -> dict[str, Reading]:
    """Readings of all path methods on one trial, by name.

    Args:
        trial: The image and its pixel order. Its option ``step_error`` also estimates the error by the finite number
            of steps, from fewer nodes of the same sweep.
        methods: Methods to read.
        advance: Called with the evaluations that are done.

    Raises:
        ValueError: As :func:`macattr.sweep.trace.trace`.
    """
    readings: dict[str, list[Reading]] = {method.name: [] for method in methods}
    for sweep in plan_sweeps(methods, trial.task):
        for name, reading in _read(trial, sweep, advance).items():
            readings[name].append(reading)
    return {name: _mean(walks) for name, walks in readings.items()}


def _read(trial: Trial, sweep: Sweep, advance: Callable[[float], object] | None) -> dict[str, Reading]:
    """Walk once; readings of all methods of the sweep."""
    task, path, place = trial.task, sweep.path(trial), sweep.route.walk.place(trial)
    partition = sweep.partition(task, path)
    sums = {name: SUMS[name](partition) for name in sorted(sweep.needs(task.options.reduction))}
    coarse: dict[int, dict[str, LayerSum]] = {}
    if task.options.step_error and not sweep.route.only_ends:
        refined = {need for method in sweep.methods if method.reads == "path" for need in method.needs}
        for stride in (2, *_third_stride(partition, path)):
            fewer = every_nth_node(partition, path.interval, path.groups, stride)
            coarse[stride] = {name: EveryNth(SUMS[name](fewer), stride) for name in sorted(refined)}
    result = trace(
        place.entry,
        task.layers,
        path=path,
        partition=partition,
        objective=sweep.objective(trial, path),
        sums=[*sums.values(), *(layer_sum for some in coarse.values() for layer_sum in some.values())],
        forward_args=place.arguments,
        internal_batch_size=trial.rows,
        memory_budget=task.options.memory_budget,
        advance=advance,
        with_input=task.options.with_input_residual,
        surveys=task.surveys,
    )
    seed = trial.seed if sweep.route.walk.is_ordered else -1
    read = partial(_reading, task=task, result=result, sums=sums, coarse=coarse, seed=seed)
    return {method.name: read(method) for method in sweep.methods}


THIRD_STRIDES = (4, 5, 3, 7)
"""Strides of the third sum for a step error, the first that the number of steps in a group divides by."""


def _third_stride(partition: Partition, path: Path) -> tuple[int, ...]:
    """The stride of a third sum besides those of all and of every second node, if there is one."""
    fitting = (n for n in THIRD_STRIDES if can_coarsen(partition, path.interval, path.groups, n))
    return tuple(islice(fitting, 1))


def _reading(
    method: PathMethod,
    task: Task,
    result: Trace,
    sums: Mapping[str, LayerSum],
    coarse: Mapping[int, Mapping[str, LayerSum]],
    seed: int,
) -> Reading:
    """One method's reading of a finished sweep."""
    reduction = method.reduction or task.options.reduction
    is_refined = method.reads == "path" and all(some.keys() >= set(method.needs) for some in coarse.values())
    fewer: dict[int, list[float]] = {stride: [] for stride in coarse} if is_refined else {}
    calls, of_outputs = method.calls(task), apart(task.options.calls)
    scores, signed = [], []
    for layer, module in task.layers.items():
        neurons = method.neurons(_at(layer, result, sums, calls))
        output = _at(layer, result, sums, of_outputs).get("end_output")
        scores.append(reduce_neurons(reduction, neurons, module, output))
        signed.append(float(neurons.sum(dtype=torch.float64)))
        for stride, found in fewer.items():
            at_fewer = method.neurons(_at(layer, result, coarse[stride], calls))
            found.append(reduce_neurons(reduction, at_fewer, module, output))
    errors, observed = _step_errors(np.array(scores), fewer, task.preset.order_of_convergence)
    return Reading(
        score=scores,
        signed_sum=signed,
        step_error=errors,
        is_cut=[name in result.cuts for name in task.layers],
        input_residual=float(result.input_residual[0]),
        objective_start=float(result.objective_start[0]),
        objective_end=float(result.objective_end[0]),
        order_seed=seed,
        evaluations=result.evaluations,
        estimated_bytes=result.estimated_bytes,
        objective_variation=float(result.objective_variation[0]),
        step_order=observed,
    )


def _step_errors(scores: np.ndarray, fewer: Mapping[int, list[float]], order: int) -> tuple[list[float], float]:
    """Step errors of scores, and the order of convergence that was observed, up to that of the sum's formula."""
    if not fewer:
        return [math.nan] * len(scores), math.nan
    half = np.array(fewer[2])
    for stride in set(fewer) - {2}:
        coarsest = np.array(fewer[stride])
        observed = min(observed_order(scores, half, coarsest, stride), float(order))
        if math.isfinite(observed):
            bounded = max(observed, LEAST_ORDER)
            return cautious_step_error(scores, half, coarsest, bounded, stride).tolist(), observed
    return np.abs(step_error(scores, half, order)).tolist(), math.nan


def _at(layer: str, result: Trace, sums: Mapping[str, LayerSum], calls: CallsName) -> dict[str, Tensor]:
    """Values of the sums at a layer: those of the first tensor that it returns."""
    return {name: join_calls(result.by_site(layer_sum, layer), calls)[0] for name, layer_sum in sums.items()}


def _mean(readings: Sequence[Reading]) -> Reading:
    """One reading of several walks: means of scores, step errors and objective, the largest residual, all the cost."""
    if len(readings) == 1:
        return readings[0]

    def mean(name: str) -> list[float]:
        columns = zip(*(getattr(reading, name) for reading in readings), strict=True)
        return [sum(column) / len(readings) for column in columns]

    along = ("objective_start", "objective_end", "objective_variation")
    return replace(
        readings[0],
        score=mean("score"),
        signed_sum=mean("signed_sum"),
        step_error=mean("step_error"),
        input_residual=max((reading.input_residual for reading in readings), key=abs),
        step_order=float(np.min([reading.step_order for reading in readings])),
        **{name: sum(getattr(reading, name) for reading in readings) / len(readings) for name in along},
        evaluations=sum(reading.evaluations for reading in readings),
        estimated_bytes=max(reading.estimated_bytes for reading in readings),
    )
