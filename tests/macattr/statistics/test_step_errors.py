"""Step errors by refinement, against sums whose exact value is known."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from macattr.statistics.step_errors import cautious_step_error, observed_order, step_error, steps_for_tolerance


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
    found = [observed_order(*(trapezoids(n, np.array([power])) for n in (64, 32, 16))) for power in (4.0, 0.5)]
    # The next term of x^4 is 1e-3 of the leading one at 16 steps; x^0.5 is on its way to order 1.5.
    np.testing.assert_allclose(found, [2, 1.5], atol=0.03)


@pytest.mark.parametrize("stride", [3, 4, 5, 7])
@pytest.mark.parametrize("order", [0.5, 1.0, 1.7, 2.0])
def test_the_order_and_the_error_of_sums_that_converge_exactly_are_found_with_any_third_sum(order, stride):
    exact, errors = np.array([2.0, -3.0, 0.0]), np.array([0.01, -0.2, 0.0])
    fine, coarse, coarsest = (exact + errors * k**order for k in (1, 2, stride))
    found = observed_order(fine, coarse, coarsest, stride)
    assert found == pytest.approx(order, abs=1e-5)
    np.testing.assert_allclose(
        cautious_step_error(fine, coarse, coarsest, found, stride), np.abs(errors), rtol=1e-4, atol=1e-14
    )


def test_a_difference_that_is_small_by_chance_does_not_hide_an_error():
    fine, coarse, coarsest = np.array([1.0, 1.0]), np.array([1.06, 1.0]), np.array([1.18, 1.12])
    order = observed_order(fine, coarse, coarsest)  # 2: together the differences are 0.06 and 0.24
    np.testing.assert_allclose(cautious_step_error(fine, coarse, coarsest, order), [0.06 / 3, 0.12 / 12], atol=1e-12)


def test_sums_that_do_not_converge_have_the_least_order_and_equal_ones_none():
    assert observed_order(np.array([1.0]), np.array([2.0]), np.array([1.0])) == 0.25
    assert np.isnan(observed_order(np.ones(2), np.ones(2), np.ones(2)))


def test_kinks_at_random_places_are_estimated_and_not_underestimated():
    # A gradient that jumps at random: the trapezoid's error falls with the first power, and by chance.
    jumps = np.random.default_rng(0).random((400, 5))

    def sums(n_steps):
        y = np.linspace(0, 1, n_steps + 1)
        return trapezoid((y[:, None, None] > jumps).astype(float), y, axis=0).sum(-1)

    true = np.abs(sums(30) - (1 - jumps).sum(-1))
    order = observed_order(sums(30), sums(15), sums(6), 5)
    ratio = cautious_step_error(sums(30), sums(15), sums(6), order, 5) / true
    assert 0.6 < order < 1.2
    assert 1 < np.quantile(ratio, 0.1) < np.median(ratio) < 5
    assert np.median(np.abs(step_error(sums(30), sums(15))) / true) < 0.8  # by the order of the formula


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
        (lambda e: step_error(e, e, order=0), "`order` must be above 0, got 0"),
        (lambda e: observed_order(e, e, e, stride=2), "`stride` must be above 2, got 2"),
        (lambda e: steps_for_tolerance(e, 10, 0.1, order=0.0), "`order` above 0, got 10, 2 and 0.0"),
        (lambda e: steps_for_tolerance(e, 10, 0.0), "`tolerance` must be above 0"),
        (lambda e: steps_for_tolerance(e, 10, 0.1, share=0.0), "`share` must lie in"),
        (lambda e: steps_for_tolerance(e, 0, 0.1), "must be at least 1 and `order` above 0, got 0, 2 and 2"),
        (lambda e: steps_for_tolerance(e * np.nan, 10, 0.1), "`errors` must hold finite numbers"),
    ],
)
def test_options_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(3))
