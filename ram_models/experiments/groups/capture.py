"""How well scores predict gains: rank correlation over groups, and the gain of the groups that fill a budget."""

__all__ = ["Foresight", "best_set", "correlations", "differences", "fill"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

Array = np.ndarray

RESAMPLES = 10_000
"""Resamples of the groups."""


@dataclass(frozen=True)
class Foresight:
    """A rank correlation, or a difference of two.

    Args:
        value: Over all groups, in [-1, 1]; of a difference in [-2, 2].
        low: Lower end of the 95 % interval over resamples of the groups.
        high: Its upper end.
        p: Two-sided p-value: twice the share of resamples on the other side of 0.
    """

    value: float
    low: float
    high: float
    p: float


def correlations(
    scores: Float[Array, "methods groups"], gains: Float[Array, " groups"], seed: int = 0
) -> Float[Array, "resamples methods"]:
    """Spearman's correlation of every method's scores with the gains: over all groups first, then over resamples.

    Args:
        scores: One row a method.
        gains: What every group gained.
        seed: Of the resamples, which are the same for all methods.

    Returns:
        The first row is over all groups; then one row a resample in which nothing is all tied.

    Raises:
        ValueError: If all gains, or all scores of a method, are tied.
    """
    number = len(gains)
    draws = np.random.default_rng(seed).integers(0, number, (RESAMPLES, number))
    every = np.vstack([np.arange(number), draws])
    ranked_gains = _centred_ranks(gains[every])
    found: Array = np.stack([(_centred_ranks(row[every]) * ranked_gains).sum(1) for row in scores], axis=1)
    if not np.isfinite(found[0]).all():
        raise ValueError("all gains, or all scores of a method, are tied: they have no rank correlation.")
    usable: Array = found[np.isfinite(found).all(1)]
    return usable


def differences(found: Float[Array, " resamples"]) -> Foresight:
    """What the resamples say of a correlation, or of the difference of two.

    Args:
        found: Over all groups first, then over resamples.
    """
    value, resampled = float(found[0]), found[1:]
    low, high = np.quantile(resampled, [0.025, 0.975])
    side = min((resampled <= 0).mean(), (resampled >= 0).mean())
    return Foresight(value, float(low), float(high), float(min(1.0, 2 * max(side, 1 / len(resampled)))))


def fill(order: Sequence[int], sizes: Int[Array, " groups"], budget: float) -> list[int]:
    """Groups in their order that fit into a budget; one that does not is passed over.

    Args:
        order: Numbers of the groups, best first.
        sizes: Parameters of every group.
        budget: Number of parameters.

    Example:
        >>> fill([0, 1, 2], np.array([5, 4, 3]), 8.0)
        [0, 2]
    """
    chosen: list[int] = []
    for group in order:
        if sizes[[*chosen, group]].sum() <= budget:
            chosen.append(group)
    return chosen


def best_set(gains: Float[Array, " groups"], sizes: Int[Array, " groups"], budget: float) -> list[int]:
    """The groups within a budget whose gains add up to most, of all sets.

    Args:
        gains: Of every group, at most 20 of them.
        sizes: Parameters of every group.
        budget: Number of parameters.

    Example:
        >>> best_set(np.array([5.0, 4.0, 4.0]), np.array([5, 4, 4]), 8.0)
        [1, 2]
    """
    sets = (np.arange(2 ** len(gains))[:, None] >> np.arange(len(gains))) & 1
    worth = np.where(sets @ sizes <= budget, sets @ gains, -np.inf)
    return [int(group) for group in np.flatnonzero(sets[worth.argmax()])]


def _centred_ranks(values: Float[Array, "rows groups"]) -> Float[Array, "rows groups"]:
    """Ranks of every row, ties on average, with mean 0 and norm 1; NaN where all tie."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(1, keepdims=True))
    scaled: Array = np.divide(ranks, norms, out=np.full_like(ranks, np.nan), where=norms > 0)
    return scaled
