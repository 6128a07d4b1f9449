"""Means of PSNR where some images equal the clean one, so that their PSNR is infinite."""

__all__ = ["MeanPSNR", "mean_of_means", "mean_psnr"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class MeanPSNR(NamedTuple):
    """A mean over images.

    Args:
        db: Mean in dB of the images that differ from the clean one; infinite if there is no other.
        identical: Number of images that equal the clean one.
    """

    db: float
    identical: int


def mean_psnr(values: Sequence[float] | npt.NDArray[np.floating]) -> MeanPSNR:
    """Mean PSNR of the images that differ from the clean one, and the number of the others.

    One identical pair would make the mean of its set infinite. NaN, from a diverged network, stays NaN.

    Args:
        values: PSNR in dB of every image, at least one.

    Example:
        >>> mean_psnr([20.0, float("inf"), 22.0])
        MeanPSNR(db=21.0, identical=1)
    """
    array = np.asarray(values)
    identical = np.isposinf(array)
    others = array[~identical]
    return MeanPSNR(float(others.mean()) if len(others) else float("inf"), int(identical.sum()))


def mean_of_means(values: Sequence[float] | npt.NDArray[np.floating]) -> float:
    """Mean over sets, of their means in dB; NaN if some of them hold identical pairs alone.

    Without these sets it would be a mean of something else. NaN of sets that were not tested is left out.

    Args:
        values: Mean of every set.

    Example:
        >>> mean_of_means([20.0, 22.0]), mean_of_means([20.0, float("inf")])
        (21.0, nan)
    """
    array = np.asarray(values, dtype=float)
    present = array[~np.isnan(array)]
    infinite = np.isinf(present)
    if not len(present) or (infinite.any() and not infinite.all()):
        return float("nan")
    return float(present.mean())
