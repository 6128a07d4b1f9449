"""Error of sums along a path by their finite number of steps, and the steps that a tolerance needs."""

__all__ = ["LEAST_ORDER", "cautious_step_error", "observed_order", "step_error", "steps_for_tolerance"]

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

Array = np.ndarray

ORDERS = (0.25, 4.0)
"""Orders of convergence that are looked for."""

LEAST_ORDER = 1.0
"""Order that step errors go by at least, that of a gradient that jumps. Less is seen where the coarsest of three sums
is too coarse to tell; errors by less were five times too large on the bundled network."""


def step_error(
    fine: float | Float[Array, "*any"], coarse: float | Float[Array, "*any"], order: int | float = 2, stride: int = 2
) -> Float[Array, "*any"]:
    r"""Estimated error of sums at N steps, ``fine`` - exact, from the sums at N / k steps of k times the length.

    .. math:: S_N - S \approx \frac{S_{N/k} - S_N}{k^p - 1}

    ``fine - step_error(fine, coarse)`` is the extrapolated value. Along a rough path, sums converge more slowly than at
    the order of their formula, and this is a lower bound: see :func:`observed_order`.

    Args:
        fine: Sums, or scores, at N steps.
        coarse: The same at N / k steps.
        order: Order p of the sum: 2 for the trapezoid on a smooth path, 1 for left and right tags.
        stride: The factor k.

    Raises:
        ValueError: If ``order`` is not positive.

    Source:
        Richardson 1911; it holds where the sum converges at its order.

    Example:
        >>> step_error(np.array([1.01]), np.array([1.04])).round(9)  # of an exact 1
        array([0.01])
    """
    if order <= 0:
        raise ValueError(f"`order` must be above 0, got {order}: 2 for the trapezoid, 1 for left and right tags.")
    return np.asarray((coarse - fine) / (stride**order - 1))


def cautious_step_error(
    fine: Float[Array, "*any"],
    coarse: Float[Array, "*any"],
    coarsest: Float[Array, "*any"],
    order: int | float,
    stride: int = 4,
) -> Float[Array, "*any"]:
    r"""Estimated size of the error of sums at N steps, the larger of two estimates from three sums.

    .. math:: |S_N - S| \approx
        \max\left(\frac{|S_{N/2} - S_N|}{2^p - 1}, \frac{|S_{N/k} - S_{N/2}|}{k^p - 2^p}\right)

    Both are right where sums converge at order p. Where they jump about, one of the differences may be small by chance.

    Args:
        fine: Sums, or scores, at N steps.
        coarse: The same at N / 2 steps.
        coarsest: The same at N / k steps.
        order: Order p, such as :func:`observed_order` finds it.
        stride: The factor k, above 2.

    Raises:
        ValueError: If ``order`` is not positive or ``stride`` is not above 2.
    """
    _check_stride(stride)
    near = np.abs(step_error(fine, coarse, order))
    far = np.abs(coarsest - coarse) / (stride**order - 2**order)
    return np.asarray(np.maximum(near, far))


def observed_order(
    fine: Float[Array, "*any"], coarse: Float[Array, "*any"], coarsest: Float[Array, "*any"], stride: int = 4
) -> float:
    r"""Order p at which sums really converge.

    .. math:: \frac{k^p - 2^p}{2^p - 1} =
        \frac{\langle |S_{N/k} - S_{N/2}| / |S_N| \rangle}{\langle |S_{N/2} - S_N| / |S_N| \rangle}

    is solved for p, with means over all entries, which share one path. It is about 2 for the trapezoid on a smooth path
    once N is large enough, 1 or less where the gradient jumps. Between 0.25 and 4; NaN where all sums are equal.

    Args:
        fine: Sums at N steps.
        coarse: Sums at N / 2 steps.
        coarsest: Sums at N / k steps.
        stride: The factor k, above 2.

    Raises:
        ValueError: If ``stride`` is not above 2.

    Example:
        >>> observed_order(np.array([1.01]), np.array([1.04]), np.array([1.16]))
        2.0
    """
    _check_stride(stride)
    counts = np.abs(fine) > 0
    size = np.abs(fine[counts])
    near, far = ((np.abs(b - a)[counts] / size).sum() for a, b in ((fine, coarse), (coarse, coarsest)))
    if not near > 0:
        return math.nan
    lowest, highest = ORDERS

    def excess(order: float) -> float:
        return float((stride**order - 2**order) - far / near * (2**order - 1))

    if excess(lowest) >= 0 or excess(highest) <= 0:
        return lowest if excess(lowest) >= 0 else highest
    return round(float(brentq(excess, lowest, highest)), 6)


def _check_stride(stride: int) -> None:
    """Raise unless there are three sums."""
    if stride <= 2:
        raise ValueError(f"`stride` must be above 2, got {stride}: it leads to sums of fewer than N / 2 steps.")


def steps_for_tolerance(
    errors: Float[Array, "*any"],
    n_steps: int,
    tolerance: float,
    *,
    order: int | float = 2,
    share: float = 1.0,
    multiple: int = 2,
) -> int:
    r"""Number of steps that brings the errors at ``n_steps`` below a tolerance, :math:`N (e/\mathrm{tol})^{1/p}`.

    Args:
        errors: Errors at ``n_steps``, any sign, in the unit of ``tolerance``: divide by the scores for relative ones.
        n_steps: Steps N at which they were measured.
        tolerance: Largest error that is accepted, above 0. A third of the scores' standard error over images
            (:func:`macattr.statistics.bootstrap.bootstrap`) is small enough: it adds 5 % to that error.
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
    if n_steps < 1 or multiple < 1 or order <= 0:
        raise ValueError(
            f"`n_steps` and `multiple` must be at least 1 and `order` above 0, got {n_steps}, {multiple} and {order}."
        )
    error = float(np.quantile(np.abs(errors), share, method="inverted_cdf"))
    needed = n_steps * math.pow(error / tolerance, 1 / order)
    return multiple * max(1, math.ceil(needed / multiple - 1e-9))
