"""Error of sums along a path by their finite number of steps, and the steps that a tolerance needs."""

__all__ = ["step_error", "steps_for_tolerance"]

import math

import numpy as np
from jaxtyping import Float

Array = np.ndarray


def step_error(
    fine: float | Float[Array, "*any"], coarse: float | Float[Array, "*any"], order: int = 2
) -> Float[Array, "*any"]:
    r"""Estimated error of sums at N steps, ``fine`` - exact, from the sums over every second node (N / 2 steps).

    .. math:: S_N - S \approx \frac{S_{N/2} - S_N}{2^p - 1}

    ``fine - step_error(fine, coarse)`` is the extrapolated value.

    Args:
        fine: Sums, or scores, at N steps.
        coarse: The same at N / 2 steps.
        order: Order p of the sum: 2 for the trapezoid, 1 for left and right tags.

    Raises:
        ValueError: If ``order`` is below 1.

    Source:
        Richardson 1911; it holds where the sum converges at its order, see ``observed_order`` in this module.

    Example:
        >>> step_error(np.array([1.01]), np.array([1.04])).round(9)  # of an exact 1
        array([0.01])
    """
    if order < 1:
        raise ValueError(f"`order` must be at least 1, got {order}: 2 for the trapezoid, 1 for left and right tags.")
    return np.asarray((coarse - fine) / (2**order - 1))


def observed_order(
    fine: Float[Array, "*any"], coarse: Float[Array, "*any"], coarsest: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    r"""Order at which sums really converge, :math:`\log_2 |S_{N/4} - S_{N/2}| / |S_{N/2} - S_N|`.

    It is about 2 for the trapezoid once N is large enough. Where it is far from that, :func:`step_error` is unreliable.
    It is NaN where both differences are 0.

    Args:
        fine: Sums at N steps.
        coarse: The same at N / 2 steps.
        coarsest: The same at N / 4 steps.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log2(np.abs(coarsest - coarse) / np.abs(coarse - fine)))


def steps_for_tolerance(
    errors: Float[Array, "*any"],
    n_steps: int,
    tolerance: float,
    *,
    order: int = 2,
    share: float = 1.0,
    multiple: int = 2,
) -> int:
    r"""Number of steps that brings the errors at ``n_steps`` below a tolerance, :math:`N (e/\mathrm{tol})^{1/p}`.

    Args:
        errors: Errors at ``n_steps``, any sign, in the unit of ``tolerance``: divide by the scores for relative ones.
        n_steps: Steps N at which they were measured.
        tolerance: Largest error that is accepted, above 0. A third of the scores' standard error over images
            (:func:`macattr.statistics.certainty.bootstrap`) is small enough: it adds 5 % to that error.
        order: Order p of the sum.
        share: Share of the errors that must be below the tolerance, in (0, 1]: 0.95 leaves out the few layers near 0.
        multiple: The result is a multiple of this: 2 for a further refinement, 2 x groups on the fade path.

    Raises:
        ValueError: If errors are not finite or an option is out of range.

    Example:
        >>> steps_for_tolerance(np.array([0.04, -0.09]), n_steps=20, tolerance=0.01)
        60
    """
    if not errors.size or not np.isfinite(errors).all():
        raise ValueError("`errors` must hold finite numbers, and at least one: leave out the layers without an error.")
    if tolerance <= 0:
        raise ValueError(f"`tolerance` must be above 0, got {tolerance}.")
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share}.")
    if n_steps < 1 or multiple < 1 or order < 1:
        raise ValueError(
            f"`n_steps`, `multiple` and `order` must be at least 1, got {n_steps}, {multiple} and {order}."
        )
    error = float(np.quantile(np.abs(errors), share, method="inverted_cdf"))
    needed = n_steps * math.pow(error / tolerance, 1 / order)
    return multiple * max(1, math.ceil(needed / multiple - 1e-9))
