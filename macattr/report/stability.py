"""Stability curve of a report: whether fewer images would have given the same top layers."""

__all__ = ["FEWEST_IMAGES", "StabilityChart", "chart_stability"]

from dataclasses import dataclass

import numpy as np

from macattr.ranking.importance import LayerImportance
from macattr.report.words import format_percent
from macattr.statistics.bootstrap import stability_curve

FEWEST_IMAGES = 4
"""Number of images below which a curve over fewer of them is not informative."""

ENOUGH = 0.9
"""Mean share of the top that must be the same for a number of images to be enough."""


@dataclass(frozen=True)
class StabilityChart:
    """Stability curve of the top k.

    Args:
        k: Number of layers in the top.
        points: Number of images, mean share of the top that is the same, and probability that all of it is the same.
    """

    k: int
    points: tuple[tuple[int, float, float], ...]

    @property
    def answer(self) -> str:
        """Whether fewer images would have been enough, in words."""
        images, overlap, _ = self.points[-1]
        enough = next(((few, share) for few, share, _ in self.points[:-1] if share >= ENOUGH), None)
        top = f"of the top {self.k} is the same on average"
        if enough is not None:
            return f"Yes. With {enough[0]} of the {images} images, {format_percent(enough[1])} {top}."
        if overlap >= ENOUGH:
            return f"No. It takes all {images} images until {format_percent(overlap)} {top}."
        return (
            f"No. Even with {images} other images only {format_percent(overlap)} {top}. "
            "Rank more images before relying on every layer of this top."
        )


def chart_stability(importance: LayerImportance, k: int, seed: int) -> StabilityChart:
    """Stability curve of the top k, from 500 resamples of each number of images.

    Args:
        importance: The ranking, of several images.
        k: Number of layers in the top.
        seed: Seed of the resamples.
    """
    curve = stability_curve(importance.values, k, np.random.default_rng(seed), n_resamples=500)
    points = ((int(row.images), float(row.overlap), float(row.same_set)) for row in curve.itertuples())
    return StabilityChart(k=k, points=tuple(points))
