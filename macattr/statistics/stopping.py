"""Early stopping: the number of images after which the top layers are stable at a stated confidence."""

__all__ = ["Stability", "StableTop"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from macattr.statistics.images import summarise_images, surely_above
from macattr.statistics.ranks import ranks, top_count

Array = np.ndarray


@dataclass(frozen=True)
class Stability:
    """Stability of the top layers after the images so far.

    Args:
        stable: Whether the top may be taken as it is.
        images: Number of images that were measured.
        orders: Number of pixel orders of each image.
        top: Positions of the top layers, highest score first.
        undecided: Positions of the layers that may belong on the other side of the border, highest score first: the top
            layers that do not surely beat all others, and the others that are not surely beaten.
        may_differ: Number of layers of the top that may be wrong if ``stable``.
        confidence: Probability with which a top that is declared stable is right, over all looks.
        error_spent: Share of 1 - ``confidence`` that this look used.
        min_images: Number of images before the first look; with fewer, a top is never stable.
        silent: Number of layers that are 0 on all images so far.
    """

    stable: bool
    images: int
    orders: int
    top: tuple[int, ...]
    undecided: tuple[int, ...]
    may_differ: int
    confidence: float
    error_spent: float
    min_images: int
    silent: int = 0

    def saved(self, images: int) -> float:
        """Factor by which this took fewer passes than all ``images`` with as many orders would have taken."""
        return images / self.images

    def report(self, layers: Sequence[str], images: int) -> str:
        """The result in words, and in a second line the layers that are not separated, if there are any.

        Args:
            layers: Names of all layers.
            images: Number of all images, measured or not.
        """
        top = f"top {len(self.top)} of {len(layers)} layers"
        if self.images < self.min_images:
            return (
                f"The stability of the {top} is unknown: {self.images} of {images} images were measured, "
                f"and the first test needs {self.min_images}."
            )
        after = f"after {self.images} of {images} images"
        names = ", ".join(layers[i] for i in self.undecided)
        if not self.stable:
            line = f"The {top} is not stable {after}: {len(self.undecided)} layers at its border are not separated."
            return f"{line}\nnot separated: {names}"
        passes = f", with {self.saved(images):.1f} x fewer passes" if images > self.images else ""
        differ = f"at most {self.may_differ} of its layers" if self.may_differ else "none of its layers"
        line = f"The {top} is stable {after}{passes}. At {self.confidence:.0%} confidence {differ} would differ."
        if names:
            line += f"\nnot separated, which the tolerance allows: {names}"
        if self.silent:
            line += f"\n{self.silent} layers are 0 on all these images: not covered, if rare images make them active"
        return line


@dataclass(frozen=True)
class StableTop:
    r"""Rule that stops when the top layers are stable: with ``confidence`` the true top differs in few of them.

    Layers are compared in pairs, a top layer with an outside layer, by Student's t of their (log) image means, with the
    larger of the observed error and the error that log-normal scores would have.
    The top is stable if no t + 1 of its layers could change places with t + 1 others, where
    t = round(``tolerance`` x k): in the graph of pairs that are not separated, layers with t or fewer doubtful partners
    are dropped until none is left. With t = 0 every top layer must beat every other layer.

    A wrong top needs *all* pairs of some exchange in the wrong order and one of them significantly so. Hence each pair
    is tested two-sided at the level of the look, without correction for the number of pairs (an intersection-union
    test); two layers tied at the border, and all others far away, are the worst case for t = 0. This is an argument,
    not a theorem for unequal variances and t > 0. benchmarks/ranking_statistics.py measures the error in bad cases;
    it stays below 5 % in all that it measures.

    Repeated looks share the error: look j spends :math:`1/(j(j+1))` of 1 - ``confidence``, so any number of looks
    spends no more than all of it (a union bound, whatever their dependence). Looks are at ``min_images`` and whenever
    the number of images has grown by the factor ``growth``.

    The images must come in random order. The answer holds for all images of their kind, not for this folder alone. It
    does not hold for layers that are active on rare images alone, such as experts: one that is 0 on all images so far
    counts as one that is always 0, and :meth:`Stability.report` says how many there are.

    Args:
        fraction: Top share of the layers, in (0, 1].
        confidence: Probability, over all looks, that a top declared stable is right, in (0, 1).
        tolerance: Share of the top layers that may be wrong, in [0, 1), rounded to whole layers. At 0, near ties at
            the border need images without end.
        min_images: Images before the first look, at least 4: Student's t is too bold for scores as skewed as these
            with fewer.
        growth: Ratio of the images between looks, above 1.

    Raises:
        ValueError: If an option is out of range.

    Source:
        Berger 1982, Multiparameter hypothesis testing and acceptance sampling (intersection-union tests); Hung &
        Fithian 2019, Rank verification for exponential families, for k = 1.

    Example:
        >>> [n for n in range(1, 30) if StableTop(0.1).is_look(n)]
        [8, 10, 13, 17, 22, 28]
    """

    fraction: float = 0.10
    confidence: float = 0.95
    tolerance: float = 0.10
    min_images: int = 8
    growth: float = 1.25

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1], got {self.fraction}.")
        if not 0 < self.confidence < 1:
            raise ValueError(f"`confidence` must lie in (0, 1), got {self.confidence}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"`tolerance` must lie in [0, 1), got {self.tolerance}: a share of the top layers.")
        if self.min_images < 4:
            raise ValueError(f"`min_images` must be at least 4, got {self.min_images}.")
        if self.growth <= 1:
            raise ValueError(f"`growth` must be above 1, got {self.growth}: images between looks grow by this factor.")

    def may_differ(self, k: int) -> int:
        """Number of layers of a top k that may be wrong."""
        return round(self.tolerance * k)

    def looks(self, images: int) -> list[int]:
        """Numbers of images, up to ``images``, at which the top is tested."""
        looks, due = [], self.min_images
        while due <= images:
            looks.append(due)
            due = max(due + 1, int(np.ceil(due * self.growth)))
        return looks

    def is_look(self, images: int) -> bool:
        """Whether the top is tested after that many images."""
        return images in self.looks(images)

    def error_spent(self, images: int) -> float:
        """Share of the error 1 - ``confidence`` that the look after ``images`` uses; between looks, that of the next.

        So there may be a last look between two looks, when the images run out.

        Example:
            >>> [round(StableTop().error_spent(n), 3) for n in (8, 10, 12, 13)]
            [0.5, 0.167, 0.083, 0.083]
        """
        number = len(self.looks(images)) + (not self.is_look(images))
        return 1 / (number * (number + 1))

    def check(self, scores: Float[Array, "images orders layers"]) -> Stability:
        """Whether the top of these scores is stable.

        Args:
            scores: All scores so far, one for every image, order and layer, finite.

        Raises:
            ValueError: If scores are not finite, or there are fewer than 2 images.
        """
        sample = summarise_images(scores)
        n, orders, layers = scores.shape
        k = top_count(self.fraction, layers)
        inside = ranks(sample.mean) <= k
        spent = self.error_spent(n)
        critical = float(stats.t.ppf(1 - (1 - self.confidence) * spent / 2, n - 1))
        open_pairs = ~surely_above(sample, critical, sample.pair_errors())[np.ix_(inside, ~inside)]
        allowed = self.may_differ(k)
        order = np.argsort(-sample.mean, kind="stable")
        doubtful = np.zeros(layers, dtype=bool)
        doubtful[inside], doubtful[~inside] = open_pairs.any(axis=1), open_pairs.any(axis=0)
        return Stability(
            stable=n >= self.min_images and not core(open_pairs, allowed + 1).any(),
            images=n,
            orders=orders,
            top=tuple(order[:k].tolist()),
            undecided=tuple(order[doubtful[order]].tolist()),
            may_differ=allowed,
            confidence=self.confidence,
            error_spent=spent,
            min_images=self.min_images,
            silent=int((sample.values == 0).all(axis=0).sum()),
        )


def core(pairs: Bool[Array, "rows columns"], least: int) -> Bool[Array, "rows columns"]:
    """Pairs that remain when rows and columns with fewer than ``least`` partners are dropped repeatedly.

    A set of ``least`` rows all paired with the same ``least`` columns always remains.

    Example:
        >>> core(np.array([[True, True], [True, False]]), 2).tolist()
        [[False, False], [False, False]]
    """
    while True:
        kept: Array = pairs & (pairs.sum(axis=1) >= least)[:, None] & (pairs.sum(axis=0) >= least)[None]
        if (kept == pairs).all():
            return kept
        pairs = kept
