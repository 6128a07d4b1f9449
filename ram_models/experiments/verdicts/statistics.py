"""Statistics of paired runs: what a difference between two arms says, over blocks and over pre-trainings."""

__all__ = [
    "DECIDED",
    "DECISIVE",
    "LEVEL",
    "Contrast",
    "Interval",
    "Verdict",
    "contrast",
    "holm",
    "interval",
    "p_value",
    "sign_flip_p",
    "verdict_of",
]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

Array = np.ndarray
Verdict = Literal["holds", "equivalent", "falsified", "undecided", "not tested"]
"""What is said of a claim, see :func:`verdict_of`."""

DECIDED: tuple[Verdict, ...] = ("holds", "falsified", "equivalent")
"""Verdicts that say something, for or against a claim."""

DECISIVE = 6
"""Blocks from which on anything is decided: with fewer the exact test of signs cannot go below 5 %."""

LEVEL = 0.05
"""Error rate of a verdict."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Args:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms.

    Args:
        blocks: Number of blocks.
        pretrainings: Number of pre-trainings that the blocks share.
        mean: Mean difference over the blocks.
        over_blocks: 95 % interval over blocks.
        over_pretrainings: 95 % interval over the means of the pre-trainings.
        p: Two-sided p-value of Student's test over blocks, of a difference as large as the margin; NaN for one block.
        p_sign_flip: Exact two-sided p-value of the sign-flip test over blocks, of no difference.
        equivalent: Whether the difference lies within the margin, by two one-sided tests at 5 % over blocks, and over
            pre-trainings.
    """

    blocks: int
    pretrainings: int
    mean: float
    over_blocks: Interval
    over_pretrainings: Interval
    p: float
    p_sign_flip: float
    equivalent: bool


def interval(values: Float[Array, " n"], confidence: float = 0.95) -> Interval:
    """Student's interval of the mean; (-inf, inf) for a single value.

    Args:
        values: One a block, or one a pre-training.
        confidence: Coverage, in (0, 1).

    Example:
        >>> ends = interval(np.array([1.0, 2.0, 3.0]))
        >>> round(ends.low, 2), round(ends.high, 2)
        (-0.48, 4.48)
    """
    if len(values) < 2:
        return Interval(float("-inf"), float("inf"))
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    ends = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    return Interval(float(ends.low), float(ends.high))


def p_value(values: Float[Array, " n"], expected: float) -> float:
    """Two-sided p-value of Student's test that the mean is ``expected``; NaN for a single value.

    Args:
        values: One a block.
        expected: Mean under the hypothesis.

    Example:
        >>> round(p_value(np.array([1.0, 2.0, 3.0]), 0.0), 4)
        0.0742
    """
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return float(values[0] == expected)
    return float(stats.ttest_1samp(values, expected).pvalue)


def sign_flip_p(differences: Float[Array, " blocks"]) -> float:
    """Exact two-sided p-value: how often random signs give a mean as far from 0; 2 / 2^n at least, so 1 for one block.

    Example:
        >>> sign_flip_p(np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.1]))
        0.03125
    """
    if len(differences) < 2:
        return 1.0
    result = stats.permutation_test(
        (np.asarray(differences, dtype=float),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    return float(result.pvalue)


def contrast(differences: Float[Array, " blocks"], pretrainings: Shaped[Array, " blocks"], margin: float) -> Contrast:
    """Everything that is reported of a paired difference.

    Blocks that share a pre-training are not independent, so that an interval over them alone is too narrow. The means
    of the pre-trainings are; with three of them their interval is wide, and stands beside the other.

    Args:
        differences: One value a block, in dB.
        pretrainings: Name of the pre-training of every block.
        margin: Largest difference that would not matter, in dB.

    Raises:
        ValueError: If there is no block or a value is not finite.

    Source:
        Lakens 2017 for the equivalence test.
    """
    differences = np.asarray(differences, dtype=float)
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError(f"`differences` must be finite and at least one, got {differences.tolist()}.")
    means = np.array([differences[pretrainings == name].mean() for name in np.unique(pretrainings)])
    inner = [interval(values, 1 - 2 * LEVEL) for values in (differences, means)]
    return Contrast(
        blocks=len(differences),
        pretrainings=len(means),
        mean=float(differences.mean()),
        over_blocks=interval(differences, 1 - LEVEL),
        over_pretrainings=interval(means, 1 - LEVEL),
        p=p_value(differences, margin),
        p_sign_flip=sign_flip_p(differences),
        equivalent=all(-margin < each.low and each.high < margin for each in inner),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's step-down method, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
    adjusted = np.empty(len(p_values))
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def verdict_of(effect: Contrast | None, margin: float, p_adjusted: float) -> Verdict:
    """What is said of a claim "the difference is positive, and large enough to matter".

    It holds if the intervals over blocks and over pre-trainings both lie above the margin, and is falsified if both lie
    below it, where p stays below 5 % when it is corrected for the number of claims in the table. A difference that is
    surely within the margin, on both sides, makes the arms equivalent. Fewer than :data:`DECISIVE` blocks decide
    nothing.

    Args:
        effect: The contrast; None if it was not or could not be measured.
        margin: Largest difference that would not matter, in dB.
        p_adjusted: The contrast's p-value, corrected.
    """
    if effect is None:
        return "not tested"
    if effect.blocks < DECISIVE:
        return "undecided"
    if effect.equivalent:
        return "equivalent"
    intervals = (effect.over_blocks, effect.over_pretrainings)
    if p_adjusted < LEVEL and all(each.low > margin for each in intervals):
        return "holds"
    if p_adjusted < LEVEL and all(each.high < margin for each in intervals):
        return "falsified"
    return "undecided"
