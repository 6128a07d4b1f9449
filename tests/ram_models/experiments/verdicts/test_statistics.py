"""Statistics of paired runs: textbook values, exact enumeration, and verdicts at their borders."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ram_models.experiments.verdicts.statistics import block_interval, contrast, holm, sign_flip_p, verdict_of

DIFFERENCES = np.array([0.31, 0.12, 0.25, 0.40, -0.05, 0.22])


def test_the_interval_is_students():
    low, high = block_interval(DIFFERENCES, 0.9)
    half = stats.t.ppf(0.95, 5) * DIFFERENCES.std(ddof=1) / np.sqrt(6)
    np.testing.assert_allclose([low, high], [DIFFERENCES.mean() - half, DIFFERENCES.mean() + half], rtol=1e-12)


def test_the_sign_flip_test_counts_every_pattern_of_signs():
    means = [np.mean(DIFFERENCES * signs) for signs in itertools.product((-1, 1), repeat=6)]
    share = np.mean(np.abs(means) >= DIFFERENCES.mean() - 1e-12)
    assert sign_flip_p(DIFFERENCES) == pytest.approx(share, abs=1e-12)


def test_one_block_says_nothing():
    found = contrast(np.array([3.0]), margin=0.05)
    assert (found.low, found.high) == (float("-inf"), float("inf"))
    assert not found.equivalent
    assert verdict_of(found, 0.05) == "undecided"


@pytest.mark.parametrize(
    ("differences", "verdict", "equivalent"),
    [
        (np.array([0.30, 0.32, 0.31]), "holds", False),
        (np.array([-0.30, -0.32, -0.31]), "falsified", False),
        (np.array([0.01, -0.01, 0.005]), "falsified", True),
        (np.array([0.010, 0.011, 0.012]), "holds", True),
        (np.array([0.5, -0.5, 0.4]), "undecided", False),
    ],
    ids=["above", "below", "nothing", "small but sure", "wide"],
)
def test_a_verdict_follows_from_the_interval_and_the_margin(differences, verdict, equivalent):
    found = contrast(differences, margin=0.05)
    assert (verdict_of(found, 0.05), found.equivalent) == (verdict, equivalent)


def test_what_was_not_measured_is_not_judged():
    assert verdict_of(None, 0.05) == "not tested"


@pytest.mark.parametrize("bad", [np.array([]), np.array([0.1, np.nan])], ids=["none", "nan"])
def test_missing_differences_are_refused(bad):
    with pytest.raises(ValueError, match="`differences` must be finite and at least one"):
        contrast(bad, 0.05)


def test_holms_adjusted_values_bound_bonferronis_and_keep_the_order():
    p_values = [0.001, 0.02, 0.03, 0.5]
    adjusted = holm(p_values)
    assert adjusted == pytest.approx([0.004, 0.06, 0.06, 0.5])
    assert all(a <= 4 * p for a, p in zip(adjusted, p_values, strict=True))
