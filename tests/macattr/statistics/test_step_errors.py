"""Step errors by refinement, against sums whose exact value is known."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from macattr.statistics.step_errors import observed_order, step_error, steps_for_tolerance


def trapezoids(n_steps: int, powers: np.ndarray) -> np.ndarray:
    """Trapezoid sums of x^p on [0, 1]."""
    x = np.linspace(0, 1, n_steps + 1)
    return trapezoid(x[:, None] ** powers, x, axis=0)


def test_the_estimate_is_exact_for_cubics():
    # The trapezoid's error has even powers of the step alone, and for polynomials up to degree 3 only the second.
    powers = np.array([1.0, 2.0, 3.0])
    found = step_error(trapezoids(8, powers), trapezoids(4, powers))
    np.testing.assert_allclose(found, trapezoids(8, powers) - 1 / (powers + 1), atol=1e-15)


def test_first_order_sums_differ_by_their_error():
    # Left sums of x: 1/2 - 1/(2 N).
    full, half = np.array([0.5 - 1 / 16]), np.array([0.5 - 1 / 8])
    np.testing.assert_allclose(step_error(full, half, order=1), [-1 / 16])


def test_the_observed_order_of_the_trapezoid_is_2_and_at_a_kink_it_is_not():
    powers = np.array([4.0, 0.5])
    found = observed_order(*(trapezoids(n, powers) for n in (64, 32, 16)))
    # The next term of x^4 is 1e-3 of the leading one at 16 steps; x^0.5 is on its way to order 1.5.
    np.testing.assert_allclose(found, [2, 1.5], atol=0.03)


@pytest.mark.parametrize("power", [4.0, 7.0])
def test_the_steps_asked_for_meet_the_tolerance_and_hardly_more(power):
    powers, tolerance = np.array([power]), 1e-5
    full, half = trapezoids(32, powers), trapezoids(16, powers)
    needed = steps_for_tolerance(step_error(full, half), 32, tolerance)
    exact = 1 / (power + 1)
    assert abs(trapezoids(needed, powers) - exact) <= tolerance * 1.01  # higher terms at 32 steps: below 1 %
    assert abs(trapezoids(int(0.95 * needed), powers) - exact) > tolerance


def test_steps_are_whole_multiples_and_a_share_leaves_out_the_worst_layers():
    errors = np.array([0.01] * 19 + [1.0])
    assert steps_for_tolerance(errors, 10, 0.01, share=0.95) == 10
    assert steps_for_tolerance(errors, 10, 0.01) == 100
    assert steps_for_tolerance(errors, 10, 0.01, multiple=6) == 102
    assert steps_for_tolerance(np.zeros(3), 10, 0.01) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: step_error(e, e, order=0), "`order` must be at least 1, got 0"),
        (lambda e: steps_for_tolerance(e, 10, 0.0), "`tolerance` must be above 0"),
        (lambda e: steps_for_tolerance(e, 10, 0.1, share=0.0), "`share` must lie in"),
        (lambda e: steps_for_tolerance(e, 0, 0.1), "must be at least 1, got 0, 2 and 2"),
        (lambda e: steps_for_tolerance(e * np.nan, 10, 0.1), "`errors` must hold finite numbers"),
    ],
)
def test_options_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(3))
