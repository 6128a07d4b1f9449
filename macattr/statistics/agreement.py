"""Agreement of two rankings: rank correlations and overlap of the tops; dependence on layer size and class."""

__all__ = [
    "class_dependence",
    "common_layers",
    "measure_agreement",
    "overlap_at",
    "overlap_curve",
    "rank_biased_overlap",
    "size_dependence",
    "spearman",
]

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from macattr.statistics.bootstrap import resample_means
from macattr.statistics.ranks import check_count, ranks

Array = np.ndarray

NAMED = 3
"""Number of layers that an error about different layer sets names for each ranking."""


def spearman(a: Float[Array, " layers"], b: Float[Array, " layers"]) -> float:
    """Spearman's rank correlation in [-1, 1]; tied layers share the average rank. NaN if all scores of a ranking tie.

    Example:
        >>> spearman(np.array([3.0, 2.0, 1.0]), np.array([9.0, 4.0, 1.0]))
        1.0
    """
    return float(_rank_correlations(a[None], b[None])[0])


def kendall(a: Float[Array, " layers"], b: Float[Array, " layers"]) -> float:
    r"""Kendall's tau-b in [-1, 1]: pairs in the same order minus pairs in opposite order.

    Divided by :math:`\sqrt{(P - T_a)(P - T_b)}`, with P pairs and T of them tied, so that ties count for neither. NaN
    if all scores of a ranking tie.
    """
    return float(_taus(a[None], b[None])[0][0])


def weighted_tau(a: Float[Array, " layers"], b: Float[Array, " layers"]) -> float:
    """Kendall's tau with pairs weighted by 1/rank + 1/rank, so that the top counts most; in [-1, 1].

    Ranks for the weights are those of ``a`` and of ``b`` in turn, averaged; of layers that tie in one, the first is the
    one that is higher in the other. Ties count as in tau-b. NaN if all scores of a ranking tie.

    Source:
        Vigna 2015, A weighted correlation index for rankings with ties.
    """
    return float(_taus(a[None], b[None])[1][0])


def rank_biased_overlap(
    a: Float[Array, " layers"], b: Float[Array, " layers"], p: float = 0.9, depth: int | None = None
) -> float:
    r"""Extrapolated rank-biased overlap in [0, 1]: agreement of the tops at all depths, weighted by :math:`p^d`.

    .. math:: \frac{1 - p}{p}\sum_{d=1}^{D} A_d\,p^d + A_D\,p^D, \qquad
        A_d = \frac{2\,|S_d \cap T_d|}{|S_d| + |T_d|}

    with :math:`S_d` the layers at rank d or better. Tied layers all stand at the best of their ranks, so :math:`S_d`
    may hold more than d.

    Args:
        a: Scores, highest first.
        b: Scores of the same layers.
        p: Persistence in (0, 1): probability that a reader goes on to the next rank. The first 10 ranks hold 86 % of
            the weight at 0.9, and the first 26 at 0.96 (``rank_biased_weight`` in this module).
        depth: Number D of ranks that are compared; the agreement is taken as constant below them. None: all ranks,
            where it is 1.

    Raises:
        ValueError: If ``p`` or ``depth`` is out of range.

    Source:
        Webber, Moffat & Zobel 2010, A similarity measure for indefinite rankings (ACM TOIS 28), eq. 30, with
        its agreement for ties.
    """
    depth = len(a) if depth is None else depth
    _check_persistence(p)
    check_count(depth, len(a))
    return float(_biased_overlaps(a[None], b[None], p, depth)[0])


def rank_biased_weight(p: float, depth: int) -> float:
    r"""Share of the weight of :func:`rank_biased_overlap` that the first ``depth`` ranks hold.

    .. math:: 1 - p^{d-1} + \frac{1-p}{p}\,d\left(\ln\frac{1}{1-p} - \sum_{i=1}^{d-1}\frac{p^i}{i}\right)

    Raises:
        ValueError: If ``p`` is outside (0, 1) or ``depth`` below 1.

    Source:
        Webber, Moffat & Zobel 2010, eq. 21.

    Example:
        >>> round(rank_biased_weight(0.9, 10), 3), round(rank_biased_weight(0.96, 26), 3)
        (0.856, 0.862)
    """
    _check_persistence(p)
    if depth < 1:
        raise ValueError(f"`depth` must be at least 1, got {depth}.")
    i = np.arange(1, depth)
    return float(1 - p ** (depth - 1) + (1 - p) / p * depth * (-math.log1p(-p) - (p**i / i).sum()))


def overlap_at(a: Float[Array, " layers"], b: Float[Array, " layers"], k: int) -> float:
    """Share of the k highest layers that both have, in [0, 1]; of tied layers the first come first.

    Args:
        a: Score of every layer.
        b: Another score of the same layers, in the same order.
        k: Layers in a top.

    Raises:
        ValueError: If ``k`` is not in 1 ... number of layers.
    """
    check_count(k, len(a))
    return float(_overlaps(a[None], b[None], k)[0])


def overlap_curve(a: Float[Array, " layers"], b: Float[Array, " layers"], confidence: float = 0.95) -> pd.DataFrame:
    """Overlap of the tops at every k, and the overlap that unrelated rankings would have.

    Args:
        a: Score of every layer.
        b: Another score of the same layers, in the same order.
        confidence: Coverage of the range of random rankings, in (0, 1).

    Returns:
        One row for each k = 1 ... number of layers: ``k``, ``overlap``, ``expected`` (k / number of layers) and the
        range ``random_low`` ... ``random_high`` that holds the overlap of random rankings with probability
        ``confidence`` or more (hypergeometric).
    """
    layers = len(a)
    k = np.arange(1, layers + 1)
    together = _count_to_depth(np.maximum(ranks(a), ranks(b))[None])[0]
    low, high = (stats.hypergeom.ppf(tail, layers, k, k) / k for tail in ((1 - confidence) / 2, (1 + confidence) / 2))
    return pd.DataFrame(
        {"k": k, "overlap": together / k, "expected": k / layers, "random_low": low, "random_high": high}
    )


def measure_agreement(
    a: Float[Array, "*first layers"],
    b: Float[Array, "*second layers"],
    k: int,
    *,
    p: float = 0.9,
    generator: np.random.Generator | None = None,
    n_resamples: int = 500,
    confidence: float = 0.95,
    paired: bool = False,
) -> pd.DataFrame:
    r"""Agreement of two rankings of the same layers by every measure, with intervals over images.

    Scores of several images are resampled as in :func:`macattr.statistics.bootstrap.resample_means`; a ranking
    without images stays fixed. The interval starts at the lower percentile of the resamples. Noise lowers agreement,
    and resampling adds noise once more. So the upper end is the upper percentile or, if higher, the reflection of the
    lower percentile in the estimate, at most 1.

    Args:
        a: Scores (layers), or (images, orders, layers).
        b: The same of the other ranking; images and orders may differ.
        k: Layers in the tops that are compared.
        p: Persistence of :func:`rank_biased_overlap`.
        generator: Source of the resamples; None: no intervals.
        n_resamples: Number of resamples.
        confidence: Coverage of each interval, in (0, 1).
        paired: Both are of the same images in the same order, which are resampled together.

    Returns:
        One row for each measure: ``measure``, ``value``, ``low``, ``high`` (NaN without resamples) and ``chance``, the
        expectation for unrelated rankings.

    Raises:
        ValueError: If numbers of layers (or, ``paired``, of images) differ, a shape is wrong, or ``k`` or ``p`` is out
            of range.
    """
    layers = _check_shapes(a, b, paired)
    check_count(k, layers)
    _check_persistence(p)
    means = [scores.mean(axis=(0, 1)) if scores.ndim == 3 else scores for scores in (a, b)]
    values = _agreements(means[0][None], means[1][None], k, p).iloc[0]
    table = pd.DataFrame({"value": values, "low": math.nan, "high": math.nan, "chance": _chance(k, p, layers)})
    if generator is not None and max(a.ndim, b.ndim) == 3:
        if not 0 < confidence < 1:
            raise ValueError(f"`confidence` must lie in (0, 1), got {confidence}.")
        resampled = _agreements(*_resample_both(a, b, generator, n_resamples, paired), k, p)
        table["low"], upper = (resampled.quantile(tail) for tail in ((1 - confidence) / 2, (1 + confidence) / 2))
        table["high"] = np.minimum(np.maximum(upper, 2 * values - table["low"]), 1.0)
    return table.rename_axis("measure").reset_index()


def common_layers(layers: Mapping[str, Sequence[str]], only_common: bool = False) -> list[str]:
    """Layers that all rankings have, in the order of the first.

    Args:
        layers: Names of the layers of every ranking, by the ranking's name.
        only_common: Accept rankings over different layers, and leave out the layers that a ranking lacks.

    Raises:
        ValueError: If rankings cover different layers and ``only_common`` is False (the message names the layers), or
            no layer is common.

    Example:
        >>> common_layers({"a": ["x", "y"], "b": ["y", "z"]}, only_common=True)
        ['y']
    """
    shared = set.intersection(*map(set, layers.values()))
    if not shared:
        raise ValueError(f"the rankings {', '.join(layers)} have no layer in common: are they of the same network?")
    extra = {name: [layer for layer in own if layer not in shared] for name, own in layers.items()}
    if any(extra.values()) and not only_common:
        listed = "; ".join(f"{name} has {_first_few(names)}" for name, names in extra.items() if names)
        raise ValueError(
            f"the rankings cover different layers, {len(shared)} are common: {listed}; rank the same layers, or "
            "compare the common ones alone (`only_common`, `macattr compare --only-common`)."
        )
    return [layer for layer in next(iter(layers.values())) if layer in shared]


def size_dependence(
    scores: Float[Array, " layers"], sizes: Mapping[str, Float[Array, " layers"]], confidence: float = 0.95
) -> pd.DataFrame:
    r"""Dependence of a score on the size of layers: Spearman's correlation, and the slope of log score by log size.

    A slope of 1 means that the score is in proportion to the size; dividing by the size would remove the dependence.
    The intervals take layers as an independent sample (Bonett & Wright's standard error on Fisher's z; Student's t), so
    leave out second names of one tensor.

    Args:
        scores: Score of every layer.
        sizes: Measures of size by name, each (layers): parameters, units, activation scale.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        One row for each size: ``size``, ``spearman``, ``spearman_low``, ``spearman_high``, ``slope``, ``slope_low``,
        ``slope_high`` and ``layers``, the number with positive score and size that the slope is fitted to. NaN with
        fewer than 4 layers or with equal sizes.

    Raises:
        ValueError: If ``confidence`` is outside (0, 1).

    Source:
        Bonett & Wright 2000, Sample size requirements for estimating Pearson, Kendall and Spearman correlations.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1), got {confidence}.")
    rows = [
        {"size": name, **_spearman_interval(scores, size, confidence), **_slope(scores, size, confidence)}
        for name, size in sizes.items()
    ]
    return pd.DataFrame(rows)


def class_dependence(
    scores: Float[Array, " layers"], classes: Mapping[str, Sequence[Hashable]], *, logarithmic: bool = True
) -> pd.DataFrame:
    r"""Share of the variance of scores that lies between classes of layers, such as their role, stage, or both.

    .. math:: \eta^2 = 1 - \sum_l (y_l - \bar y_{c(l)})^2 \,/\, \sum_l (y_l - \bar y)^2, \qquad y = \log s

    is the share that the class means predict. Fine classes also predict scores that are unrelated to them. Compare the
    share with ``chance``, its mean over all ways to shuffle the scores: (classes - 1) / (layers - 1).

    Args:
        scores: Score of every layer. Leave out second names of one tensor: they are predicted by the first.
        classes: Class of every layer, by the name of the classification.
        logarithmic: Whether to take the log of the scores, which must then be positive.

    Returns:
        One row for each classification: ``classes`` (its name), ``groups`` (number of classes), ``share`` and
        ``chance``. NaN where all scores are equal.

    Raises:
        ValueError: If a classification does not class every layer, there are fewer than 2, or a score has no logarithm.

    Example:
        >>> class_dependence(np.array([8.0, 8.0, 2.0, 2.0]), {"role": ["fc", "fc", "norm", "norm"]})
          classes  groups  share    chance
        0    role       2    1.0  0.333333
    """
    if len(scores) < 2:
        raise ValueError(f"a variance needs at least 2 layers, got {len(scores)}.")
    if logarithmic and not (scores > 0).all():
        raise ValueError(
            "the log of scores needs them positive: take logarithmic=False, or leave out those that are not."
        )
    values = pd.Series(np.log(scores) if logarithmic else scores)
    total = values.var(ddof=0) if np.ptp(scores) else math.nan
    rows = []
    for name, labels in classes.items():
        if len(labels) != len(values):
            raise ValueError(f"{name!r} classes {len(labels)} layers, the scores are of {len(values)}.")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        means = values.groupby([numbers[label] for label in labels]).transform("mean")
        share = 1 - (values - means).var(ddof=0) / total
        chance = (len(numbers) - 1) / (len(values) - 1)
        rows.append({"classes": name, "groups": len(numbers), "share": share, "chance": chance})
    return pd.DataFrame(rows)


def _spearman_interval(scores: Array, size: Array, confidence: float) -> dict[str, float]:
    """Spearman's correlation with Bonett and Wright's interval."""
    rho = spearman(scores, size)
    if len(scores) < 4 or math.isnan(rho):
        return {"spearman": rho, "spearman_low": math.nan, "spearman_high": math.nan}
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt((1 + rho**2 / 2) / (len(scores) - 3))
    # A perfect correlation has no finite z.
    z = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
    return {"spearman": rho, "spearman_low": math.tanh(z - half), "spearman_high": math.tanh(z + half)}


def _slope(scores: Array, size: Array, confidence: float) -> dict[str, float]:
    """Least-squares slope of the logarithms with Student's interval, over layers where both exist."""
    usable = (scores > 0) & (size > 0)
    x, y = np.log(size[usable]), np.log(scores[usable])
    if len(x) < 4 or np.ptp(x) == 0:
        return {"slope": math.nan, "slope_low": math.nan, "slope_high": math.nan, "layers": len(x)}
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2)) * fit.stderr
    return {"slope": fit.slope, "slope_low": fit.slope - half, "slope_high": fit.slope + half, "layers": len(x)}


def _agreements(a: Array, b: Array, k: int, p: float) -> pd.DataFrame:
    """Every measure of every row of two tables of scores (rows, layers)."""
    overlaps, (kendalls, weighted) = _overlaps(a, b, k), _taus(a, b)
    return pd.DataFrame(
        {
            "spearman": _rank_correlations(a, b),
            "kendall tau-b": kendalls,
            "weighted tau": weighted,
            f"rank-biased overlap, p = {p:g}": _biased_overlaps(a, b, p, a.shape[1]),
            f"overlap at {k}": overlaps,
            f"jaccard at {k}": overlaps / (2 - overlaps),
        }
    )


def _taus(a: Array, b: Array) -> tuple[Array, Array]:
    """Kendall's tau-b and the weighted tau of every row; SciPy's functions take a millisecond for each row."""
    best = [ranks(scores, "min").astype(np.int32) for scores in (a, b)]
    concordance = np.stack([(_signs(x) * _signs(y)).sum(axis=1, dtype=np.int64) for x, y in zip(*best, strict=True)])
    others = [a.shape[1] - 1 - (ranks(scores, "max") - first) for scores, first in zip((a, b), best, strict=True)]

    def tau(weights: Array) -> Array:
        """Tau whose pairs weigh as much as the two layers together; ties count for neither."""
        norms = np.sqrt(np.prod([(weights * apart).sum(axis=1) for apart in others], axis=0))
        sums = (weights * concordance).sum(axis=1)
        return np.asarray(np.divide(sums, norms, out=np.full(len(a), np.nan), where=norms > 0))

    return tau(np.ones(a.shape)), (tau(_rank_weights(a, b)) + tau(_rank_weights(b, a))) / 2


def _signs(ranked: Array) -> Array:
    """Whether each layer is below (1) or above (-1) each other one, or ties with it (0)."""
    above, below = (compare.outer(ranked, ranked).view(np.int8) for compare in (np.less, np.greater))
    return np.asarray(below - above)


def _rank_weights(scores: Array, ties: Array) -> Array:
    """1 / rank of every layer of every row; of equal scores the one that is higher in ``ties`` comes first."""
    order = np.lexsort((ties, scores), axis=-1)[:, ::-1]
    weights = np.empty(scores.shape)
    np.put_along_axis(weights, order, 1 / np.arange(1, scores.shape[1] + 1)[None], axis=-1)
    return weights


def _rank_correlations(a: Array, b: Array) -> Array:
    """Spearman's correlation of every row; NaN where all scores of a ranking tie."""
    x, y = (ranked - ranked.mean(axis=1, keepdims=True) for ranked in (ranks(a, "average"), ranks(b, "average")))
    norms = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.asarray(np.divide((x * y).sum(axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0))


def _biased_overlaps(a: Array, b: Array, p: float, depth: int) -> Array:
    """Extrapolated rank-biased overlap of every row."""
    first, second = ranks(a, "min"), ranks(b, "min")
    sizes, others, both = (_count_to_depth(ranked) for ranked in (first, second, np.maximum(first, second)))
    agreement = (2 * both / (sizes + others))[:, :depth]
    discount = p ** np.arange(1, depth + 1)
    return np.asarray((1 - p) / p * agreement @ discount + agreement[:, -1] * discount[-1])


def _overlaps(a: Array, b: Array, k: int) -> Array:
    """Share of the top k that is the same, of every row."""
    return np.asarray(((ranks(a) <= k) & (ranks(b) <= k)).sum(axis=1) / k)


def _count_to_depth(ranked: Array) -> Array:
    """Number of layers of every row at rank d or better, for d = 1 ... number of layers."""
    rows, layers = ranked.shape
    cells = ranked.astype(int) - 1 + layers * np.arange(rows)[:, None]
    return np.asarray(np.bincount(cells.ravel(), minlength=rows * layers).reshape(rows, layers).cumsum(axis=1))


def _chance(k: int, p: float, layers: int) -> list[float]:
    """Expectation of every measure for unrelated rankings."""
    depths = np.arange(1, layers + 1)
    biased = float((1 - p) / p * (depths / layers * p**depths).sum() + p**layers)
    shared = np.arange(k + 1)
    jaccard = float((stats.hypergeom.pmf(shared, layers, k, k) * shared / (2 * k - shared)).sum())
    return [0.0, 0.0, 0.0, biased, k / layers, jaccard]


def _resample_both(
    a: Array, b: Array, generator: np.random.Generator, n_resamples: int, paired: bool
) -> tuple[Array, Array]:
    """Resampled scores of both, (resamples, layers)."""
    if paired:
        means = [scores.mean(axis=1, keepdims=True) for scores in (a, b)]
        together = resample_means(np.concatenate(means, axis=2), generator, n_resamples)
        return together[:, : a.shape[-1]], together[:, a.shape[-1] :]
    first, second = (
        resample_means(scores, generator, n_resamples) if scores.ndim == 3 else np.tile(scores, (n_resamples, 1))
        for scores in (a, b)
    )
    return first, second


def _check_shapes(a: Array, b: Array, paired: bool) -> int:
    """The number of layers, if the two can be compared."""
    for name, scores in (("a", a), ("b", b)):
        if scores.ndim not in (1, 3):
            raise ValueError(f"`{name}` must be (layers) or (images, orders, layers), got {scores.shape}.")
        if not np.isfinite(scores).all():
            raise ValueError(f"`{name}` must be finite: leave out layers or images without a score.")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"rankings of {a.shape[-1]} and {b.shape[-1]} layers cannot be compared: take those of `common_layers`."
        )
    if paired and not (a.ndim == b.ndim == 3 and len(a) == len(b)):
        raise ValueError(
            f"`paired` needs the same images in both, got scores of shapes {a.shape} and {b.shape}: set it to False."
        )
    return int(a.shape[-1])


def _check_persistence(p: float) -> None:
    """Raise unless p is a probability that can be a persistence."""
    if not 0 < p < 1:
        raise ValueError(f"`p` must lie in (0, 1), got {p}: it is the weight of a rank relative to the one above.")


def _first_few(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
