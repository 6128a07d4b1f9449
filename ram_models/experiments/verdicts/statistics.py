"""Statistics of paired runs: what a difference between two arms over blocks says."""

__all__ = ["Contrast", "Verdict", "block_interval", "contrast", "holm", "sign_flip_p", "verdict_of"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Array = np.ndarray
Verdict = Literal["holds", "falsified", "undecided", "not tested"]
"""What is said of a claim, see :func:`verdict_of`."""


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms, one value a block.

    Args:
        blocks: Number of blocks.
        mean: Mean difference.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p_t: Two-sided p-value of Student's test; NaN for one block.
        p_sign_flip: Exact two-sided p-value of the sign-flip test.
        equivalent: Whether the mean lies within the margin, by two one-sided t tests at 5 %.
    """

    blocks: int
    mean: float
    low: float
    high: float
    p_t: float
    p_sign_flip: float
    equivalent: bool


def block_interval(differences: Float[Array, " blocks"], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean difference over blocks; (-inf, inf) for a single block.

    Example:
        >>> low, high = block_interval(np.array([1.0, 2.0, 3.0]))
        >>> round(low, 2), round(high, 2)
        (-0.48, 4.48)
    """
    if len(differences) < 2:
        return float("-inf"), float("inf")
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    interval = stats.ttest_1samp(differences, 0.0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


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


def contrast(differences: Float[Array, " blocks"], margin: float, confidence: float = 0.95) -> Contrast:
    """Everything that is reported of a paired difference.

    Args:
        differences: One value a block, in dB.
        margin: Half the width of the band around 0 that counts as no difference, in dB.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ValueError: If there is no block or a value is not finite.

    Source:
        Lakens 2017 for the equivalence test.
    """
    differences = np.asarray(differences, dtype=float)
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError(f"`differences` must be finite and at least one, got {differences.tolist()}.")
    low, high = block_interval(differences, confidence)
    inner_low, inner_high = block_interval(differences, 0.90)  # two one-sided tests at 5 %
    p_t = float(stats.ttest_1samp(differences, 0.0).pvalue) if np.ptp(differences) > 0 else float("nan")
    return Contrast(
        len(differences), float(differences.mean()), low, high, p_t, sign_flip_p(differences),
        -margin < inner_low and inner_high < margin,
    )  # fmt: skip


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


def verdict_of(found: Contrast | None, margin: float) -> Verdict:
    """Whether a claim "the difference is positive" holds: its interval lies above 0, or below the margin, or neither.

    A difference that is surely positive and surely below the margin holds: it is small, and the interval says so.

    Args:
        found: The contrast; None if it was not or could not be measured.
        margin: Largest difference that would not matter, in dB.
    """
    if found is None:
        return "not tested"
    if found.low > 0:
        return "holds"
    return "falsified" if found.high < margin else "undecided"
