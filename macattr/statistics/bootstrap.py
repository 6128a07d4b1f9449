"""Certainty of a ranking over images: intervals of scores and ranks, P(layer in the top), stability."""

__all__ = [
    "IntervalMethod",
    "bootstrap",
    "probability_in_top",
    "resample_means",
    "stability_curve",
    "top_probabilities",
]

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from macattr.statistics.images import TINY, ImageSummary, summarise_images, surely_above
from macattr.statistics.ranks import check_count, ranks

Array = np.ndarray

IntervalMethod = Literal["studentized", "t", "percentile"]
"""Kind of the intervals of scores in :func:`bootstrap`."""

FEWEST = {"studentized": 4, "t": 2, "percentile": 2}
"""Images that each kind of interval needs; with 3, one resample in 9 has no spread to studentise by."""

HEAVY_TAIL = 5.0
"""Largest deviation of the resamples, by that of as many normal ones, above which a layer has a heavy tail. Log-normal
scores stay below (log sd up to 1.2, 4 images or more); scores that are 0, or nearly, on most images exceed 100."""


def bootstrap(
    scores: Float[Array, "images orders layers"],
    generator: np.random.Generator,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    method: IntervalMethod = "studentized",
) -> pd.DataFrame:
    r"""Score and rank of every layer with confidence intervals for other images of the same kind.

    The score is the mean over images and orders. Whole images are resampled with all their orders: an image's mean
    contains its order noise already, and drawing orders again inside it would count that noise twice (Davison & Hinkley
    1997, section 3.8; with one order the two agree).

    Scores that are nowhere negative are treated on the log scale, :math:`\varphi_l = \log \bar s_l`, where layers and
    images act as factors; others as they are. ``studentized`` inverts
    :math:`t^* = (\varphi^* - \varphi)/\widehat{se}^*`, ``t`` takes Student's quantiles with images - 1 degrees of
    freedom, and ``percentile`` is for comparison. With 8 images 95 % intervals of a log-normal layer that varies over
    images as the median layer of the bundled network does (log sd 0.56) cover 93 %, 93 % and 85 %; of its most
    variable layer (0.82) 92 %, 91 % and 82 % (benchmarks/results/ranking_statistics.md: up to 70 images).

    The interval of a rank holds 1 + the number of layers that are surely above it, up to the number of layers - those
    surely below, by all of its pairwise differences together. Percentiles of resampled ranks would be shorter but
    wrong where layers nearly tie: noise added to noise drives them to the middle. These images set no limit to a layer
    that is 0, or nearly, on most of them: its own rank stays open, and the other layers' ranks count it as one that may
    be above. A layer that is 0 on all of them counts as one that is always 0: what is active on rare images alone, such
    as an expert, cannot be seen in images without it.

    Args:
        scores: One score for every image, order and layer, finite.
        generator: Source of the resamples.
        n_resamples: Number of resamples.
        confidence: Coverage of each layer's interval, in (0, 1).
        method: Kind of the scores' intervals; ``studentized`` needs 4 images, the others 2.

    Returns:
        One row for each layer in the order given: ``score``, ``score_low``, ``score_high`` (infinite where few images
        set no limit), ``rank`` (ordinal), ``rank_low``, ``rank_high``.

    Raises:
        ValueError: If scores are not finite, there are too few images, or an option is out of range.

    Source:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, sections 3.8 and 5.2; for ranks Mogstad,
        Romano, Shaikh & Wilhelm 2024, Inference for Ranks (Rev. Econ. Stud. 91).
    """
    _check_share("confidence", confidence)
    if method not in get_args(IntervalMethod):
        raise ValueError(f"`method` must be one of {', '.join(get_args(IntervalMethod))}, got {method!r}.")
    sample = summarise_images(scores)
    if len(sample.values) < FEWEST[method]:
        raise ValueError(
            f"{method!r} intervals need at least {FEWEST[method]} images, got {len(sample.values)}: "
            "add images, or take method='t' (2 images)."
        )
    weights = _weights(len(sample.values), n_resamples, generator)
    low, high = _score_limits(sample, weights, confidence, method)
    rank_low, rank_high = _rank_limits(sample, weights, confidence)
    return pd.DataFrame(
        {
            "score": sample.mean,
            "score_low": sample.back(low),
            "score_high": sample.back(high),
            "rank": ranks(sample.mean).astype(int),
            "rank_low": rank_low,
            "rank_high": rank_high,
        }
    )


def resample_means(
    scores: Float[Array, "images orders layers"], generator: np.random.Generator, n_resamples: int = 1000
) -> Float[Array, "resamples layers"]:
    r"""Bootstrap means over images: scores that equally many other images might give.

    Deviations from the mean (of the log score where no score is negative) are stretched by
    :math:`\sqrt{n/(n-1)}`, without which resamples of n images vary too little: by a quarter of the variance at n = 4.

    Args:
        scores: Score of every image, pixel order and layer.
        generator: Source of randomness.
        n_resamples: Number of resamples.

    Raises:
        ValueError: If scores are not finite or there are fewer than 2 images.
    """
    sample = summarise_images(scores)
    return sample.back(sample.centre + _deviations(sample, _weights(len(sample.values), n_resamples, generator)))


def probability_in_top(
    scores: Float[Array, "images orders layers"], k: int, generator: np.random.Generator, n_resamples: int = 1000
) -> Float[Array, " layers"]:
    """Share of the resamples of the images in which every layer is among the k highest; the shares sum to k.

    It measures how much the images at hand leave open, and is not an error rate. For a decision with a guarantee use
    :class:`macattr.statistics.stopping.StableTop`. Ties go to the layer that comes first.

    Args:
        scores: Score of every image, pixel order and layer.
        k: Layers in the top.
        generator: Source of randomness.
        n_resamples: Number of resamples.

    Raises:
        ValueError: If ``k`` is not in 1 ... number of layers, or as :func:`resample_means`.
    """
    check_count(k, scores.shape[-1])
    return np.asarray(top_probabilities(scores, generator, n_resamples)[:, k - 1])


def top_probabilities(
    scores: Float[Array, "images orders layers"], generator: np.random.Generator, n_resamples: int = 1000
) -> Float[Array, "layers tops"]:
    """:func:`probability_in_top` for every k from the same resamples: column k - 1 is that of the top k.

    Raises:
        ValueError: As :func:`resample_means`.
    """
    drawn = ranks(resample_means(scores, generator, n_resamples)).astype(int)
    layers = drawn.shape[1]
    cells = (drawn - 1 + layers * np.arange(layers)).ravel()
    counts = np.bincount(cells, minlength=layers * layers).reshape(layers, layers)
    return np.asarray(counts.cumsum(axis=1) / n_resamples)


def stability_curve(
    scores: Float[Array, "images orders layers"],
    k: int,
    generator: np.random.Generator,
    sizes: Sequence[int] | None = None,
    n_resamples: int = 1000,
    may_differ: int = 0,
) -> pd.DataFrame:
    """Agreement of the top k of fewer (or more) images with the top k of all images.

    Every resample draws images with replacement. So the curve holds for other images of the same kind, and it does not
    end at 1 when all images are used.

    Args:
        scores: One score for every image, order and layer, finite.
        k: Number of layers in the top.
        generator: Source of the resamples.
        sizes: Numbers of images; None: about ten from 2 to all.
        n_resamples: Resamples of each size.
        may_differ: Layers of the top k that ``near_set`` lets differ.

    Returns:
        One row for each size: ``images``, ``same_set`` (probability that the top k is the same), ``near_set`` (that
        at most ``may_differ`` of its layers are others) and ``overlap`` (mean share of the top k that is the same).

    Raises:
        ValueError: If ``k`` or a size is out of range, or as :func:`resample_means`.
    """
    check_count(k, scores.shape[-1])
    sample = summarise_images(scores)
    n = len(sample.values)
    if sizes is None:
        sizes = sorted({round(size) for size in np.geomspace(2, n, 10)})
    if min(sizes) < 1:
        raise ValueError(f"`sizes` must be at least 1, got {min(sizes)}.")
    reference = ranks(sample.mean) <= k
    rows = []
    for size in sizes:
        drawn = sample.resampled(_weights(n, n_resamples, generator, size))
        shared = ((ranks(drawn) <= k) & reference).sum(axis=-1)
        same, near = (shared == k).mean(), (shared >= k - may_differ).mean()
        rows.append({"images": size, "same_set": same, "near_set": near, "overlap": shared.mean() / k})
    return pd.DataFrame(rows)


def _check_share(name: str, value: float) -> None:
    """Raise unless it lies in (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must lie in (0, 1), got {value}.")


def _weights(
    n: int, n_resamples: int, generator: np.random.Generator, size: int | None = None
) -> Float[Array, "resamples images"]:
    """Share of the ``size`` draws (default n) that falls on each of n images."""
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")
    size = n if size is None else size
    return np.asarray(generator.multinomial(size, np.full(n, 1 / n), n_resamples) / size)


def _deviations(sample: ImageSummary, weights: Float[Array, "resamples images"]) -> Float[Array, "resamples layers"]:
    """Deviations of resamples from the centre, with the variance that n images really have."""
    n = len(sample.values)
    return np.asarray((sample.scaled(sample.resampled(weights)) - sample.centre) * math.sqrt(n / (n - 1)))


def _score_limits(
    sample: ImageSummary, weights: Float[Array, "resamples images"], confidence: float, method: IntervalMethod
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    """Ends of the scores' intervals on the scale of the centre."""
    tails = np.array([(1 + confidence) / 2, (1 - confidence) / 2])
    n, error = len(sample.values), sample.standard_error()
    if method == "t":
        low, high = stats.t.ppf(tails, n - 1)[:, None] * error
        return sample.centre - low, sample.centre - high
    drawn = sample.scaled(sample.resampled(weights))
    if method == "percentile":
        high, low = np.quantile(drawn, tails, axis=0)
        return low, high
    spread = np.sqrt(np.maximum(weights @ np.square(sample.influence) - np.square(weights @ sample.influence), 0))
    # On the log scale the error is relative to the resample's own mean.
    relative = np.maximum(1 + weights @ sample.influence, TINY) if sample.logarithmic else 1.0
    errors = spread / relative / math.sqrt(n - 1)
    deviation = drawn - sample.centre
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviation == 0, 0.0, deviation / errors)
        low, high = np.where(error > 0, np.quantile(t, tails, axis=0, method="nearest") * error, 0.0)
    return sample.centre - low, sample.centre - high


def _rank_limits(
    sample: ImageSummary, weights: Float[Array, "resamples images"], confidence: float
) -> tuple[Int[Array, " layers"], Int[Array, " layers"]]:
    """Ranks that are not excluded by the layer's pairwise differences, all at once."""
    n, layers = sample.values.shape
    # The resampled maximum has normal tails; images - 1 degrees of freedom have longer ones.
    level = (1 + confidence) / 2
    stretch = stats.t.ppf(level, n - 1) / stats.norm.ppf(level)
    deviations = _deviations(sample, weights)
    errors = sample.pair_errors()
    tails = np.square(_heavy_tails(sample, deviations, confidence))
    errors = np.where(errors > 0, np.sqrt(np.square(errors) + tails[:, None] + tails), 0.0)
    inverse = np.divide(1.0, errors, out=np.zeros_like(errors), where=errors > 0)
    critical = np.empty(layers)
    for layer in range(layers):
        largest = np.abs((deviations[:, layer, None] - deviations) * inverse[layer]).max(axis=1)
        critical[layer] = stretch * np.quantile(largest, confidence)
    others_above = surely_above(sample, critical[None], errors).sum(axis=0)
    others_below = surely_above(sample, critical[:, None], errors).sum(axis=1)
    return 1 + others_above, layers - others_below


def _heavy_tails(
    sample: ImageSummary, deviations: Float[Array, "resamples layers"], confidence: float
) -> Float[Array, " layers"]:
    """Error of every layer by its largest deviation, where resamples far out use up the layer's share of the error.

    That is half of 1 - ``confidence`` over all layers; the error of the other layers is 0.
    """
    n_resamples, layers = deviations.shape
    normal = stats.norm.ppf(1 - 0.5 / max(2, n_resamples))
    errors = np.abs(deviations) / normal
    far_out = (errors > HEAVY_TAIL * sample.standard_error()).mean(axis=0)
    return np.where(far_out > (1 - confidence) / (2 * layers), errors.max(axis=0), 0.0)
