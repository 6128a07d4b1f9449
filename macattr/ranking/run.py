"""A run over images and pixel orders: on any number of processes, kept on disk as it goes, until the top is stable."""

__all__ = ["RunResult", "RunStopped", "World", "run"]

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from macattr.layers.parameters import own_parameters
from macattr.methods.kinds import JointMethod, Method, PathMethod, SampleMethod, is_ordered, needs_images
from macattr.methods.readings import Reading, measure, plan_sweeps
from macattr.methods.samples import Inputs, Sample, count_samples, iterate_samples
from macattr.methods.task import Task, Trial
from macattr.methods.walks import walk_of
from macattr.paths.inputs import LinearPath
from macattr.paths.inputs import Path as WalkedPath
from macattr.paths.partitions import Partition
from macattr.ranking.journal import Journal, Record, Unit
from macattr.ranking.refusals import explained, warn_of_readings
from macattr.ranking.settings import describe_run
from macattr.statistics.stopping import Stability, StableTop
from macattr.sweep.denormals import NOTICEABLE, denormal_share, without_denormals
from macattr.sweep.places import Place, nowhere
from macattr.sweep.survey import refuse_split, survey
from macattr.user_warnings import warn_user
from macattr.weights.processes import model_groups
from macattr.weights.values import device_of

MOST_CHANNELS = 4
"""Channels that pictures have at most; tensors of more are features."""

LARGEST_FLOAT, LARGEST_BYTE = 8.0, 255.0
"""No picture in [0, 1], normalised or of high dynamic range, is wholly positive with a maximum between these."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Args:
        task: With the layers that run.
        methods: Methods that were read.
        records: For every image and pixel order; methods without an order are in the first alone.
        joint: Scores of the methods that score all images together, by name.
        alias_of: For every layer, the first that returns the same tensors.
        stability: Result of the last look at the top, if the run was to stop by itself.
        available: Number of images that there were, if that was known.
        facts: What the first look at the network showed, for the results.
        calls: For every layer, how many times it runs in a forward pass.
    """

    task: Task
    methods: tuple[Method, ...]
    records: tuple[tuple[Record, ...], ...]
    joint: Mapping[str, list[float]]
    alias_of: Mapping[str, str]
    stability: Stability | None = None
    available: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)


class RunStopped(RuntimeError):
    """A run that ended early.

    Args:
        message: Where and why.
        result: The images that were complete.
    """

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class World:
    """The processes that share a run.

    Processes that hold one network together, each of them a part of its weights, run every piece of work in step.

    Args:
        rank: Number of this process, or of the network that it holds a part of.
        size: Number of processes, or of such networks.
        team: Numbers of the processes that hold the network together with this one, itself included.
        group: Their process group; None where every process has the whole network.
    """

    rank: int
    size: int
    team: tuple[int, ...] = (0,)
    group: dist.ProcessGroup | None = None

    @classmethod
    def around(cls, model: nn.Module) -> "World":
        """All processes of torch.distributed's default group, or this one alone.

        Args:
            model: Network, whose weights may be sharded over processes.

        Raises:
            ValueError: As :func:`macattr.weights.processes.model_groups`.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return cls(0, 1)
        size, rank = dist.get_world_size(), dist.get_rank()
        mine = {rank}.union(*map(dist.get_process_group_ranks, model_groups(model)))
        everybody: list[set[int]] = [set()] * size
        dist.all_gather_object(everybody, mine)
        teams = _merged(everybody)
        if len(teams) == size:
            return cls(rank, size, (rank,))
        if len(teams) == 1:
            return cls(0, 1, teams[0], dist.group.WORLD)
        groups = [dist.new_group(list(team)) for team in teams]  # every process takes part in making every group
        own = next(number for number, team in enumerate(teams) if rank in team)
        return cls(own, len(teams), teams[own], groups[own])

    @property
    def writes(self) -> bool:
        """Whether this process writes for its team."""
        return self.group is None or dist.get_rank(self.group) == 0

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0 and self.writes

    def of_first(self, value: Record | None) -> Record | None:
        """The record that the first process of the team has, so that all of them measure, or none.

        Args:
            value: That of this process.
        """
        if self.group is None:
            return value
        values: list[Record | None] = [value] * len(self.team)
        dist.all_gather_object(values, value, self.group)
        return values[0]

    def close(self) -> None:
        """Give back the process group that was made for the team."""
        if self.size > 1 and self.group is not None:
            dist.destroy_process_group(self.group)

    def owns(self, number: int) -> bool:
        """Whether piece of work ``number`` is this process's."""
        return number % self.size == self.rank

    def gather(self, mine: Mapping[Unit, Record]) -> dict[Unit, Record]:
        """The records of all processes, in the order of the units."""
        parts: list[Mapping[Unit, Record]] = [mine]
        if self.size > 1:
            parts = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, dict(mine))
        known = {unit: record for part in parts for unit, record in part.items()}
        return {unit: known[unit] for unit in sorted(known)}


def _merged(sets: Iterable[set[int]]) -> list[tuple[int, ...]]:
    """Sets of processes, those that share one taken together, in the order of their first process."""
    merged: list[set[int]] = []
    for new in sets:
        apart = [old for old in merged if not old & new]
        merged = [*apart, new.union(*(old for old in merged if old & new))]
    return sorted(tuple(sorted(team)) for team in merged)


def run(
    task: Task,
    methods: Sequence[Method],
    inputs: Inputs | None,
    *,
    world: World | None = None,
    advance: Callable[[float], object] | None = None,
    announce: Callable[[str], object] | None = None,
) -> RunResult:
    """Measure all images along all pixel orders.

    Images and orders are dealt out to the processes of torch.distributed, if there are several, and every process ends
    with the same result, which does not depend on their number (with equally many threads in each).

    Args:
        task: Network, layers and options.
        methods: Methods to read.
        inputs: Images; see :func:`macattr.methods.samples.iterate_samples`. Every process must see the same. None if no
            method needs any.
        world: The processes; None finds them.
        advance: Called with the evaluations that are done.
        announce: Called with the name of every image.

    Raises:
        RunStopped: If it fails or is interrupted after the first image was complete.
        ValueError: If there is no image, or as the methods do.
    """
    samples = iter(()) if inputs is None else iterate_samples(inputs, task.model)
    first = next(samples, None)
    if first is None and inputs is not None:
        raise ValueError("`inputs` holds no image.")
    with explained(task, [] if first is None else [first]):
        look = _prepare(task, methods, first)
    task = look.task
    _warn_of_denormals(task, methods)
    _warn_of_range(first)
    if first is not None and _runs_network(methods):
        warn_of_readings(task, first)
    folder = None if task.options.parts is None else Path(task.options.parts)
    progress = _Progress(
        task=task,
        methods=tuple(methods),
        world=World.around(task.model) if world is None else world,
        journal=Journal(folder, {} if folder is None else describe_run(task, methods)),
        look=look,
        advance=advance or _ignore,
    )
    progress.available = 0 if inputs is None else count_samples(inputs)
    try:
        with without_denormals(task.model, task.options.flush_denormals):
            for number, sample in enumerate(chain([] if first is None else [first], samples)):
                if announce is not None:
                    announce(sample.name)
                with explained(task, [sample]):
                    progress.visit(number, sample)
                if progress.is_stable_after(number + 1):
                    break
        return progress.complete()
    except (Exception, KeyboardInterrupt) as error:
        complete = progress.complete_images()
        if not complete or progress.world.size > 1 or not progress.each:
            raise
        images = f"{complete} finished image{'s' if complete > 1 else ''}"
        message = f"interrupted after {images}." if isinstance(error, KeyboardInterrupt) else _reason(error, images)
        raise RunStopped(message, progress.result(complete, {})) from error


def _runs_network(methods: Sequence[Method]) -> bool:
    """Whether a method runs the network on samples."""
    return any(isinstance(method, PathMethod | SampleMethod) for method in methods)


def _warn_of_denormals(task: Task, methods: Sequence[Method]) -> None:
    """Say once why every pass will be slow, and what helps."""
    share = denormal_share(task.model) if _runs_network(methods) and not task.options.flush_denormals else 0.0
    if share > NOTICEABLE:
        warn_user(
            f"{share:.2g} of the weights are denormal numbers (below 1.2e-38 in float32), which slow a CPU down many "
            "times: pass `flush_denormals=True` (`--flush-denormals`), which takes them for 0."
        )


def _warn_of_range(sample: Sample | None) -> None:
    """Say once that the first picture seems to be in bytes, 0 to 255."""
    image = None if sample is None else sample.image
    if sample is None or image is None or image.dim() != 4 or image.shape[1] > MOST_CHANNELS:
        return
    largest = float(image.max())
    if float(image.min()) >= 0 and LARGEST_FLOAT < largest <= LARGEST_BYTE:
        warn_user(
            f"{sample.name!r} holds values up to {largest:g}, as bytes do; most networks take images in [0, 1]: divide "
            "by 255, unless this network was trained on such values."
        )


def _reason(error: Exception, images: str) -> str:
    """An error in one line, its type where the message alone would say little, and how far the run had come."""
    notes = getattr(error, "__notes__", [])
    words = " ".join(" ".join([str(error), *notes]).split())
    said = words if words and isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {words}"
    return f"{said.rstrip('.: ')}. It happened after {images}."


@dataclass(frozen=True)
class _Look:
    """The first look at the network.

    Args:
        task: With the layers that run.
        alias_of: For every layer, the first that returns the same tensors.
        calls: For every layer, how many times it runs in a forward pass.
        facts: Where the path runs and which output is read, where these are not the plain ones.
    """

    task: Task
    alias_of: Mapping[str, str]
    calls: Mapping[str, int]
    facts: Mapping[str, str]


def _prepare(task: Task, methods: Sequence[Method], sample: Sample | None) -> _Look:
    """One forward pass: the layers that run, which of them return the same tensor, what the results will say.

    Without a sample nothing runs: all layers stay, each for itself.
    """
    if sample is None:
        return _Look(task, {}, {}, {})
    path, partition, place = _first_path(task.trial(sample, 0, 0), methods)
    look = survey(place.entry, task.layers, path, partition, forward_args=place.arguments, surveys=task.surveys)
    running = look.sites
    idle = [n for n in task.layers if n not in running and n not in look.split and n in task.droppable]
    used = {id(weight) for name in running for weight in own_parameters(task.layers[name]).values()}
    kept = {name: own_parameters(task.layers[name]).values() for name in idle}
    if left_out := [name for name, weights in kept.items() if not used.issuperset(map(id, weights))]:
        warn_user(f"left out {len(left_out)} layers that do not run or return no real tensor: {', '.join(left_out)}.")
    split = look.split if any(isinstance(m, PathMethod) or not m.of_parameters for m in methods) else ()
    refuse_split([name for name in split if name not in task.droppable])
    if split:
        warn_user(f"left out {len(split)} layers of which every process holds a part: {', '.join(split)}.")
    layers = {name: module for name, module in task.layers.items() if name not in (*idle, *split)}
    refuse_split(() if layers else split)
    own = place.entry.has_loss and sample.clean is None and task.options.loss is None
    labels = isinstance(sample.clean, Tensor) and not sample.clean.is_floating_point() and task.options.loss is None
    loss = "the model's own" if own else "cross-entropy to the labels" if labels else ""
    facts = {"output": place.entry.taken, "at": place.words, "loss": loss}
    return _Look(
        task=replace(task, layers=layers),
        alias_of=look.alias_groups(),
        calls={name: len({site.call for site in look.aliases if site.layer == name}) for name in running},
        facts={name: words for name, words in facts.items() if words},
    )


def _first_path(trial: Trial, methods: Sequence[Method]) -> tuple[WalkedPath, Partition, Place]:
    """The path of the first sweep, its nodes and its place; without a path the network is looked at as it is."""
    task = trial.task
    sweeps = plan_sweeps([method for method in methods if isinstance(method, PathMethod)], task)
    if sweeps:
        path = sweeps[0].path(trial)
        return path, sweeps[0].partition(task, path), sweeps[0].route.walk.place(trial)
    if trial.sample.image is not None and any("path" in method.arguments(task) for method in methods):
        path, place = walk_of("line").path(trial), trial.place
        return path, task.preset.partition(path), place
    still = torch.zeros(1, device=device_of(task.model))
    place = nowhere(task.model, *task.call_arguments(trial.sample)).reading(task.output(trial.sample))
    path = LinearPath((still,), (still,))
    return path, task.preset.partition(path), place


@dataclass
class _Progress:
    """The state of a run on one process.

    Args:
        task: Network, layers and options.
        methods: Methods to read.
        world: The processes.
        journal: Parts on disk.
        look: The first look at the network.
        advance: Called with the evaluations that are done.
        records: Finished units.
        samples: Images for the methods that score all of them together.
        visited: Number of images that were begun.
        stability: Result of the last look.
        available: Number of images that there are, if known.
    """

    task: Task
    methods: tuple[Method, ...]
    world: World
    journal: Journal
    look: "_Look"
    advance: Callable[[float], object]
    records: dict[Unit, Record] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    visited: int = 0
    stability: Stability | None = None
    available: int | None = None

    def visit(self, number: int, sample: Sample) -> None:
        """Measure this process's share of an image, or read the part that was kept of it."""
        self.visited += 1
        if any(isinstance(method, JointMethod) and needs_images(method) for method in self.methods):
            self.samples.append(sample)
        count = self.task.order_count
        for index in range(count):
            if self.world.owns(number * count + index):
                trial = self.task.trial(sample, number, index)
                self.records[number, index] = self._record((number, index), trial)

    def _record(self, unit: Unit, trial: Trial) -> Record:
        """The record of a trial, from disk or measured and kept."""
        sample, digest = trial.sample, trial.digest
        record = self.world.of_first(self.journal.read(unit))
        if record is None:
            height, width = sample.size
            record = Record(
                name=sample.name,
                degradation=sample.degradation,
                height=height,
                width=width,
                sha256=digest,
                readings=self._measure(trial),
            )
            if self.world.writes:
                self.journal.write(unit, record)
        elif (record.name, record.sha256) != (sample.name, digest):
            raise ValueError(
                f"sample {unit[0]} is {sample.name!r}, but {str(self.journal.folder)!r} holds "
                f"{'other data of that name' if record.name == sample.name else repr(record.name)} in its place: give "
                "the same samples, cropped alike and in the same order, or another folder."
            )
        return record

    def _measure(self, trial: Trial) -> dict[str, Reading]:
        """Readings of all methods that score one image at a time; those without an order on the first alone."""
        task, is_first = trial.task, trial.index == 0
        walking = [m for m in self.methods if isinstance(m, PathMethod) and (is_first or is_ordered(m, task))]
        readings = measure(trial, walking, self.advance)
        for method in self.methods if is_first else ():
            if isinstance(method, SampleMethod):
                readings[method.name] = Reading.plain(method.score(task, trial.sample), method.cost(task))
                self.advance(method.cost(task))
        for name, reading in readings.items():
            _check_scores(name, task, reading.score)
        return readings

    def is_stable_after(self, images: int) -> bool:
        """Whether the run may stop after that many images."""
        until = self.task.options.until
        if until is None or not until.is_look(images):
            return False
        self.records = self.world.gather(self.records)
        return self._look(images, until).stable

    def _look(self, images: int, until: StableTop) -> Stability:
        """Check whether the scores of the first so many images settle the top."""
        scores = [[self._first_score((image, index)) for index in self._orders()] for image in range(images)]
        self.stability = until.check(np.array(scores))
        return self.stability

    def _orders(self) -> Iterator[int]:
        """Orders of the first method."""
        yield from range(self.task.order_count if is_ordered(self.methods[0], self.task) else 1)

    def _first_score(self, unit: Unit) -> list[float]:
        """Scores of the first method."""
        return self.records[unit].readings[self.methods[0].name].score

    def complete(self) -> RunResult:
        """The result of all processes, after a last look now that the images have run out."""
        self.records = self.world.gather(self.records)
        until = self.task.options.until
        if until is not None and self.visited > 1 and not until.is_look(self.visited):
            self._look(self.visited, until)
        return self.result(self.visited, self._score_jointly())

    def complete_images(self) -> int:
        """Number of images, from the first on, of which all orders are measured."""
        count = 0
        while all((count, index) in self.records for index in range(self.task.order_count)):
            count += 1
        return count

    @property
    def each(self) -> tuple[Method, ...]:
        """The methods that score one image at a time."""
        return tuple(method for method in self.methods if not isinstance(method, JointMethod))

    def _score_jointly(self) -> dict[str, list[float]]:
        """Scores of the methods that score all images together."""
        scores = {}
        for method in self.methods:
            if isinstance(method, JointMethod):
                with explained(self.task, self.samples):
                    scores[method.name] = [float(score) for score in method.score(self.task, self.samples)]
                    _check_scores(method.name, self.task, scores[method.name])
                self.advance(len(self.samples) * method.cost(self.task))
        return scores

    def result(self, images: int, joint: Mapping[str, list[float]]) -> RunResult:
        """The result over the first so many images; without ``joint``, of the other methods alone."""
        indices = range(self.task.order_count)
        return RunResult(
            task=self.task,
            methods=self.methods if joint else self.each,
            records=tuple(tuple(self.records[image, index] for index in indices) for image in range(images)),
            joint=joint,
            alias_of=self.look.alias_of,
            facts=self.look.facts,
            calls=self.look.calls,
            stability=self.stability,
            available=self.available,
        )


def _check_scores(method: str, task: Task, scores: Sequence[float]) -> None:
    """Raise unless a method gives every layer a finite score: no mean over images may hide another one."""
    if len(scores) != len(task.layers):
        raise ValueError(f"the method {method!r} gives {len(scores)} scores for {len(task.layers)} layers.")
    for layer, score in zip(task.layers, scores, strict=True):
        if not math.isfinite(score):
            raise ValueError(
                f"the method {method!r} gives the layer {layer!r} the score {score}: its outputs, or gradients of its "
                "weights, are not finite here. Leave the image or the layer out, or compute in float32."
            )


def _ignore(_: float | int) -> None:
    """No progress bar."""
