"""A run over images and pixel orders: on any number of processes, kept on disk as it goes, until the top is stable."""

__all__ = ["Finished", "Stopped", "World", "run"]

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch.distributed as dist
from torch import Tensor

from macattr.methods.kinds import JointMethod, Method, PathMethod, SampleMethod, is_ordered
from macattr.methods.provenance import describe, hash_tensors
from macattr.methods.readings import Reading, measure
from macattr.methods.samples import Item, Sample, count_samples, iterate_samples
from macattr.methods.task import Setup
from macattr.ranking.journal import Journal, Record, Unit
from macattr.statistics.stopping import Stability, StableTop
from macattr.sweep.survey import survey


@dataclass(frozen=True)
class Finished:
    """A run's result.

    Args:
        setup: With the layers that run.
        methods: What was read.
        records: For every image and pixel order; the methods that have no order are in the first alone.
        joint: Scores of the methods that score once, by name.
        alias_of: For every layer, the first that returns the same tensors.
        stability: What the last look said, if the run was to stop by itself.
        available: Number of images that there were, if that was known.
    """

    setup: Setup
    methods: tuple[Method, ...]
    records: tuple[tuple[Record, ...], ...]
    joint: Mapping[str, list[float]]
    alias_of: Mapping[str, str]
    stability: Stability | None = None
    available: int | None = None


class Stopped(RuntimeError):
    """A run that ended early.

    Args:
        message: Where and why.
        finished: What was complete.
    """

    def __init__(self, message: str, finished: Finished) -> None:
        super().__init__(message)
        self.finished = finished


@dataclass(frozen=True)
class World:
    """The processes that share a run.

    Args:
        rank: Number of this process.
        size: Number of processes.
    """

    rank: int
    size: int

    @classmethod
    def current(cls) -> "World":
        """All processes of torch.distributed's default group, or this one alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def owns(self, number: int) -> bool:
        """Whether piece of work ``number`` is this process's."""
        return number % self.size == self.rank

    def gather(self, mine: Mapping[Unit, Record]) -> dict[Unit, Record]:
        """What all processes have, in the order of the units."""
        parts: list[Mapping[Unit, Record]] = [mine]
        if self.size > 1:
            parts = [{} for _ in range(self.size)]
            dist.all_gather_object(parts, dict(mine))
        known = {unit: record for part in parts for unit, record in part.items()}
        return {unit: known[unit] for unit in sorted(known)}


def run(
    setup: Setup,
    methods: Sequence[Method],
    inputs: Tensor | Iterable[Item],
    *,
    drop_idle: bool = False,
    until: StableTop | None = None,
    parts: Path | None = None,
    step_error: bool = False,
    advance: Callable[[float], object] | None = None,
    announce: Callable[[str], object] | None = None,
) -> Finished:
    """Measure all images along all pixel orders.

    Images and orders are dealt out to the processes of torch.distributed, if there are several, and every process ends
    with the same result, which does not depend on their number (with equally many threads in each).

    Args:
        setup: What is measured, and how.
        methods: What is read.
        inputs: Images; see :func:`macattr.methods.samples.iterate_samples`. Every process must see the same.
        drop_idle: Leave out layers that do not run, with a warning, instead of refusing them.
        until: Stop when the top layers of the first method are stable.
        parts: Folder that keeps every finished image and order; a run continues from what it finds there.
        step_error: Estimate the error by the finite number of steps.
        advance: Called with the evaluations done.
        announce: Called with the name of every image.

    Raises:
        Stopped: If it fails or is interrupted after the first image was complete.
        ValueError: If there is no image, or as the methods do.
    """
    world = World.current()
    state = _Run(setup, tuple(methods), world, until, step_error, advance or _ignore)
    state.available = count_samples(inputs)
    try:
        for number, sample in enumerate(iterate_samples(inputs, setup.model)):
            if announce is not None:
                announce(sample.name)
            if number == 0:
                state.begin(sample, drop_idle, parts)
            state.visit(number, sample)
            if state.look(number + 1):
                break
        if not state.visited:
            raise ValueError("`inputs` holds no image.")
        state.records = world.gather(state.records)
        if until is not None and state.visited > 1 and not until.is_look(state.visited):
            state.judge(state.visited, until)  # a last look, now that the images have run out
        return state.finish(state.visited, state.score_jointly())
    except (Exception, KeyboardInterrupt) as error:
        complete = state.complete_images()
        if not complete or world.size > 1 or not state.each:
            raise
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        raise Stopped(f"stopped after {complete} finished images: {reason}", state.finish(complete, {})) from error


class _Run:
    """The state of a run on one process."""

    def __init__(
        self, setup: Setup, methods: tuple[Method, ...], world: World, until: StableTop | None, step_error: bool,
        advance: Callable[[float], object],
    ) -> None:  # fmt: skip
        self.setup, self.methods, self.world, self.until = setup, methods, world, until
        self.step_error, self.advance = step_error, advance
        self.records: dict[Unit, Record] = {}
        self.samples: list[Sample] = []
        self.visited = 0
        self.alias_of: dict[str, str] = {}
        self.stability: Stability | None = None
        self.journal = Journal(None, {})
        self.available: int | None = None

    def begin(self, sample: Sample, drop_idle: bool, parts: Path | None) -> None:
        """Look at the network once: which layers run, and which return the same tensor."""
        path = self.setup.path("line", sample, None, 0)
        looked = survey(
            self.setup.model, self.setup.layers, path, self.setup.options.partition(path),
            forward_args=self.setup.arguments(sample),
        )  # fmt: skip
        sites = looked.sites
        idle = [name for name in self.setup.layers if name not in sites]
        if idle and drop_idle:
            warnings.warn(f"left out {len(idle)} layers that do not run: {', '.join(idle)}.", stacklevel=4)
            kept = {name: module for name, module in self.setup.layers.items() if name in sites}
            self.setup = replace(self.setup, layers=kept)
        self.alias_of = looked.alias_groups()
        settings: dict[str, object] = {**self.setup.provenance(), **self.setup.mask_provenance()}
        settings |= {
            "methods": [method.name for method in self.methods],
            "layers": list(self.setup.layers),
            "reduction": self.setup.reduction,
            "path": describe(self.setup.walk),
            "orders": self.setup.order_count,
            "step_error": self.step_error,
            "loss": describe(self.setup.loss),
            "start_weights": hash_tensors(*(self.setup.start_weights or {}).values()),
            "forward_args": hash_tensors(*self.setup.forward_args),
        }
        self.journal = Journal(parts, settings)

    def visit(self, number: int, sample: Sample) -> None:
        """Measure this process's share of an image, or read what was kept of it."""
        self.visited += 1
        if any(isinstance(method, JointMethod) for method in self.methods):
            self.samples.append(sample)
        count = self.setup.order_count
        for index in range(count):
            unit = number, index
            if not self.world.owns(number * count + index):
                continue
            digest = hash_tensors(sample.image, sample.clean, self.setup.order(sample, index), *sample.forward_args)
            record = self.journal.read(unit)
            if record is None:
                height, width = sample.image.shape[-2:]
                readings = self._measure(unit, sample)
                record = Record(sample.name, sample.degradation, height, width, digest, readings)
                self.journal.write(unit, record)
            elif (record.name, record.sha256) != (sample.name, digest):
                raise ValueError(
                    f"image {number} is {sample.name!r}, but {str(self.journal.folder)!r} holds other data of that "
                    f"number, {record.name!r}: give the same images and orders, or another folder."
                )
            self.records[unit] = record

    def _measure(self, unit: Unit, sample: Sample) -> dict[str, Reading]:
        """Readings of all methods that look at one image at a time; those without an order at the first alone."""
        number, index = unit
        seed = int(np.random.SeedSequence([self.setup.seed, number, index]).generate_state(1)[0])
        walking = [m for m in self.methods if isinstance(m, PathMethod) and (index == 0 or is_ordered(m, self.setup))]
        order = self.setup.order(sample, index)
        readings = measure(self.setup, walking, sample, order, seed, self.advance, self.step_error)
        for method in self.methods if index == 0 else ():
            if isinstance(method, SampleMethod):
                readings[method.name] = Reading.plain(method.score(self.setup, sample), method.cost(self.setup))
                self.advance(method.cost(self.setup))
        return readings

    def look(self, images: int) -> bool:
        """Whether the top is stable after that many images."""
        if self.until is None or not self.until.is_look(images):
            return False
        self.records = self.world.gather(self.records)
        return self.judge(images, self.until).stable

    def judge(self, images: int, until: StableTop) -> Stability:
        """What the scores of the first so many images say about the top."""
        scores = [[self._first_score((image, index)) for index in self._orders()] for image in range(images)]
        self.stability = until.check(np.array(scores))
        return self.stability

    def _orders(self) -> Iterator[int]:
        """Orders of the first method."""
        yield from range(self.setup.order_count if is_ordered(self.methods[0], self.setup) else 1)

    def _first_score(self, unit: Unit) -> list[float]:
        """Scores of the first method."""
        return self.records[unit].readings[self.methods[0].name].score

    def complete_images(self) -> int:
        """Images from the first on of which all orders are measured."""
        count = 0
        while all((count, index) in self.records for index in range(self.setup.order_count)):
            count += 1
        return count

    @property
    def each(self) -> tuple[Method, ...]:
        """The methods that score one image at a time."""
        return tuple(method for method in self.methods if not isinstance(method, JointMethod))

    def score_jointly(self) -> dict[str, list[float]]:
        """Scores of the methods that look at all images together."""
        found = {}
        for method in self.methods:
            if isinstance(method, JointMethod):
                found[method.name] = [float(score) for score in method.score(self.setup, self.samples)]
                self.advance(len(self.samples) * method.cost(self.setup))
        return found

    def finish(self, images: int, joint: Mapping[str, list[float]]) -> Finished:
        """The result over the first so many images; without ``joint``, of the other methods alone."""
        records = tuple(
            tuple(self.records[image, index] for index in range(self.setup.order_count)) for image in range(images)
        )
        methods = self.methods if joint else self.each
        return Finished(self.setup, methods, records, joint, self.alias_of, self.stability, self.available)


def _ignore(_: float | int) -> None:
    """No progress bar."""
