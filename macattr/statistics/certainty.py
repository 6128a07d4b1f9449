"""Certainty of a ranking: ranks, confidence intervals, P(layer in the top), variance components, stability."""

__all__ = [
    "IntervalMethod",
    "bootstrap",
    "check_count",
    "check_scores",
    "probability_in_top",
    "ranks",
    "resample_means",
    "stability_curve",
    "summarise_images",
    "surely_above",
    "top_count",
    "top_probabilities",
    "variance_components",
    "whole_part",
]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

Ties = Literal["ordinal", "average", "min", "max", "dense"]
"""Rank of equal scores, as in :func:`scipy.stats.rankdata`."""

IntervalMethod = Literal["studentized", "t", "percentile"]
"""Kind of the intervals of scores in :func:`bootstrap`."""

Array = np.ndarray

TINY = float(np.finfo(np.float64).tiny)
"""Stands for zero where logarithms are taken."""

FEWEST = {"studentized": 4, "t": 2, "percentile": 2}
"""Images that each kind of interval needs; with 3, one resample in 9 has no spread to studentise by."""

HEAVY_TAIL = 5.0
"""Largest deviation of the resamples, by that of as many normal ones, above which a layer has a heavy tail. Log-normal
scores stay below (log sd up to 1.2, 4 images or more); scores that are 0, or nearly, on most images exceed 100."""


def ranks(scores: Float[Array, "*batch layers"], ties: Ties = "ordinal") -> Float[Array, "*batch layers"]:
    """Rank of every layer along the last axis, 1 for the highest score.

    Args:
        scores: Any shape, layers last.
        ties: Equal scores get different ranks in the order of their positions (``ordinal``: every rank exists once,
            so a top k always holds k layers), or share the ``average``, the best (``min``) or the worst (``max``) of
            these; ``dense`` leaves no gaps.

    Example:
        >>> ranks(np.array([5.0, 9.0, 5.0]))
        array([2., 1., 3.])
        >>> ranks(np.array([5.0, 9.0, 5.0]), "average")
        array([2.5, 1. , 2.5])
    """
    ranked: Array = stats.rankdata(-scores, method=ties, axis=-1).astype(np.float64)
    return ranked


def top_count(fraction: float, n_layers: int) -> int:
    r"""Layers in a top fraction: :math:`\lfloor` fraction x n_layers :math:`\rfloor` (the paper's rule), at least one.

    Raises:
        ValueError: If the fraction is outside (0, 1].

    Example:
        >>> top_count(0.1, 263), top_count(0.1, 4)
        (26, 1)
    """
    return max(1, whole_part(fraction, n_layers))


def whole_part(fraction: float, number: int) -> int:
    r""":math:`\lfloor` fraction x number :math:`\rfloor`, where the product of two decimals is meant.

    Raises:
        ValueError: If the fraction is outside (0, 1].

    Example:
        >>> whole_part(0.29, 100)  # the product of the floats is 28.999...
        29
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}.")
    return math.floor(fraction * number + 1e-9)


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


def variance_components(
    scores: Float[Array, "images orders layers"],
    step_errors: Float[Array, "*any layers"] | None = None,
    scale: Literal["log", "normalised"] = "log",
) -> pd.DataFrame:
    r"""Variance components of scores: layers, images, pixel orders, steps.

    .. math:: y_{ijl} = \mu + \lambda_l + a_i + (a\lambda)_{il} + o_{ij} + (o\lambda)_{ijl}

    for image i, order j within the image and layer l. An effect that an image or an order has on all layers alike
    (a, o) moves no rank; ``image x layer`` and ``order x layer`` do. Estimates equate the mean squares to their
    expectations. A negative estimate is set to 0 and marked ``clipped``. With a single order the order parts are
    unknown (NaN) and contained in the image parts.

    Args:
        scores: One score for every image, order and layer, finite.
        step_errors: Error of the scores by the finite number of steps
            (:func:`macattr.statistics.step_errors.step_error`), same unit as the scores, (layers) or (images, orders,
            layers). Its mean square relative to the score is the ``step`` row. The other rows contain it as well:
            most of it is the same for all images.
        scale: ``log`` scores, or scores ``normalised`` by the mean absolute score of all layers of the image and
            order, for scores that can be 0 or negative.

    Returns:
        One row for each source: ``source``, ``variance`` (of y), ``share`` of their sum, ``clipped``.

    Raises:
        ValueError: If there are fewer than 2 images or layers, or a score is not positive on the log scale.

    Source:
        Searle, Casella & McCulloch 1992, Variance Components, chapter 4 (ANOVA estimation, balanced data).
    """
    y, unit = _scaled(check_scores(scores), scale)
    n, m, layers = y.shape
    if n < 2 or layers < 2:
        raise ValueError(f"variance components need at least 2 images and 2 layers, got {n} and {layers}.")
    squares = _mean_squares(y)
    nested = {
        "layer": (squares["layer"] - squares["image x layer"]) / (n * m),
        "image": (squares["image"] - squares["image x layer"]) / (m * layers),
        "image x layer": squares["image x layer"] / m,
        "order": np.nan,
        "order x layer": np.nan,
    }
    if m > 1:
        residual = squares["order x layer"]
        nested |= {
            "image": nested["image"] - (squares["order"] - residual) / (m * layers),
            "image x layer": (squares["image x layer"] - residual) / m,
            "order": (squares["order"] - residual) / layers,
            "order x layer": residual,
        }
    table = pd.DataFrame({"source": list(nested), "variance": list(nested.values())})
    table["clipped"] = table["variance"] < 0
    table["variance"] = table["variance"].clip(lower=0)
    if step_errors is not None:
        step = float(np.mean(np.square(step_errors / unit)))
        table.loc[len(table)] = {"source": "step", "variance": step, "clipped": False}
    table.insert(2, "share", table["variance"] / table["variance"].sum())
    return table


def relative_error(components: pd.DataFrame, images: int, orders: int) -> float:
    r"""Standard error of a layer's (log) score relative to the other layers, over other images and orders.

    .. math:: \sqrt{\sigma^2_{a\lambda}/n + \sigma^2_{o\lambda}/(n m)}

    A further image costs the same pass as a further order, and lowers both terms. More orders pay only when images
    run out.

    Args:
        components: From :func:`variance_components`.
        images: Number of images n.
        orders: Number of orders m of each.

    Example:
        >>> table = pd.DataFrame({"source": ["image x layer", "order x layer"], "variance": [0.04, 0.01]})
        >>> round(relative_error(table, images=4, orders=1), 3), round(relative_error(table, images=4, orders=100), 3)
        (0.112, 0.1)
    """
    variance = components.set_index("source")["variance"].fillna(0.0)
    return math.sqrt(variance["image x layer"] / images + variance["order x layer"] / (images * orders))


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


def check_count(k: int, n_layers: int) -> None:
    """Raise unless a top k can be taken."""
    if not 1 <= k <= n_layers:
        raise ValueError(f"`k` must lie in 1 ... {n_layers} (the number of layers), got {k}.")


def _check_share(name: str, value: float) -> None:
    """Raise unless it lies in (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must lie in (0, 1), got {value}.")


def _log(scores: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Logarithm with a floor for 0."""
    return np.asarray(np.log(np.maximum(scores, TINY)))


def _weights(
    n: int, n_resamples: int, generator: np.random.Generator, size: int | None = None
) -> Float[Array, "resamples images"]:
    """Share of the ``size`` draws (default n) that falls on each of n images."""
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")
    size = n if size is None else size
    return np.asarray(generator.multinomial(size, np.full(n, 1 / n), n_resamples) / size)


def _spread(covariance: Float[Array, "layers layers"]) -> Float[Array, "layers layers"]:
    """Variance of the difference of every two, 0 where it is rounding error of the variances."""
    sums = np.diag(covariance)[:, None] + np.diag(covariance)
    spread = sums - 2 * covariance
    return np.where(spread <= 1e-13 * sums, 0.0, spread)


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


def _scaled(
    scores: Float[Array, "n m l"], scale: Literal["log", "normalised"]
) -> tuple[Float[Array, "n m l"], Float[Array, "n m #l"]]:
    """Scores on the scale of the components, and the unit in which small errors of scores are errors there."""
    if scale == "normalised":
        unit = np.abs(scores).mean(axis=2, keepdims=True)
        return scores / unit, unit
    if scale != "log":
        raise ValueError(f"`scale` must be 'log' or 'normalised', got {scale!r}.")
    if (scores <= 0).any():
        layer = int(np.argwhere(scores <= 0)[0, 2])
        raise ValueError(f"the log of scores needs them positive, layer {layer} is not: take scale='normalised'.")
    return np.log(scores), scores


def _mean_squares(y: Float[Array, "n m l"]) -> dict[str, float]:
    """Mean squares of the split-plot layout; those of orders only if there are several."""
    n, m, layers = y.shape
    grand, layer, image = y.mean(), y.mean(axis=(0, 1)), y.mean(axis=(1, 2))
    cell, row = y.mean(axis=1), y.mean(axis=2)
    squares = {
        "layer": n * m * np.sum((layer - grand) ** 2) / (layers - 1),
        "image": m * layers * np.sum((image - grand) ** 2) / (n - 1),
        "image x layer": m * np.sum((cell - image[:, None] - layer + grand) ** 2) / ((n - 1) * (layers - 1)),
    }
    if m > 1:
        inside = y - cell[:, None] - (row - image[:, None])[..., None]
        squares["order"] = layers * np.sum((row - image[:, None]) ** 2) / (n * (m - 1))
        squares["order x layer"] = np.sum(inside**2) / (n * (m - 1) * (layers - 1))
    return {name: float(value) for name, value in squares.items()}
