"""Three kinds of methods: those that walk a path, those that score one image, those that score all images together."""

__all__ = ["JointMethod", "Method", "PathMethod", "SampleMethod", "Sums", "is_ordered", "walks_of"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from macattr.methods.reductions import REDUCTIONS
from macattr.methods.samples import Sample
from macattr.methods.task import PathLike, Setup, WalkName

Sums = Mapping[str, Tensor]

MASK_ARGUMENTS = {"r", "gate", "delta", "groups", "patch_size", "orders", "seed"}
"""Options of the mask path."""


@dataclass(frozen=True)
class PathMethod:
    """A method that walks a path and sums outputs and gradients; methods that share a path share its sweep.

    Args:
        name: How it is called.
        summary: What the score is, in a line.
        source: Where it comes from.
        walks: Names of its paths; the score is the mean over them. See :meth:`macattr.methods.task.Setup.path`.
        needs: Names of the sums that it reads; see :data:`macattr.methods.readings.SUMS`.
        neurons: From these sums to the quantity that is reduced to a score.
        reads: All nodes of the ``path``, its two ``ends``, or the whole image at its ``end`` alone.
        reduction: The only reduction that it has; None: the user's choice.
        hidden_loss: Whether the objective is the mean absolute error, to the clean image, over the pixels hidden at
            the start of the path.
        symbol: What a neuron's value is called.
    """

    name: str
    summary: str
    source: str
    walks: tuple[WalkName, ...]
    needs: tuple[str, ...]
    neurons: Callable[[Sums], Tensor]
    reads: Literal["path", "ends", "end"] = "path"
    reduction: str | None = None
    hidden_loss: bool = False
    symbol: str = "C"

    def cost(self, setup: Setup) -> int:
        """Evaluations for one image and pixel order if it walks alone."""
        return len(self.walks) * (setup.options.n_nodes if self.reads == "path" else 2)

    @property
    def price(self) -> str:
        """Evaluations in words."""
        nodes = f"{len(self.walks)} x (n_steps + 1)" if len(self.walks) > 1 else "n_steps + 1"
        nodes = nodes if self.reads == "path" else "2"
        ordered = self.reads != "end" and {"mask", "twin"} & set(self.walks)
        return f"{nodes} an image" + (" and pixel order" if ordered else "")

    def unit(self, setup: Setup) -> str:
        """What the score is of the neurons' values."""
        return REDUCTIONS[self.reduction or setup.reduction].formula.replace("C", self.symbol)

    def arguments(self, setup: Setup) -> set[str]:
        """Options that have an effect on the score."""
        walks = set(walks_of(self, setup))
        gradients = not {"start_output", "end_output"} >= set(self.needs)
        found = {"objective"} if gradients and not self.hidden_loss else set()
        found |= {"reduction"} if self.reduction is None else set()
        found |= {"n_steps", "quadrature", "include_end"} if self.reads == "path" else set()
        if self.reads == "end":
            return found
        found |= {"path", "baselines"} if not self.hidden_loss else {"baselines"}
        found |= {"r"} if walks & {"mask", "twin", "tail"} else set()
        found |= MASK_ARGUMENTS if walks & {"mask", "twin"} else set()
        return found if isinstance(setup.orders, int) else found - {"seed"}


@dataclass(frozen=True)
class _WithoutPath:
    """What methods share that walk no path of inputs; :class:`SampleMethod` explains the fields."""

    name: str
    summary: str
    source: str
    score: Callable[..., Sequence[float]]
    evaluations: Callable[[Setup], int] = lambda setup: 1
    price: str = "1 an image"
    options: frozenset[str] = frozenset()

    def cost(self, setup: Setup) -> int:
        """Evaluations for one image."""
        return self.evaluations(setup)

    def unit(self, setup: Setup) -> str:
        """What the score is."""
        return self.summary

    def arguments(self, setup: Setup) -> set[str]:
        """Options that have an effect on the score."""
        return set(self.options)


@dataclass(frozen=True)
class SampleMethod(_WithoutPath):
    """A method that scores the layers on one image at a time.

    Args:
        name: How it is called.
        summary: What the score is, in a line.
        source: Where it comes from.
        score: From setup and image to the score of every layer, in the setup's order.
        evaluations: From setup to the evaluations for one image.
        price: The same in words.
        options: Names of the arguments of :func:`macattr.rank_layers` that have an effect on it.
    """

    score: Callable[[Setup, Sample], Sequence[float]]


@dataclass(frozen=True)
class JointMethod(_WithoutPath):
    """A method that scores the layers once, on all images together or on none; other fields as :class:`SampleMethod`.

    Args:
        score: From setup and all images to the score of every layer, in the setup's order.
        evaluations: From setup to the evaluations for one image.
        price: The same in words.
    """

    score: Callable[[Setup, Sequence[Sample]], Sequence[float]]
    evaluations: Callable[[Setup], int] = lambda setup: 0
    price: str = "nothing"


Method = PathMethod | SampleMethod | JointMethod
"""A way to score layers: along a path, image by image, or on all images together."""


def walks_of(method: PathMethod, setup: Setup) -> tuple[WalkName | PathLike, ...]:
    """The paths that a method walks: its own, or the one that was chosen for all.

    Raises:
        ValueError: If the method needs hidden pixels and the chosen path has none.
    """
    if setup.walk is None or (method.hidden_loss and setup.walk == "mask"):
        return method.walks
    if method.hidden_loss:
        raise ValueError(f"the method {method.name!r} reads hidden pixels, so it walks the mask path only.")
    return (setup.walk,)


def is_ordered(method: Method, setup: Setup) -> bool:
    """Whether the method's score depends on a pixel order."""
    if not isinstance(method, PathMethod) or method.reads == "end":
        return False
    return any(walk in ("mask", "twin") for walk in walks_of(method, setup))
