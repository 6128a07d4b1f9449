"""Scores of several images as a sample: their means, the errors of these, and which layers differ surely."""

__all__ = ["TINY", "ImageSummary", "check_scores", "summarise_images", "surely_above"]

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Array = np.ndarray


TINY = float(np.finfo(np.float64).tiny)
"""Stands for zero where logarithms are taken."""


@dataclass(frozen=True)
class ImageSummary:
    """Image means, and the influence of each image on the layers' (log) scores.

    Args:
        values: Mean over orders, (images, layers).
        mean: Score, (layers).
        centre: Score on the scale on which it is treated, (layers).
        influence: Deviation of every image from the centre, to first order; the mean over images is 0.
        logarithmic: Whether that scale is the logarithm.
    """

    values: Float[Array, "images layers"]
    mean: Float[Array, " layers"]
    centre: Float[Array, " layers"]
    influence: Float[Array, "images layers"]
    logarithmic: bool

    def standard_error(self) -> Float[Array, " layers"]:
        """Standard error of the centre."""
        return np.asarray(self.influence.std(axis=0, ddof=1) / math.sqrt(len(self.influence)))

    def scaled(self, scores: Float[Array, "*batch layers"]) -> Float[Array, "*batch layers"]:
        """From scores to the scale of the centre."""
        return _log(scores) if self.logarithmic else scores

    def resampled(self, weights: Float[Array, "resamples images"]) -> Float[Array, "resamples layers"]:
        """Weighted means over images; equal for layers that agree on every image, which a product may round apart."""
        distinct, inverse = np.unique(self.values, axis=1, return_inverse=True)
        return np.asarray((weights @ distinct)[:, inverse])

    def back(self, scaled: Float[Array, "*batch layers"]) -> Float[Array, "*batch layers"]:
        """From the scale of the centre to scores; a layer that is 0 on all images stays 0."""
        if not self.logarithmic:
            return scaled
        with np.errstate(over="ignore"):  # a limit beyond all floats is infinite: these images set none
            return np.where(self.mean == 0, 0.0, np.exp(scaled))

    def pair_errors(self) -> Float[Array, "layers layers"]:
        """Standard error of the difference of every two centres; 0 for layers that agree on every image.

        On the log scale the larger of the errors by the influences and by log-normal scores (Cox's method): the former
        is too small just when a skewed layer's mean misses its rare high images.
        """
        n = len(self.influence)
        covariance = self.influence.T @ self.influence / (n - 1)
        squares = _spread(covariance) / n
        if self.logarithmic:
            positive = (self.values > 0).all(axis=0)
            logs = np.log(np.where(positive, self.values, 1.0))
            covariance = np.atleast_2d(np.cov(logs, rowvar=False))
            modelled = _spread(covariance) / n + _spread(np.square(covariance)) / (2 * (n - 1))
            squares = np.maximum(squares, np.where(np.logical_and.outer(positive, positive), modelled, 0.0))
        return np.asarray(np.sqrt(squares))


def summarise_images(scores: Float[Array, "images orders layers"]) -> ImageSummary:
    """Image means on the log scale if no score is negative, else as they are.

    Raises:
        ValueError: If scores are not finite or there are fewer than 2 images.
    """
    values = check_scores(scores).mean(axis=1)
    if len(values) < 2:
        raise ValueError(
            f"intervals over images need at least 2 images, got {len(values)}: "
            "add images, or pass the orders of the image as images (the intervals then hold for this image alone)."
        )
    mean = values.mean(axis=0)
    if bool((scores < 0).any()):
        return ImageSummary(values, mean, mean, values - mean, False)
    relative = values / np.where(mean > 0, mean, 1.0) - (mean > 0)
    return ImageSummary(values, mean, _log(mean), relative, True)


def check_scores(scores: Float[Array, "images orders layers"]) -> Float[Array, "images orders layers"]:
    """The scores in float64.

    Raises:
        ValueError: If they are not three-dimensional, are empty or not finite.
    """
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"`scores` must be (images, orders, layers), none of them empty, got {scores.shape}.")
    if not np.isfinite(scores).all():
        image, order, layer = (int(i) for i in np.argwhere(~np.isfinite(scores))[0])
        raise ValueError(
            f"`scores` must be finite, got {scores[image, order, layer]} at image {image}, order {order}, "
            f"layer {layer}: leave that image or layer out."
        )
    return scores.astype(np.float64)


def _log(scores: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Logarithm with a floor for 0."""
    return np.asarray(np.log(np.maximum(scores, TINY)))


def _spread(covariance: Float[Array, "layers layers"]) -> Float[Array, "layers layers"]:
    """Variance of the difference of every two, 0 where it is rounding error of the variances."""
    sums = np.diag(covariance)[:, None] + np.diag(covariance)
    spread = sums - 2 * covariance
    return np.where(spread <= 1e-13 * sums, 0.0, spread)


def surely_above(
    sample: ImageSummary, critical: float | Float[Array, "#layers #layers"], errors: Float[Array, "layers layers"]
) -> Bool[Array, "layers layers"]:
    """Whether layer i scores higher than layer j by more than ``critical`` standard ``errors`` of their difference.

    Layers that agree on every image (two names of one tensor) are in the order of their positions.

    Args:
        sample: Summary of the scores over images.
        critical: Number of standard errors, one for all pairs or one for each.
        errors: Standard errors of the differences.
    """
    gap = sample.centre[:, None] - sample.centre[None]
    position = np.arange(len(gap))
    first = position[:, None] < position[None]
    return np.asarray(np.where(errors > 0, gap > critical * errors, (gap > 0) | ((gap == 0) & first)))
