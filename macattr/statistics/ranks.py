"""Ranks of layers, and how many layers a top fraction holds."""

__all__ = ["check_count", "ranks", "top_count", "whole_part"]

import math
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Ties = Literal["ordinal", "average", "min", "max", "dense"]
"""Rank of equal scores, as in :func:`scipy.stats.rankdata`."""

Array = np.ndarray


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


def check_count(k: int, n_layers: int) -> None:
    """Raise unless a top k can be taken."""
    if not 1 <= k <= n_layers:
        raise ValueError(f"`k` must lie in 1 ... {n_layers} (the number of layers), got {k}.")
