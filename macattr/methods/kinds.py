"""Three kinds of methods: those that walk a path, those that score one image, those that score all images together."""

__all__ = [
    "JointMethod",
    "Method",
    "PathMethod",
    "SampleMethod",
    "Sums",
    "is_ordered",
    "needs_images",
    "needs_loss",
    "walks_of",
]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from macattr.methods.reductions import REDUCTIONS
from macattr.methods.samples import Sample
from macattr.methods.task import Task
from macattr.methods.walks import WALKS, Walk, walk_of
from macattr.sweep.calls import CallsName, apart

Sums = Mapping[str, Tensor]
"""Sums of a sweep at one layer, by name."""


@dataclass(frozen=True)
class PathMethod:
    """A method that walks a path and sums outputs and gradients; methods that share a path share its sweep.

    Args:
        name: Its name.
        summary: The score in one line.
        source: Its publication.
        walks: Names of its paths; the score is the mean over them. See :data:`macattr.methods.walks.WALKS`.
        needs: Names of the sums that it reads; see :data:`macattr.methods.readings.SUMS`.
        neurons: From these sums to the quantity that is reduced to a score.
        reads: All nodes of the ``path``, its two ``ends``, or the whole image at its ``end`` alone.
        reduction: The only reduction that it has; None: the user's choice.
        hidden_loss: Whether the objective is the mean absolute error, to the clean image, over the pixels hidden at
            the start of the path.
        symbol: Symbol of a neuron's value.
        adds_calls: Whether the sums of a layer that runs several times may be added up over its calls. Outputs may not,
            and products only after they are formed: with False every call has neurons of its own.
    """

    name: str
    summary: str
    source: str
    walks: tuple[str, ...]
    needs: tuple[str, ...]
    neurons: Callable[[Sums], Tensor]
    reads: Literal["path", "ends", "end"] = "path"
    reduction: str | None = None
    hidden_loss: bool = False
    symbol: str = "C"
    adds_calls: bool = True

    @property
    def reads_gradients(self) -> bool:
        """Whether the score depends on gradients, and so on what of the output is attributed."""
        return not {"start_output", "end_output"} >= set(self.needs)

    def cost(self, task: Task) -> int:
        """Evaluations for one image and pixel order if it walks alone."""
        return len(self.walks) * (task.preset.n_nodes if self.reads == "path" else 2)

    def calls(self, task: Task) -> CallsName:
        """What counts of a layer that runs several times; nothing is added up that may not be."""
        return task.options.calls if self.adds_calls else apart(task.options.calls)

    @property
    def price(self) -> str:
        """Evaluations in words."""
        nodes = f"{len(self.walks)} x (n_steps + 1)" if len(self.walks) > 1 else "n_steps + 1"
        nodes = nodes if self.reads == "path" else "2"
        ordered = self.reads != "end" and any(WALKS[walk].is_ordered for walk in self.walks)
        return f"{nodes} an image" + (" and pixel order" if ordered else "")

    def unit(self, task: Task) -> str:
        """The score as a formula of the neurons' values."""
        return REDUCTIONS[self.reduction or task.options.reduction].formula.replace("C", self.symbol)

    def arguments(self, task: Task) -> set[str]:
        """Options that have an effect on the score."""
        effective = {"with_input_residual"} if self.reads_gradients else set()
        effective |= {"objective"} if self.reads_gradients and not self.hidden_loss else set()
        effective |= {"loss"} if "objective" in effective and task.attributes_loss else set()
        effective |= {"reduction"} if self.reduction is None else set()
        effective |= {"n_steps", "tag", "include_end"} if self.reads == "path" else set()
        if self.reads == "end":
            return effective
        effective |= set() if self.hidden_loss else {"path"}
        effective |= set().union(*(walk.options for walk in walks_of(self, task)))
        effective -= {"groups"} if self.reads == "ends" else set()
        return effective if isinstance(task.options.orders, int) else effective - {"seed"}


@dataclass(frozen=True)
class _WithoutPath:
    """Fields of methods that walk no path of inputs; :class:`SampleMethod` explains them."""

    name: str
    summary: str
    source: str
    score: Callable[..., Sequence[float]]
    evaluations: Callable[[Task], int] = lambda task: 1
    price: str = "1 an image"
    options: frozenset[str] = frozenset()
    further_options: Callable[[Task], Collection[str]] = lambda task: ()
    is_general: bool = True
    of_parameters: bool = False

    def cost(self, task: Task) -> int:
        """Evaluations for one image."""
        return self.evaluations(task)

    def unit(self, task: Task) -> str:
        """The score in words."""
        return self.summary

    def arguments(self, task: Task) -> set[str]:
        """Options that have an effect on the score."""
        return {*self.options, *self.further_options(task)}


@dataclass(frozen=True)
class SampleMethod(_WithoutPath):
    """A method that scores the layers on one image at a time.

    Args:
        name: Its name.
        summary: The score in one line.
        source: Its publication.
        score: From task and image to the score of every layer, in the task's order.
        evaluations: From task to the evaluations for one image.
        price: The same in words.
        options: Names of the arguments of :func:`macattr.rank_layers` that have an effect on it.
        further_options: From task to names of those that have one with the task's other options.
        is_general: Whether it scores any layer on any images; the name ``all`` leaves the others out.
        of_parameters: Whether it scores the parameters that a layer owns, so that layers without any have no score.
    """

    score: Callable[[Task, Sample], Sequence[float]]


@dataclass(frozen=True)
class JointMethod(_WithoutPath):
    """A method that scores the layers once, on all images together or on none; other fields as :class:`SampleMethod`.

    Args:
        score: From task and all images to the score of every layer, in the task's order.
        evaluations: From task to the evaluations for one image.
        price: The same in words.
        needs_images: Whether it reads the images; False: it can rank without any.
    """

    score: Callable[[Task, Sequence[Sample]], Sequence[float]]
    evaluations: Callable[[Task], int] = lambda task: 0
    price: str = "nothing"
    needs_images: bool = True


Method = PathMethod | SampleMethod | JointMethod
"""A way to score layers: along a path, image by image, or on all images together."""


def walks_of(method: PathMethod, task: Task) -> tuple[Walk, ...]:
    """The paths that a method walks: its own, or the one that the options choose for all.

    Args:
        method: A method.
        task: Its options.

    Raises:
        ValueError: If the method needs hidden pixels and the chosen path has none, or the path has an unknown name.
    """
    chosen = task.options.path
    if chosen is None or method.reads == "end" or (method.hidden_loss and chosen == "mask"):
        return tuple(WALKS[name] for name in method.walks)
    if method.hidden_loss:
        raise ValueError(f"the method {method.name!r} reads hidden pixels, so it walks the mask path only.")
    return (walk_of(chosen),)


def needs_images(method: Method) -> bool:
    """Whether a method reads images: all do but those that look at the network alone."""
    return not isinstance(method, JointMethod) or method.needs_images


def needs_loss(method: Method) -> bool:
    """Whether a method reads a loss, and with it the clean images or the labels."""
    return method.hidden_loss if isinstance(method, PathMethod) else "loss" in method.options


def is_ordered(method: Method, task: Task) -> bool:
    """Whether the method's score depends on a pixel order."""
    if not isinstance(method, PathMethod) or method.reads == "end":
        return False
    return any(walk.is_ordered for walk in walks_of(method, task))
