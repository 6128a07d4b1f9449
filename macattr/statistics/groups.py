"""Rankings of groups of images, such as those of one degradation: ranks in each, and where they agree."""

__all__ = ["group_ranks", "in_every_top"]

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from macattr.statistics.images import check_scores
from macattr.statistics.ranks import check_count, ranks

Array = np.ndarray


def group_ranks(scores: Float[Array, "images orders layers"], groups: Sequence[str]) -> pd.DataFrame:
    """Rank of every layer in every group of images, by its mean score there; 1 is the highest.

    Args:
        scores: Score of every image, pixel order and layer, finite.
        groups: Group of every image.

    Returns:
        One row for each layer, one column for each group in the order of its first image. Ties go to the layer that
        comes first, so every rank occurs once in a column.

    Raises:
        ValueError: If scores are not finite, or ``groups`` does not name one group for each image.

    Example:
        >>> group_ranks(np.array([[[3.0, 1.0]], [[1.0, 2.0]]]), ["noise", "blur"])
           noise  blur
        0      1     2
        1      2     1
    """
    if len(groups) != len(scores):
        raise ValueError(f"`groups` names {len(groups)} groups, one for each image, and there are {len(scores)}.")
    means = check_scores(scores).mean(axis=1)
    labels = np.array(groups)
    return pd.DataFrame({name: ranks(means[labels == name].mean(axis=0)).astype(int) for name in dict.fromkeys(groups)})


def in_every_top(ranked: pd.DataFrame, k: int) -> pd.Series:
    """Whether every layer is among the first k of all groups.

    Args:
        ranked: Table of :func:`group_ranks`.
        k: Layers in a top.

    Raises:
        ValueError: If ``k`` is not in 1 ... number of layers.

    Example:
        >>> in_every_top(pd.DataFrame({"noise": [1, 2], "blur": [2, 1]}), 1).sum()
        np.int64(0)
    """
    check_count(k, len(ranked))
    return (ranked <= k).all(axis=1)
