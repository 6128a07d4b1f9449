"""Ranks within classes, as shares that compare layers of different classes."""

__all__ = ["class_shares"]

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float


def class_shares(values: Float[np.ndarray, " layers"], classes: Sequence[Hashable]) -> Float[np.ndarray, " layers"]:
    r"""Position of every value within its class, in [0, 1): :math:`1 - \text{rank} / \text{size of the class}`.

    A choice of the top share p of every class holds exactly the layers that reach 1 - p. The only member of a class
    has 0: it is chosen with the whole class alone. Equal values share their mean rank.

    Args:
        values: A value for every layer, which may be infinite; NaN ranks last.
        classes: Class of every layer.

    Raises:
        ValueError: If there are not as many classes as values.

    Source:
        Spectrum (arXiv:2406.06623): the top share of every type of module.

    Example:
        >>> class_shares(np.array([5.0, 7.0, 0.1, 0.2]), ["qkv", "qkv", "fc", "fc"]).tolist()
        [0.0, 0.5, 0.0, 0.5]
    """
    if len(values) != len(classes):
        raise ValueError(f"{len(values)} values need as many classes, got {len(classes)}.")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(classes))}
    groups = pd.Series(values).groupby([numbers[label] for label in classes])
    ranked = groups.rank(ascending=False, na_option="bottom")
    return np.asarray(1 - ranked / groups.transform("size"))
